//! One number that namespaces have had, and which of them has it now.

use std::time::{Duration, Instant};

use super::{BALANCED, Base};
use crate::{
    ledger::{
        balance::Balance, listeners::ListenSums, namespace::Namespace, retransmits::RetransmitSums,
    },
    sys::{
        netns::Netns,
        netstat::{Counter, Counters},
    },
};

/// Namespaces that had a number before the present one, of which late counts may still come.
const MOST_PAST: usize = 64;

/// One number, and the namespace that has it now.
pub(super) struct Observed {
    pub(super) netns: Netns,
    /// Identity of the namespace, once something has told it.
    identity: Option<u64>,
    /// An open listener has that identity: no count of another one can be of the present.
    vouched: bool,
    /// Those that had the number before, and until when.
    past: Vec<(u64, Instant)>,
    /// How many of those the books know of.
    told: usize,
    /// Grows when another namespace takes the number.
    pub(super) life: u64,
    /// Where the count of the kernel's counters begins.
    pub(super) base: Base,
    /// What had been attributed then.
    pub(super) base_retransmits: RetransmitSums,
    pub(super) before: Option<Counters>,
    pub(super) latest: Option<Counters>,
    /// The newest reading, to notice that the inode number now belongs to another namespace.
    newest: Option<Counters>,
    /// That was noticed where identities cannot be told, and the books do not know yet.
    pub(super) reborn: bool,
    pub(super) unattributed: Vec<(Counter, i64)>,
    pub(super) gone: Option<Instant>,
    /// Readings that have failed since one did not.
    pub(super) failures: u32,
}

impl Observed {
    pub(super) fn new(netns: Netns) -> Self {
        Self {
            netns,
            identity: None,
            vouched: false,
            past: Vec::new(),
            told: 0,
            life: 0,
            base: Base::Birth,
            base_retransmits: RetransmitSums::default(),
            before: None,
            latest: None,
            newest: None,
            reborn: false,
            unattributed: Vec::new(),
            gone: None,
            failures: 0,
        }
    }

