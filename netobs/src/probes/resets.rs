//! Resets, sent and received.

use netobs_common::{
    offsets::Offset::{
        self, DeviceNet, InetLocalPort, NetInum, SkFamily, SkLocalAddress, SkLocalAddress6,
        SkLocalPort, SkNet, SkRemoteAddress, SkRemoteAddress6, SkRemotePort, SkState, SkbDevice,
        SkbHead, SkbNetworkHeader, SkbTransportHeader, TpBytesAcked, TpBytesReceived,
        TpLastReceived, TpLastSent,
    },
    probe::Program,
};

use super::{Method, Probe, Requirement};
use crate::bpf::Attachment;

const OFFSETS: &[Offset] = &[
    SkState,
    SkNet,
    NetInum,
    SkFamily,
    SkLocalPort,
    SkRemotePort,
    SkLocalAddress,
    SkLocalAddress6,
    SkRemoteAddress,
    SkRemoteAddress6,
    InetLocalPort,
    TpBytesAcked,
    TpBytesReceived,
    TpLastSent,
    TpLastReceived,
    SkbDevice,
    SkbHead,
    SkbNetworkHeader,
    SkbTransportHeader,
    DeviceNet,
];

/// Those that this host sends.
pub(super) static SENT: Probe = Probe {
    name: "tcp_send_reset",
    observes: "resets that this host sends: refused connections, aborts, packets out of place",
    cost: "once per RST",
    without: "resets that this host sends are not seen",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::TcpSendReset,
        // The second runs behind the first, for what that one was not run for; below too.
        programs: &[
            (Program::TcpSendReset.name(), SEND),
            ("send_reset_too", SEND),
        ],
        offsets: OFFSETS,
        also: Requirement::NOTHING,
    }],
};

/// Those that peers send.
pub(super) static RECEIVED: Probe = Probe {
    name: "tcp_receive_reset",
    observes: "resets that end a connection of this host",
    cost: "once per RST",
    without: "resets that peers send are not seen",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::TcpReceiveReset,
        programs: &[
            (Program::TcpReceiveReset.name(), RECEIVE),
            ("recv_reset_too", RECEIVE),
        ],
        offsets: OFFSETS,
        also: Requirement::NOTHING,
    }],
};

const SEND: Attachment = Attachment::TpBtf {
    tracepoint: "tcp_send_reset",
};
const RECEIVE: Attachment = Attachment::TpBtf {
    tracepoint: "tcp_receive_reset",
};
