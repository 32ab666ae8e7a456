//! A record made into a story: who, with whom, and what happened in plain words.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use netobs_common::{
    connection::ConnectFailure,
    kernel::state_name,
    ledger::{Direction, ResetClass, RetransmitType},
};

use super::{
    End, Moment, Side, Story, Unanswered, What,
    record::{Key, Record, SideRecord},
    windows::Windows,
};
use crate::path::duration_text;

/// Tells the story of one connection.
pub(super) fn story(key: &Key, record: &Record, windows: &Windows) -> Story {
    // Without any word of who connected, the lower port is the better guess for the server's; the
    // story says that it is one.
    let (client, roles_known) = record.client().unwrap_or_else(|| {
        let lower_is_server = key.end(0).port() <= key.end(1).port();
        (usize::from(lower_is_server), false)
    });
    let server = 1 - client.min(1);
    let end = |side| {
        if side == client {
            End::Client
        } else {
            End::Server
        }
    };
    let mut moments: Vec<Moment> = record
        .happened
        .iter()
        .map(|it| Moment {
            at_ns: it.at_ns,
            until_ns: it.until_ns,
            times: it.times,
            end: end(it.side),
            what: it.what,
        })
        .collect();
    moments.sort_by_key(|moment| moment.at_ns);

    let mut told = Story {
        text: String::new(),
        began_ns: began(record.side(client), &moments),
        until_ns: record.touched_ns(),
        client: side(key.end(client), record.side(client)),
        server: side(key.end(server), record.side(server)),
        roles_known,
        unanswered: Unanswered::default(),
        moments,
        left_out: record.left_out,
    };
    told.unanswered = unanswered(&told, windows);
    told.text = text(&told);
    told
}

fn began(client: &SideRecord, moments: &[Moment]) -> u64 {
    if client.began_ns != 0 {
        return client.began_ns;
    }
    moments.first().map_or(0, |moment| moment.at_ns)
}

fn side(address: SocketAddr, record: &SideRecord) -> Side {
    Side {
        address,
        here: record.seen,
        netns: record.netns,
        pid: record.pid,
        process: record.process,
        workload: record.workload,
    }
}

/// Looks for each SYN that nobody answered at what the listener did then.
fn unanswered(story: &Story, windows: &Windows) -> Unanswered {
    let mut sent: Vec<u64> = Vec::new();
    let mut connected = false;
    let mut retransmits = 0;
    for moment in &story.moments {
        match moment.what {
            What::Retransmit {
                kind: RetransmitType::Syn,
                ..
            } => sent.push(moment.at_ns),
            What::Connected {
                syn_retransmits, ..
            } => {
                connected = true;
                retransmits = syn_retransmits;
            }
            What::ConnectFailed {
                failure,
                syn_retransmits,
                ..
            } => {
                // Some answer came to the last one.
                connected = !matches!(
                    failure,
                    ConnectFailure::TimedOut | ConnectFailure::Abandoned
                );
                retransmits = syn_retransmits;
            }
            _ => {}
        }
    }
    let again = retransmits.max(u32::try_from(sent.len()).unwrap_or(u32::MAX));
    if again == 0 && (connected || sent.is_empty()) {
        return Unanswered::default();
    }
    sent.insert(0, story.began_ns);
    if connected {
        sent.pop(); // the last was answered
    }
    let mut counts = Unanswered {
        syns: if connected { again } else { again + 1 },
        ..Unanswered::default()
    };
    // A listener in another namespace is known by what sockets with its address told.
    let (client, server) = (&story.client, &story.server);
    let same_host = server.address.ip().is_loopback() || server.address.ip() == client.address.ip();
    let (address, port) = (server.address.ip(), server.address.port());
    let netns = match (server.netns, same_host) {
        (0, false) => windows.home(address, port),
        (0, true) => Some(client.netns),
        (netns, _) => Some(netns),
    };
    let Some(netns) = netns else { return counts };
    for at_ns in sent {
        let window = windows.at(netns, address, port, at_ns);
        match window {
            Some(window) if window.full => counts.queue_full += 1,
            Some(_) => counts.dropped += 1,
            None => {}
        }
    }
    counts
}

/// The whole sentence.
fn text(story: &Story) -> String {
    let mut text = if story.roles_known {
        format!(
            "connect from {} to {}: ",
            who(&story.client),
            who(&story.server)
        )
    } else {
        format!(
            "connection of {} and {}: ",
            who(&story.client),
            who(&story.server)
        )
    };
    let mut parts = Vec::new();
    if let Some(part) = syns(story) {
        parts.push(part);
    }
    for moment in &story.moments {
        parts.extend(part(story, moment));
    }
    if story.left_out > 0 {
        parts.push(format!("and {} more events", story.left_out));
    }
    if parts.is_empty() {
        parts.push("nothing unusual".to_owned());
    }
    text.push_str(&parts.join(", "));
    text
}