    /// Those that have lost the number since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<Namespace> {
        let number = self.netns.id.0;
        let untold = self.past.iter().skip(self.told);
        let ended = untold.map(|(identity, _)| Namespace {
            number,
            identity: *identity,
        });
        let ended = ended.collect();
        self.told = self.past.len();
        ended
    }

    /// Whether the number had that identity, and has it no more.
    pub(super) fn had(&self, identity: u64) -> bool {
        self.past.iter().any(|(past, _)| *past == identity)
    }

    /// Whether that is the identity now.
    pub(super) fn is(&self, identity: u64) -> bool {
        self.identity == Some(identity)
    }

    /// Takes note of who has the number now. Another than before begins at zero: it came after the
    /// agent. 0 says nothing, and what has ended does not come back.
    pub(super) fn adopt(&mut self, identity: u64, now: Instant) {
        if identity == 0 || self.is(identity) || self.had(identity) {
            return;
        }
        if let Some(before) = self.identity.replace(identity) {
            self.past.push((before, now));
            self.begin_anew();
        }
    }

    /// Takes note of the identity of a listener that is open, if there is one: a namespace is there as
    /// long as its sockets are. It has the number even if a late count of another one was taken for
    /// the present's before.
    pub(super) fn vouch(&mut self, identity: Option<u64>, now: Instant) {
        self.vouched = identity.is_some();
        let Some(identity) = identity else { return };
        if let Some(place) = self.past.iter().position(|(past, _)| *past == identity) {
            self.past.remove(place);
            self.told -= usize::from(place < self.told);
        }
        self.adopt(identity, now);
    }

    /// Takes note of a count of `identity`, of which nothing was known. `asked` is what the
    /// namespace that has the number now says of itself, where it can be asked.
    pub(super) fn hear_of(&mut self, identity: u64, asked: Option<u64>, now: Instant) {
        if let Some(present) = asked.filter(|present| *present != identity) {
            self.adopt(present, now);
            self.bury(identity, now);
            return;
        }
        if self.vouched && asked.is_none() {
            self.bury(identity, now);
            return;
        }
        if self.gone.is_some() && self.identity.is_none() && identity != 0 {
            // What was last read is of one that has left no other trace.
            self.begin_anew();
        }
        self.adopt(identity, now);
    }

    /// Takes note of one that had the number at some time and has it no more.
    pub(super) fn bury(&mut self, identity: u64, now: Instant) {
        if identity != 0 && !self.is(identity) && !self.had(identity) {
            self.past.push((identity, now));
        }
    }

    /// Takes note of a reading. A namespace's counters never fall: if one did, the number has been
    /// given to another namespace, whose identity is not known yet.
    pub(super) fn note(&mut self, counters: Counters, now: Instant) {
        let fell = |newest: &Counters| {
            let lower = |counter: &Counter| newest.get(*counter) > counters.get(*counter);
            Counter::ALL.iter().any(lower)
        };
        if self.newest.as_ref().is_some_and(fell) {
            match self.identity.take() {
                Some(before) => self.past.push((before, now)),
                None => self.reborn = true,
            }
            self.begin_anew();
        }
        self.newest = Some(counters);
    }

    /// It was not found for a while, and is there again. Where identities cannot be told, it is
    /// taken for another.
    pub(super) fn come_back(&mut self) {
        self.gone = None;
        if self.identity.is_none() && self.past.is_empty() {
            self.reborn = true;
            self.begin_anew();
        }
    }

    /// Begins the count of another namespace that has the same number.
    fn begin_anew(&mut self) {
        self.base = Base::Birth;
        self.base_retransmits = RetransmitSums::default();
        (self.before, self.latest, self.newest) = (None, None, None);
        self.unattributed.clear();
        self.life += 1;
    }

    /// Forgets those that had the number so long ago that no count of theirs can come any more.
    pub(super) fn forget_past(&mut self, linger: Duration) {
        let surplus = self.past.len().saturating_sub(MOST_PAST);
        let late = self.past.iter().skip(surplus);
        let expired = late
            .take_while(|(_, until)| until.elapsed() > linger)
            .count();
        // Never one that the books have not been told of.
        let gone = (surplus + expired).min(self.told);
        self.told -= gone;
        self.past.drain(..gone);
    }

    /// What the kernel has counted since the baseline.
    pub(super) fn since_base(&self, counters: &Counters, counter: Counter) -> Option<u64> {
        let now = counters.get(counter)?;
        match &self.base {
            Base::Unknown => None,
            Base::Birth => Some(now),
            Base::At(base) => Some(now.saturating_sub(base.get(counter)?)),
        }
    }

    /// Holds what was attributed against the counters read before and after.
    pub(super) fn compare(
        &mut self,
        before: &Counters,
        after: Counters,
        listen: ListenSums,
        retransmits: RetransmitSums,
    ) {
        let base = self.base_retransmits;
        let balances = BALANCED.iter().filter_map(|counter| {
            let attributed = match counter {
                Counter::ListenDrops => listen.drops,
                Counter::ListenOverflows => listen.overflows,
                Counter::RetransSegs => retransmits.segments.saturating_sub(base.segments),
                _ => retransmits.syn_segments.saturating_sub(base.syn_segments),
            };
            let balance = Balance {
                before: self.since_base(before, *counter)?,
                after: self.since_base(&after, *counter)?,
                attributed,
            };
            Some((*counter, balance.unattributed()))
        });
        self.unattributed = balances.collect();
        self.latest = Some(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::{NetnsId, Place};

    fn observed() -> Observed {
        Observed::new(Netns {
            id: NetnsId(7),
            place: Place::Process(1),
            name: None,
        })
    }

    fn life(identity: u64) -> Namespace {
        Namespace {
            number: 7,
            identity,
        }
    }

    fn counters(drops: u64) -> Counters {
        Counters::parse(
            &format!("TcpExt: ListenOverflows ListenDrops\nTcpExt: 0 {drops}\n"),
            "",
        )
    }

    #[test]
    fn the_first_identity_is_of_what_was_there_all_along() {
        let mut observed = observed();
        let now = Instant::now();
        observed.base = Base::At(Box::new(counters(5)));
        observed.note(counters(8), now);
        observed.adopt(11, now);
        assert_eq!(
            observed.since_base(&counters(9), Counter::ListenDrops),
            Some(4)
        );
        assert!(observed.take_ended().is_empty() && !observed.reborn);
    }

    #[test]
    fn another_identity_begins_at_zero_though_no_counter_fell() {
        let mut observed = observed();
        let now = Instant::now();
        observed.base = Base::At(Box::new(counters(5)));
        observed.adopt(11, now);
        observed.note(counters(8), now);
        observed.adopt(12, now);
        observed.note(counters(20), now);
        assert_eq!(
            observed.since_base(&counters(20), Counter::ListenDrops),
            Some(20)
        );
        assert_eq!(observed.take_ended(), [life(11)]);
        // What has ended does not come back, and an unknown identity says nothing.
        observed.adopt(11, now);
        observed.adopt(0, now);
        assert!(observed.is(12) && observed.had(11));
        assert!(observed.take_ended().is_empty());
    }

    #[test]
    fn counters_that_fall_are_another_namespace_s_before_its_identity_is_known() {
        let mut observed = observed();
        let now = Instant::now();
        observed.adopt(11, now);
        observed.note(counters(8), now);
        observed.note(counters(3), now);
        assert!(!observed.reborn && !observed.is(11));
        observed.forget_past(Duration::ZERO);
        assert_eq!(observed.take_ended(), [life(11)]);
        observed.adopt(12, now);
        // Still the one that was just begun.
        assert!(observed.take_ended().is_empty());
        observed.forget_past(Duration::ZERO);
        assert!(!observed.had(11));
    }

    #[test]
    fn a_late_count_of_a_dead_namespace_is_not_the_present_one_s() {
        let mut observed = observed();
        let now = Instant::now();
        // It was never read: its count comes when another has the number already.
        observed.hear_of(11, Some(12), now);
        assert!(observed.is(12));
        assert_eq!(observed.take_ended(), [life(11)]);
        observed.hear_of(13, Some(12), now);
        assert_eq!(observed.take_ended(), [life(13)]);
        // Where nothing can be asked, the latest is believed.
        observed.hear_of(14, None, now);
        assert!(observed.is(14));
        assert_eq!(observed.take_ended(), [life(12)]);
    }

    #[test]
    fn an_open_listener_has_more_say_than_a_count() {
        let mut observed = observed();
        let now = Instant::now();
        observed.vouch(Some(12), now);
        observed.hear_of(11, None, now);
        assert!(observed.is(12) && observed.had(11));
        // A late count was there first.
        observed.vouch(None, now);
        observed.hear_of(13, None, now);
        assert!(observed.is(13) && observed.had(12));
        observed.vouch(Some(12), now);
        assert!(observed.is(12) && observed.had(13));
    }

    #[test]
    fn without_identities_the_books_are_told_to_begin_again() {
        let mut observed = observed();
        observed.note(counters(8), Instant::now());
        observed.note(counters(3), Instant::now());
        assert!(std::mem::take(&mut observed.reborn));
        observed.gone = Some(Instant::now());
        observed.come_back();
        assert!(observed.reborn && observed.gone.is_none());
    }
}
