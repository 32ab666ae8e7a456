//! Name lookups: those without an answer are given up here, and all are counted.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use netobs_common::{
    dns::{AnswerCounts, AnswerKey, DnsControl, DnsCounts, LATE_NS, LookupKey},
    event::{DNS_UNANSWERED, Dns, Event, EventHeader, EventKind},
    owner::OwnerKey,
};

use crate::{
    bpf::{DnsMaps, MapError},
    ledger::{dns::DnsBook, namespace::Namespace, owner::Workloads},
    sys::clock,
};

/// How often lookups that wait are looked through.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the kernel side has counted, with what was given up here.
pub(super) struct Counted {
    pub(super) answers: Vec<(AnswerKey, AnswerCounts)>,
    pub(super) owners: Vec<(OwnerKey, DnsCounts)>,
}

/// Follows lookups.
pub(super) struct DnsWatch {
    maps: DnsMaps,
    control: DnsControl,
    book: DnsBook,
    last_look: Option<Instant>,
    /// Lookups that were given up, oldest first, until no late answer is expected any more.
    given_up: VecDeque<(u64, LookupKey)>,
    /// Events of lookups that were given up.
    untold: Vec<Event>,
}

impl DnsWatch {
    /// Tells the kernel side what it must know before it is attached.
    pub(super) fn new(mut maps: DnsMaps, most: usize) -> Result<Self, MapError> {
        let control = DnsControl::default();
        maps.set_control(&control)?;
        Ok(Self {
            maps,
            control,
            book: DnsBook::new(most),
            last_look: None,
            given_up: VecDeque::new(),
            untold: Vec::new(),
        })
    }

    /// Gives up what has waited too long; each has an event in [`DnsWatch::take_given_up`].
    pub(super) fn look(&mut self) -> Result<(), MapError> {
        if self.last_look.is_some_and(|last| last.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.last_look = Some(Instant::now());
        self.give_up()
    }

    fn give_up(&mut self) -> Result<(), MapError> {
        let now_ns = clock::monotonic_ns();
        let Self {
            maps,
            control,
            book,
            given_up,
            untold,
            ..
        } = self;
        maps.give_up(now_ns, control.timeout_ns, |key, lookup| {
            book.give_up(&lookup.owner.key());
            given_up.extend(key.map(|key| (now_ns, key)));
            untold.push(Event::Dns(Dns {
                header: EventHeader {
                    ktime_ns: now_ns,
                    kind: EventKind::Dns as u32,
                    netns: lookup.owner.netns,
                },
                latency_ns: now_ns.saturating_sub(lookup.started_ns),
                lookup,
                outcome: DNS_UNANSWERED,
                answer_flags: 0,
                answers: 0,
                reserved: 0,
            }));
        })?;
        while let Some((since_ns, key)) = given_up.front().copied()
            && now_ns.saturating_sub(since_ns) > LATE_NS
        {
            given_up.pop_front();
            maps.forget_given_up(&key)?;
        }
        Ok(())
    }

    /// Everything that has been counted until now.
    pub(super) fn read(&mut self) -> Result<Counted, MapError> {
        self.give_up()?;
        Ok(Counted {
            answers: self.maps.answers()?,
            owners: self.book.with_given_up(self.maps.counts()?),
        })
    }

    /// The events of what was given up since the last call.
    pub(super) fn take_given_up(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.untold)
    }

    /// Brings the book up to what was read.
    pub(super) fn take(&mut self, counted: &Counted, workloads: &mut dyn Workloads) {
        self.book.take(&counted.answers, &counted.owners, workloads);
    }

    /// Forgets namespaces, and what has not changed for `idle`.
    pub(super) fn forget(
        &mut self,
        idle: Duration,
        gone: impl Fn(Namespace) -> bool,
    ) -> Result<(), MapError> {
        let (answers, owners) = self.book.forget(idle, gone);
        self.delete(&answers, &owners)
    }

    /// Deletes counts on the kernel side.
    pub(super) fn delete(
        &mut self,
        answers: &[AnswerKey],
        owners: &[OwnerKey],
    ) -> Result<(), MapError> {
        for key in answers {
            self.maps.forget_answers(key)?;
        }
        for owner in owners {
            self.maps.forget_counts(owner)?;
        }
        Ok(())
    }

    /// Changes how many label sets a family may have.
    pub(super) fn limit(&mut self, most: usize) {
        self.book.limit(most);
    }

    /// What is shown.
    pub(super) fn book(&self) -> &DnsBook {
        &self.book
    }
}
