//! The one `unsafe` of this crate: telling aya which types may be copied to and from kernel maps.

use crate::{dns, kernel::Settings, ledger, owner};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: the type is `repr(C)` and derives zerocopy's `FromBytes` and `IntoBytes`, so any
        // bytes are a valid value and it has no padding.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(
    Settings,
    dns::AnswerCounts,
    dns::AnswerKey,
    dns::DnsControl,
    dns::DnsCounts,
    dns::GivenUp,
    dns::Lookup,
    dns::LookupKey,
    ledger::ListenerReading,
    ledger::ProbeCounts,
    ledger::RetransmitCounts,
    ledger::RetransmitKey,
    ledger::ServerPort,
    owner::OwnerKey,
);
