//! A line made back into the event that it came from, as far as it tells: for who asks an agent, which
//! sends lines, what a recording tells in events.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    net::IpAddr,
};

use jiff::Timestamp;
use netobs_common::{
    dns::{Lookup, QUESTION_BYTES},
    event::{
        Accept, CONNECTED, Connect, DNS_UNANSWERED, DROP_POLLED, DROP_SEEN, Dns, Endpoints, Event,
        EventHeader, EventKind, ListenDrop, ListenerChange, NO_RESET_REASON, Reset, Retransmit,
    },
    kernel::{NO_REASON, state_name},
    ledger::Role,
    owner::Owner as KernelOwner,
};
use serde_json::Value;

use super::{
    kind::{self, connect, dns, listen_drop, listener, reset, retransmit},
    line::{End, Line},
};
use crate::{
    ledger::dns::{Question, response_name},
    recorder::Recorded,
    sys::cgroup::{ContainerId, PodUid, Workload},
};

/// States that a socket can have (include/net/tcp_states.h).
const STATES: u8 = 13;
/// Longest label of a name (RFC 1035, 2.3.4).
const LABEL_BYTES: usize = 63;
/// Response codes that a header can hold.
const CODES: u16 = 16;

impl Line {
    /// The event. What its line does not tell is zero, and the cgroup is a number that is the same for
    /// the same container and pod only. `None` for a kind that is not known, or without a time.
    #[must_use]
    pub fn recorded(&self) -> Option<Recorded> {
        let time: Timestamp = self.time.parse().ok()?;
        let workload = self.workload();
        Some(Recorded {
            wall_ns: u64::try_from(time.as_nanosecond()).ok()?,
            context: false,
            event: self.event(self.owner_with(workload))?,
            workload,
        })
    }

    fn event(&self, owner: KernelOwner) -> Option<Event> {
        let kind = kind::by_name(&self.event)?;
        let header = EventHeader {
            ktime_ns: self.ktime_ns,
            kind: kind as u32,
            netns: self.netns.unwrap_or(0),
        };
        let sk = self.socket.id.as_deref();
        let sk = sk.map_or(0, |id| u64::from_str_radix(id, 16).unwrap_or(0));
        let ends = self.ends();
        let role = match self.socket.role.as_deref() {
            Some("server") => Role::Server,
            _ => Role::Client,
        } as u8;
        let state = self.socket.state.as_deref();
        let state = (0..STATES)
            .find(|number| state.is_some_and(|state| state == state_name(*number)))
            .unwrap_or(0);
        Some(match kind {
            EventKind::Retransmit => Event::Retransmit(Retransmit {
                header,
                sk,
                ends,
                owner,
                age_ns: self.micros("age_us"),
                bytes_acked: self.number("bytes_acked"),
                bytes_received: self.number("bytes_received"),
                segments: self.small("segments"),
                // Which one does not matter to who only asks whether it was sent.
                err: i32::from(!self.text("error").is_empty()),
                total_retrans: self.small("total_retransmits"),
                srtt_us: self.small("srtt_us"),
                snd_cwnd: self.small("cwnd_segments"),
                kind: self.word("type", retransmit::TYPES)?,
                role,
                state,
                timeouts: u8::try_from(self.number("timeouts")).unwrap_or(u8::MAX),
            }),
            EventKind::ListenDrop => Event::ListenDrop(ListenDrop {
                header,
                sk,
                ends,
                owner,
                ack_backlog: self.small("accept_queue_length"),
                max_ack_backlog: self.small("accept_queue_limit"),
                drops: self.small("drops"),
                reason: NO_REASON,
                stage: self.word("stage", listen_drop::STAGES)?,
                cause: self.word("reason", listen_drop::REASONS)?,
                method: if self.method == "poll" {
                    DROP_POLLED
                } else {
                    DROP_SEEN
                },
                reserved: [0; 5],
            }),
            EventKind::Listener => Event::Listener(self.listener(header, sk, owner)),
            EventKind::Connect => Event::Connect(Connect {
                header,
                sk,
                ends,
                owner,
                latency_ns: self.micros("latency_us"),
                syn_retransmits: self.small("syn_retransmits"),
                err: 0,
                // The first word stands for no failure.
                failure: self
                    .word("outcome", connect::OUTCOMES)?
                    .checked_sub(1)
                    .unwrap_or(CONNECTED),
                reserved: [0; 7],
            }),
            EventKind::Accept => Event::Accept(Accept {
                header,
                sk,
                ends,
                owner,
                latency_ns: self.micros("latency_us"),
            }),
            EventKind::Reset => Event::Reset(Reset {
                header,
                sk,
                ends,
                owner,
                age_ns: self.micros("age_us"),
                idle_ns: self.micros("idle_us"),
                bytes_acked: self.number("bytes_acked"),
                bytes_received: self.number("bytes_received"),
                reason: NO_RESET_REASON,
                class: self.word("reason", reset::REASONS)?,
                direction: self.word("direction", reset::DIRECTIONS)?,
                role,
                state,
            }),
            EventKind::Dns => Event::Dns(self.lookup(header, ends, owner)),
        })
    }

    fn listener(&self, header: EventHeader, sk: u64, owner: KernelOwner) -> ListenerChange {
        let ends = self.ends();
        let change = self.word("change", listener::CHANGES).unwrap_or(0);
        ListenerChange {
            header,
            sk,
            owner,
            local_address: ends.local_address,
            local_port: ends.local_port,
            family: ends.family,
            change: u32::from(change) + 1,
        }
    }

