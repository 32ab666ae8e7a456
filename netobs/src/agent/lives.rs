//! Numbers of namespaces that are used again: each count is credited to whom it belongs to.
//!
//! A namespace's inode number is given to the next one after its end. The kernel side notes the
//! identity beside it, and before anything is taken into a book, [`super::Namespaces`] hears of it: so
//! at any time one namespace has a number, what others had under it is forgotten, and what still comes
//! of them is dropped.

use std::{collections::HashSet, time::Duration};

use netobs_common::ledger::ListenerReading;
use tracing::debug;

use super::Agent;
use crate::{
    bpf::MapError,
    ledger::{accepts, connects, namespace::Namespace, resets},
};

impl Agent {
    /// Takes the kernel side's counts into the books.
    pub(super) fn take_counts(&mut self) -> Result<(), MapError> {
        let mut retransmits = self.maps.retransmits().read()?;
        let mut connects = self.maps.connects().read()?;
        let mut accepts = self.maps.accepts().read()?;
        let mut resets = self.maps.resets().read()?;
        let mut dns = match &mut self.dns {
            Some(dns) => Some(dns.read()?),
            None => None,
        };
        let lookups = dns.iter().flat_map(|counted| {
            let answers = counted.answers.iter().map(|(key, _)| key.into());
            answers.chain(counted.owners.iter().map(|(key, _)| key.into()))
        });
        let all: HashSet<Namespace> = retransmits
            .iter()
            .map(|(key, _)| key.into())
            .chain(connects.iter().map(|(key, _)| key.into()))
            .chain(accepts.iter().map(|(key, _)| key.into()))
            .chain(resets.iter().map(|(key, _)| key.into()))
            .chain(lookups)
            .collect();
        for namespace in all {
            self.namespaces.hear_of(namespace);
        }
        self.end_lives()?;
        let has = |namespace| self.namespaces.has(namespace);
        for key in take_late(&mut retransmits, has) {
            self.maps.retransmits().forget(&key)?;
        }
        for key in take_late(&mut connects, has) {
            self.maps.connects().forget(&key)?;
        }
        for key in take_late(&mut accepts, has) {
            self.maps.accepts().forget(&key)?;
        }
        for key in take_late(&mut resets, has) {
            self.maps.resets().forget(&key)?;
        }
        if let (Some(dns), Some(counted)) = (&mut self.dns, &mut dns) {
            let answers = take_late(&mut counted.answers, has);
            let owners = take_late(&mut counted.owners, has);
            dns.delete(&answers, &owners)?;
        }
        let workloads = &mut self.owners.workloads;
        self.retransmits.take(&retransmits, workloads);
        connects::take(&mut self.connects, &connects, workloads);
        accepts::take(&mut self.accepts, &accepts);
        resets::take(&mut self.resets, &resets, workloads);
        if let (Some(dns), Some(counted)) = (&mut self.dns, &dns) {
            dns.take(counted, workloads);
        }
        Ok(())
    }

    /// Drops readings of listeners whose namespace's number another one has.
    pub(super) fn keep_present(&mut self, readings: &mut Vec<ListenerReading>) {
        for reading in &*readings {
            self.namespaces.hear_of((&reading.listener).into());
        }
        if let Err(error) = self.end_lives() {
            self.complain(&error);
        }
        readings.retain(|reading| self.namespaces.has((&reading.listener).into()));
    }

    /// Forgets namespaces whose numbers others have; and, where that is all that is known, begins
    /// the sums of a number anew.
    pub(super) fn end_lives(&mut self) -> Result<(), MapError> {
        for ended in self.namespaces.take_ended() {
            debug!(netns = %ended.number, "another network namespace has the number now");
            self.listeners.end(ended);
            for key in self.retransmits.end(ended) {
                self.maps.retransmits().forget(&key)?;
            }
            for key in self
                .connects
                .forget(Duration::MAX, |key| ended == key.into())
            {
                self.maps.connects().forget(&key)?;
            }
            for key in self
                .accepts
                .forget(Duration::MAX, |key| ended == key.into())
            {
                self.maps.accepts().forget(&key)?;
            }
            for key in self.resets.forget(Duration::MAX, |key| ended == key.into()) {
                self.maps.resets().forget(&key)?;
            }
            if let Some(dns) = &mut self.dns {
                dns.forget(Duration::MAX, |namespace| namespace == ended)?;
            }
        }
        for netns in self.namespaces.take_reborn(&self.retransmits) {
            debug!(%netns, "counters fell: another network namespace has the number now");
            self.listeners.restart(netns);
        }
        Ok(())
    }
}

/// Takes out the counts of namespaces that do not have their number any more; their keys.
fn take_late<K: Copy, C>(counts: &mut Vec<(K, C)>, has: impl Fn(Namespace) -> bool) -> Vec<K>
where
    Namespace: for<'a> From<&'a K>,
{
    let late = counts.extract_if(.., |(key, _)| !has(Namespace::from(&*key)));
    late.map(|(key, _)| key).collect()
}
