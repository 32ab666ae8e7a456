//! Sets of capabilities, and giving them up.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};

use super::Refused;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// The set with these bits, as `/proc` shows them.
    #[must_use]
    pub const fn of_mask(mask: u64) -> Self {
        Self(mask)
    }

    /// These capabilities.
    #[must_use]
    pub fn of(capabilities: &[Capability]) -> Self {
        Self(
            capabilities
                .iter()
                .fold(0, |mask, capability| mask | capability.bitmask()),
        )
    }

    /// What the calling thread may use or raise; empty when it cannot be read.
    #[must_use]
    pub fn permitted() -> Self {
        let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
        Self(
            held.iter()
                .fold(0, |mask, capability| mask | capability.bitmask()),
        )
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// With one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | capability.bitmask())
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, such as `CAP_BPF`, in the kernel's order.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let mut held: Vec<Capability> = caps::all()
            .into_iter()
            .filter(|capability| self.has(*capability))
            .collect();
        held.sort_by_key(Capability::index);
        held.iter().map(ToString::to_string).collect()
    }

    fn to_set(self) -> HashSet<Capability> {
        caps::all()
            .into_iter()
            .filter(|capability| self.has(*capability))
            .collect()
    }
}

/// Gives up, in the calling thread, the use of all capabilities but `keep`.
///
/// # Errors
/// When the kernel refuses.
pub fn lower_this_thread(keep: Set) -> Result<(), CapsError> {
    let keep = keep.and(Set::permitted()).to_set();
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}

/// Gives up all but `keep` for good, in the calling thread and those that it starts.
pub(super) fn lower(keep: Set) -> Vec<Refused> {
    let mut refused = Vec::new();
    // Without programs to start, what those could use or inherit is of no consequence; giving it up
    // serves those who look at the process from outside.
    let mut note = |step, meaning, harmless, result: Result<(), CapsError>| {
        if let Err(error) = result {
            refused.push(Refused {
                step,
                reason: error.to_string(),
                meaning,
                harmless,
            });
        }
    };
    // First, since it takes CAP_SETPCAP.
    note(
        "bounding set",
        "it takes CAP_SETPCAP; only a program that the process starts could use what is in it, and \
         no_new_privs forbids that",
        true,
        lower_bounding(keep),
    );
    note(
        "ambient capabilities",
        "a program that it starts would inherit them",
        false,
        caps::clear(None, CapSet::Ambient),
    );
    note(
        "inheritable capabilities",
        "a program that it starts could inherit them",
        true,
        caps::clear(None, CapSet::Inheritable),
    );
    note(
        "capabilities",
        "the process keeps every right that it was started with",
        false,
        lower_this_thread(keep),
    );
    refused
}

fn lower_bounding(keep: Set) -> Result<(), CapsError> {
    for capability in caps::read(None, CapSet::Bounding)? {
        if !keep.has(capability) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_proc_shows() {
        let set = Set::of(&[Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_ADMIN]);
        assert_eq!(set, Set::of_mask(0x28_0000));
        assert_eq!(set.names(), ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
        assert!(set.and(Set::of(&[Capability::CAP_BPF])).is_empty());
        assert!(set.with(Capability::CAP_BPF).has(Capability::CAP_BPF));
    }

    /// A thread gives up its own rights only; the test's process keeps them.
    #[test]
    fn one_thread_gives_up_its_own() {
        let before = Set::permitted();
        let after = std::thread::spawn(|| {
            lower_this_thread(Set::default()).unwrap();
            Set::permitted()
        });
        assert!(after.join().unwrap().is_empty());
        assert_eq!(Set::permitted(), before);
    }
}
