//! The maps of the probe `dns`.

use std::collections::HashMap;

use aya::{
    Ebpf,
    maps::{Array, HashMap as Hash, MapData, MapError as AyaMapError},
};
use netobs_common::{
    dns::{AnswerCounts, AnswerKey, DnsControl, DnsCounts, GivenUp, Lookup, LookupKey},
    names,
    owner::OwnerKey,
};

use super::{
    maps::{MOST, MapError, error, typed},
    object::ObjectError,
};

/// Lookups under way and what was counted of others.
pub struct DnsMaps {
    waiting: Hash<MapData, LookupKey, Lookup>,
    given_up: Hash<MapData, LookupKey, GivenUp>,
    answers: Hash<MapData, AnswerKey, AnswerCounts>,
    counts: Hash<MapData, OwnerKey, DnsCounts>,
    control: Array<MapData, DnsControl>,
}

impl DnsMaps {
    /// Names of the maps that grow with use; without the probe they have room for one entry.
    pub const GROWING: [&str; 4] = [
        names::DNS_WAITING,
        names::DNS_GIVEN_UP,
        names::DNS_ANSWERS,
        names::DNS_COUNTS,
    ];

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ObjectError> {
        Ok(Self {
            waiting: typed(ebpf, names::DNS_WAITING)?,
            given_up: typed(ebpf, names::DNS_GIVEN_UP)?,
            answers: typed(ebpf, names::DNS_ANSWERS)?,
            counts: typed(ebpf, names::DNS_COUNTS)?,
            control: typed(ebpf, names::DNS_CONTROL)?,
        })
    }

    /// Tells the kernel side what to take for slow and for unanswered.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_control(&mut self, control: &DnsControl) -> Result<(), MapError> {
        self.control
            .set(0, control, 0)
            .map_err(|source| error(names::DNS_CONTROL, "write", source))
    }

    /// Gives up every lookup that has waited for longer than `timeout_ns` at `now_ns`, and hands it
    /// to `visit`. Each is either handed over here or ended by the kernel side, never both. The key
    /// is for [`DnsMaps::forget_given_up`]; none when there was no room to know a late answer by.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn give_up(
        &mut self,
        now_ns: u64,
        timeout_ns: u64,
        mut visit: impl FnMut(Option<LookupKey>, Lookup),
    ) -> Result<(), MapError> {
        // Walked over first, and each taken once: what is deleted meanwhile makes the kernel begin
        // the walk anew.
        let mut overdue = HashMap::new();
        for entry in self.waiting.iter().take(MOST) {
            let (key, lookup) =
                entry.map_err(|source| error(names::DNS_WAITING, "read", source))?;
            let waited = now_ns.saturating_sub(lookup.started_ns);
            if lookup.started_ns != 0 && waited > timeout_ns {
                overdue.insert(key, lookup);
            }
        }
        for (key, lookup) in overdue {
            let given_up = GivenUp {
                started_ns: lookup.started_ns,
                owner: lookup.owner.key(),
            };
            // First: an answer that comes in between finds one or the other. When there is no room,
            // a late answer will be taken for one that nobody asked for.
            let noted = self.given_up.insert(key, given_up, 0).is_ok();
            match self.waiting.remove(&key) {
                Ok(()) => visit(noted.then_some(key), lookup),
                Err(AyaMapError::KeyNotFound) => {
                    if noted {
                        self.forget_given_up(&key)?;
                    }
                }
                Err(source) => return Err(error(names::DNS_WAITING, "delete from", source)),
            }
        }
        Ok(())
    }

    /// Forgets a lookup that was given up: no answer is expected any more.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; one that is gone already is no error.
    pub fn forget_given_up(&mut self, key: &LookupKey) -> Result<(), MapError> {
        gone(self.given_up.remove(key))
            .map_err(|source| error(names::DNS_GIVEN_UP, "delete from", source))
    }

    /// Answered lookups by key.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn answers(&self) -> Result<Vec<(AnswerKey, AnswerCounts)>, MapError> {
        self.answers
            .iter()
            .take(MOST)
            .collect::<Result<_, _>>()
            .map_err(|source| error(names::DNS_ANSWERS, "read", source))
    }

    /// Everything else, by owner.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn counts(&self) -> Result<Vec<(OwnerKey, DnsCounts)>, MapError> {
        self.counts
            .iter()
            .take(MOST)
            .collect::<Result<_, _>>()
            .map_err(|source| error(names::DNS_COUNTS, "read", source))
    }

    /// Forgets answered lookups whose series is no longer exported.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is gone already is no error.
    pub fn forget_answers(&mut self, key: &AnswerKey) -> Result<(), MapError> {
        gone(self.answers.remove(key))
            .map_err(|source| error(names::DNS_ANSWERS, "delete from", source))
    }

    /// Forgets everything else of an owner.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what is gone already is no error.
    pub fn forget_counts(&mut self, owner: &OwnerKey) -> Result<(), MapError> {
        gone(self.counts.remove(owner))
            .map_err(|source| error(names::DNS_COUNTS, "delete from", source))
    }
}

fn gone(outcome: Result<(), AyaMapError>) -> Result<(), AyaMapError> {
    match outcome {
        Err(AyaMapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
