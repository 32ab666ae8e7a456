//! The one `unsafe` of this crate: telling aya which types may be copied to and from kernel maps.

use crate::{burst::BurstKey, connection, dns, kernel::Settings, ledger, owner};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: the type is `repr(C)` and derives zerocopy's `FromBytes` and `IntoBytes`, so any
        // bytes are a valid value and it has no padding.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(
    BurstKey,
    Settings,
    connection::AcceptCounts,
    connection::ConnectCounts,
    connection::ConnectKey,
    connection::Connection,
    connection::ListenerKey,
    connection::Listening,
    dns::AnswerCounts,
    dns::AnswerKey,
    dns::DnsControl,
    dns::DnsCounts,
    dns::GivenUp,
    dns::Lookup,
    dns::LookupKey,
    ledger::ListenerReading,
    ledger::ProbeCounts,
    ledger::ResetKey,
    ledger::RetransmitCounts,
    ledger::RetransmitKey,
    ledger::ServerPort,
    ledger::Turn,
    owner::OwnerKey,
);