    fn lookup(&self, header: EventHeader, ends: Endpoints, owner: KernelOwner) -> Dns {
        let mut lookup = Lookup {
            owner,
            ends,
            sends: self.small("queries"),
            ..Lookup::EMPTY
        };
        if let Some(question) = question(self.text("question"), self.text("type")) {
            lookup.question_bytes = u16::try_from(question.len()).unwrap_or(0);
            for (slot, byte) in lookup.question.iter_mut().zip(question) {
                *slot = byte;
            }
        }
        let outcome = self.text("outcome");
        let outcomes = dns::OUTCOMES.iter().find(|(_, word)| *word == outcome);
        let code = self.text("response_code");
        let codes = (0..CODES).find(|number| response_name((*number).into()) == code);
        Dns {
            header,
            latency_ns: self.micros("latency_us"),
            lookup,
            outcome: outcomes.map_or(DNS_UNANSWERED, |(number, _)| *number),
            answer_flags: codes.unwrap_or(0),
            answers: u16::try_from(self.number("answers")).unwrap_or(u16::MAX),
            reserved: 0,
        }
    }

    fn ends(&self) -> Endpoints {
        let nowhere = ([0; 16], 0, 0);
        let bytes = |end: &End| match end.address {
            IpAddr::V4(address) => {
                let mut bytes = [0; 16];
                for (slot, byte) in bytes.iter_mut().zip(address.octets()) {
                    *slot = byte;
                }
                (bytes, end.port, libc::AF_INET)
            }
            IpAddr::V6(address) => (address.octets(), end.port, libc::AF_INET6),
        };
        let (local_address, local_port, family) = self.local.as_ref().map_or(nowhere, bytes);
        let (remote_address, remote_port, _) = self.peer.as_ref().map_or(nowhere, bytes);
        Endpoints {
            local_address,
            remote_address,
            local_port,
            remote_port,
            family: u16::try_from(family).unwrap_or(0),
            reserved: 0,
        }
    }

    fn workload(&self) -> Workload {
        let owner = self.owner.as_ref();
        let container = owner.and_then(|owner| owner.container_id.as_deref());
        // Of an id, the first twelve digits are shown.
        let container = container.and_then(|id| ContainerId::from_hex(&format!("{id:0<64}")));
        let pod = owner.and_then(|owner| owner.pod_uid.as_deref());
        Workload::new(container, pod.and_then(PodUid::parse))
    }

    fn owner_with(&self, workload: Workload) -> KernelOwner {
        let cgroup = if workload.is_empty() {
            0
        } else {
            let mut hasher = DefaultHasher::new();
            workload.hash(&mut hasher);
            hasher.finish().max(1)
        };
        let known = self.owner.as_ref();
        let mut comm = [0; 16];
        let name = known.map(|owner| owner.process.as_bytes());
        for (slot, byte) in comm.iter_mut().zip(name.unwrap_or_default()) {
            *slot = *byte;
        }
        KernelOwner {
            cgroup,
            net: 0,
            netns: self.netns.unwrap_or(0),
            pid: known.and_then(|owner| owner.pid).unwrap_or(0),
            comm,
        }
    }

    fn number(&self, name: &str) -> u64 {
        self.detail.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    fn small(&self, name: &str) -> u32 {
        u32::try_from(self.number(name)).unwrap_or(u32::MAX)
    }

    fn micros(&self, name: &str) -> u64 {
        self.number(name).saturating_mul(1_000)
    }

    fn text(&self, name: &str) -> &str {
        self.detail
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The number of a word in its table.
    fn word(&self, name: &str, words: &[&str]) -> Option<u8> {
        let text = self.text(name);
        let place = words.iter().position(|word| *word == text)?;
        u8::try_from(place).ok()
    }
}

/// A question as on the wire; `None` for a name that is none.
fn question(name: &str, kind: &str) -> Option<Vec<u8>> {
    if name.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for label in labels(name)? {
        if label.len() > LABEL_BYTES {
            return None;
        }
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend_from_slice(&label);
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind_number(kind)?.to_be_bytes());
    bytes.extend_from_slice(&1_u16.to_be_bytes());
    (bytes.len() <= QUESTION_BYTES).then_some(bytes)
}

/// The labels of a name in which a dot or a backslash is escaped by a backslash, and other bytes are
/// `\DDD`.
fn labels(name: &str) -> Option<Vec<Vec<u8>>> {
    if name == "." {
        return Some(Vec::new());
    }
    let mut labels = vec![Vec::new()];
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let label = labels.last_mut()?;
        match byte {
            b'.' => labels.push(Vec::new()),
            b'\\' => match after {
                [digit, ..] if digit.is_ascii_digit() => {
                    let (digits, after) = after.split_at_checked(3)?;
                    label.push(std::str::from_utf8(digits).ok()?.parse().ok()?);
                    rest = after;
                }
                [escaped, after @ ..] => {
                    label.push(*escaped);
                    rest = after;
                }
                [] => return None,
            },
            byte => label.push(*byte),
        }
    }
    Some(labels)
}

fn kind_number(name: &str) -> Option<u16> {
    if let Some(number) = name.strip_prefix("TYPE") {
        return number.parse().ok();
    }
    let named = |kind: &u16| {
        let name = String::new();
        Question { name, kind: *kind }.kind_name()
    };
    (0..=255).find(|kind| named(kind) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_as_it_was_read() {
        for wire in [
            &b"\x02ok\x07example\0\0\x1c\0\x01"[..],
            b"\x05a.b\\\n\0\0\x01\0\x01",
            b"\0\0\x02\0\x01",
            b"\x01x\0\x12\x34\0\x01",
        ] {
            let read = Question::decode(wire).unwrap();
            let again = question(&read.name, &read.kind_name());
            assert_eq!(again.as_deref(), Some(wire), "{read}");
        }
        for name in ["", "a\\", "\\999", &"x".repeat(64)] {
            assert_eq!(question(name, "A"), None, "{name}");
        }
    }
}