/// An address, and who is there.
fn who(side: &Side) -> String {
    let mut text = side.address.to_string();
    let mut more = Vec::new();
    if !side.process.is_empty() {
        more.push(format!("{} {}", side.process, side.pid));
    }
    if let Some(container) = side.workload.container() {
        more.push(format!("container {container}"));
    } else if let Some(pod) = side.workload.pod() {
        more.push(format!("pod {pod}"));
    }
    if !more.is_empty() {
        let _ = write!(text, " ({})", more.join(", "));
    }
    text
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

fn lasted(ns: u64) -> String {
    duration_text(Duration::from_nanos(ns))
}

/// What is to be said of the SYNs, as one part.
fn syns(story: &Story) -> Option<String> {
    let Unanswered {
        syns,
        queue_full,
        dropped,
    } = story.unanswered;
    let answered = story.moments.iter().any(|moment| match moment.what {
        What::Connected { .. } => true,
        What::ConnectFailed { failure, .. } => !matches!(
            failure,
            ConnectFailure::TimedOut | ConnectFailure::Abandoned
        ),
        _ => false,
    });
    let again = if answered {
        syns
    } else {
        syns.saturating_sub(1)
    };
    let mut text = match again {
        0 if queue_full + dropped == 0 => return None,
        0 => "SYN not answered".to_owned(),
        again => format!("SYN retransmitted {}", times(again)),
    };
    let at = |count: u32| match count {
        1 if syns == 1 => "then".to_owned(),
        2 if syns == 2 => "at both".to_owned(),
        count if count == syns => format!("at all {count}"),
        count => format!("at {count} of {syns}"),
    };
    if queue_full > 0 {
        let _ = write!(
            text,
            ", the accept queue of {} full {}",
            story.server.address,
            at(queue_full)
        );
    }
    if dropped > 0 {
        let _ = write!(
            text,
            ", {} dropping SYNs {}",
            story.server.address,
            at(dropped)
        );
    }
    Some(text)
}

/// One moment as a part of the sentence.
fn part(story: &Story, moment: &Moment) -> Option<String> {
    let name = moment.end.name();
    Some(match moment.what {
        What::Retransmit { kind, segments } => match kind {
            RetransmitType::Syn => return None, // said of all SYNs at once
            RetransmitType::SynAck => format!("SYN-ACK retransmitted {}", times(moment.times)),
            kind => retransmit(name, kind, segments),
        },
        What::RetransmitFailed => {
            format!(
                "a segment that the {name}'s host could not send again ({})",
                times(moment.times)
            )
        }
        What::Connected { latency_ns, .. } => format!("connected after {}", lasted(latency_ns)),
        What::ConnectFailed {
            failure,
            latency_ns,
            ..
        } => failed(failure, &lasted(latency_ns)),
        What::ListenDrop { queue, limit } => {
            let full = if queue > limit { "full" } else { "not full" };
            format!(
                "handshake dropped {} by the listener, its accept queue {full} ({queue} waiting, limit \
                 {limit})",
                times(moment.times)
            )
        }
        What::Accepted { waited_ns } => {
            let since = moment.at_ns.saturating_sub(story.began_ns);
            let waited = lasted(waited_ns);
            if story.client.here && since > waited_ns {
                format!(
                    "accepted {} after the first SYN ({waited} of it in the accept queue)",
                    lasted(since)
                )
            } else {
                format!("accepted after {waited} in the accept queue")
            }
        }
        What::Reset {
            direction,
            class,
            state,
            idle_ns,
        } => return reset(story, moment.end, (direction, class, state, idle_ns)),
    })
}

fn retransmit(name: &str, kind: RetransmitType, segments: u32) -> String {
    let what = match segments {
        1 => "1 segment".to_owned(),
        segments => format!("{segments} segments"),
    };
    let why = match kind {
        RetransmitType::Timeout => " after a timeout",
        RetransmitType::Fast => " because the peer reported a gap",
        RetransmitType::TailLossProbe => " because the last was not answered",
        _ => "",
    };
    format!("{what} sent again by the {name}{why}")
}

fn failed(failure: ConnectFailure, after: &str) -> String {
    match failure {
        ConnectFailure::Refused => format!("refused after {after}"),
        ConnectFailure::Reset => format!("handshake reset after {after}"),
        ConnectFailure::TimedOut => {
            format!("given up by the kernel after {after} without an answer")
        }
        ConnectFailure::HostUnreachable => format!("host unreachable, told after {after}"),
        ConnectFailure::NetUnreachable => format!("network unreachable, told after {after}"),
        ConnectFailure::Abandoned => {
            format!("given up by the process after {after} without an answer")
        }
        ConnectFailure::NotSent => "no SYN could be sent".to_owned(),
        ConnectFailure::Other => format!("handshake failed after {after}"),
    }
}

/// A RST that both ends tell of is said once, by its sender.
fn reset(
    story: &Story,
    end: End,
    (direction, class, state, idle_ns): (Direction, ResetClass, u8, u64),
) -> Option<String> {
    let by = match direction {
        Direction::Sent => end,
        Direction::Received => end.other(),
    };
    let failed = story
        .moments
        .iter()
        .any(|moment| matches!(moment.what, What::ConnectFailed { .. }));
    if failed {
        return None; // the failure says it
    }
    let sender_tells = story.moments.iter().any(|moment| {
        moment.end == by
            && matches!(
                moment.what,
                What::Reset {
                    direction: Direction::Sent,
                    ..
                }
            )
    });
    if direction == Direction::Received && sender_tells {
        return None;
    }
    let mut text = format!("reset by the {}", by.name());
    match class {
        ResetClass::Abort => text.push_str(", whose process ended it hard"),
        ResetClass::Handshake => text.push_str(", whose listener refused the handshake"),
        ResetClass::Refused => text.push_str(", where nothing listens"),
        ResetClass::NoSocket => text.push_str(", which knows no such connection"),
        ResetClass::Overflow => {
            text.push_str(", whose accept queue was full (tcp_abort_on_overflow)");
        }
        ResetClass::Connection => {}
    }
    if idle_ns > 0 {
        let _ = write!(text, ", after {} idle", lasted(idle_ns));
    }
    let state = state_name(state);
    if !state.is_empty() {
        let _ = write!(text, " in {state}");
    }
    Some(text)
}
