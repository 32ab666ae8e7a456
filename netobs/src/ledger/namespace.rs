//! Which network namespace a count is of.

use netobs_common::{
    connection::{ConnectKey, ListenerKey},
    dns::AnswerKey,
    ledger::{Listener, ResetKey, RetransmitKey},
    owner::OwnerKey,
};

/// One network namespace. When it is gone, its number is given to another; its identity is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// Inode number.
    pub number: u32,
    /// What [`netobs_common::kernel::identity`] says; 0 where the kernel cannot tell.
    pub identity: u64,
}

impl Namespace {
    /// All that can have this number, for a range of an ordered map.
    #[must_use]
    pub fn all(number: u32) -> std::ops::RangeInclusive<Self> {
        let first = Self {
            number,
            identity: 0,
        };
        let last = Self {
            number,
            identity: u64::MAX,
        };
        first..=last
    }
}

macro_rules! of_owner {
    ($($kind:ty)+) => {$(
        impl From<&$kind> for Namespace {
            fn from(of: &$kind) -> Self {
                Self {
                    number: of.owner.netns,
                    identity: of.owner.net,
                }
            }
        }
    )+};
}

of_owner!(Listener RetransmitKey ConnectKey ResetKey AnswerKey);

impl From<&OwnerKey> for Namespace {
    fn from(key: &OwnerKey) -> Self {
        Self {
            number: key.netns,
            identity: key.net,
        }
    }
}

impl From<&ListenerKey> for Namespace {
    fn from(key: &ListenerKey) -> Self {
        Self {
            number: key.netns,
            identity: key.net,
        }
    }
}
