//! The one `unsafe` of this crate: telling aya which types may be copied to and from kernel maps.

use crate::{burst::BurstKey, connection, kernel::Settings, ledger};

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
    ledger::ListenerReading,
    ledger::ProbeCounts,
    ledger::ResetKey,
    ledger::RetransmitCounts,
    ledger::RetransmitKey,
    ledger::ServerPort,
);
