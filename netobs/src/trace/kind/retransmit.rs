//! A segment that was sent again.

use netobs_common::{event::Retransmit, ledger::RetransmitType};
use serde_json::Value;

use super::{Common, Field, Holds, Kind, errno, micros, role, unless_zero, word};

pub(in crate::trace) const TYPES: &[&str] = &[
    RetransmitType::Timeout.name(),
    RetransmitType::Fast.name(),
    RetransmitType::TailLossProbe.name(),
    RetransmitType::Syn.name(),
    RetransmitType::SynAck.name(),
    RetransmitType::Other.name(),
];

pub(super) static KIND: Kind<Retransmit> = Kind {
    colour: 33,
    fields: &[
        Field {
            name: "type",
            column: Some(""),
            holds: Holds::Word(TYPES),
            meaning: "Why it was sent again",
            value: |event| word(TYPES, event.kind),
        },
        Field {
            name: "segments",
            column: Some("segments"),
            holds: Holds::Count,
            meaning: "By how much Tcp RetransSegs rose: more than 1 with segmentation offload, 0 when \
                      it failed at once",
            value: |event| event.segments.into(),
        },
        Field {
            name: "error",
            column: Some("error"),
            holds: Holds::Text,
            meaning: "Why the local stack could not send it: the name of an error, or of an answer of \
                      the queueing discipline",
            value: |event| error(event.err),
        },
        Field {
            name: "total_retransmits",
            column: None,
            holds: Holds::Count,
            meaning: "Segments that this socket has sent again so far, these included; for a SYN-ACK, \
                      how often it had been sent again before",
            value: |event| event.total_retrans.into(),
        },
        Field {
            name: "timeouts",
            column: Some("timeouts"),
            holds: Holds::Count,
            meaning: "Retransmission timeouts in a row without an answer; null for none",
            value: |event| unless_zero(event.timeouts),
        },
        Field {
            name: "srtt_us",
            column: Some("srtt_us"),
            holds: Holds::Count,
            meaning: "Smoothed round-trip time, microseconds; null before the first answer",
            value: |event| unless_zero(event.srtt_us),
        },
        Field {
            name: "cwnd_segments",
            column: Some("cwnd"),
            holds: Holds::Count,
            meaning: "Congestion window, segments; null for a SYN-ACK",
            value: |event| unless_zero(event.snd_cwnd),
        },
        Field {
            name: "age_us",
            column: None,
            holds: Holds::Count,
            meaning: "Since the connection began, microseconds; null when not known",
            value: |event| micros(event.age_ns),
        },
        Field {
            name: "bytes_acked",
            column: None,
            holds: Holds::Count,
            meaning: "Bytes that the peer has acknowledged",
            value: |event| event.bytes_acked.into(),
        },
        Field {
            name: "bytes_received",
            column: None,
            holds: Holds::Count,
            meaning: "Bytes that came from the peer",
            value: |event| event.bytes_received.into(),
        },
    ],
    common: |event| Common {
        sk: event.sk,
        ends: Some(event.ends),
        owner: event.owner,
        role: role(event.role),
        state: Some(event.state),
        ..Common::default()
    },
};

/// 0, or the negative errno or positive `NET_XMIT_*` (include/linux/netdevice.h) of an attempt.
fn error(err: i32) -> Value {
    match err {
        0 => Value::Null,
        1 => "NET_XMIT_DROP".into(),
        2 => "NET_XMIT_CN".into(),
        err if err > 0 => format!("NET_XMIT {err}").into(),
        err => errno(err.saturating_neg()),
    }
}
