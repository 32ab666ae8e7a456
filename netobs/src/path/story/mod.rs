//! What a measurement went through, in plain sentences.

mod lookup;

use std::{fmt::Write as _, time::Duration};

use self::lookup::of_lookup;
use super::{
    cause::ErrorType,
    kernel::STORY,
    outcome::{Connection, Failure, Measurement, Phase, Step},
};

/// A certificate that ends within this is worth a sentence.
const SOON: Duration = Duration::from_secs(14 * 86_400);
/// Sentences about the kernel's events that are told; JSON has them all.
const MAX_FACTS: usize = 6;

/// A duration in three digits and a fitting unit.
#[must_use]
pub fn duration_text(value: Duration) -> String {
    let seconds = value.as_secs_f64();
    let digits = |value: f64| match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    if seconds < 0.000_999_5 {
        format!("{} µs", value.as_micros())
    } else if seconds < 0.999_5 {
        let value = seconds * 1e3;
        // Two digits are enough below 10 ms: the clock and the scheduler are no better.
        format!("{value:.*} ms", if value < 99.95 { 1 } else { 0 })
    } else {
        format!("{seconds:.*} s", digits(seconds))
    }
}

/// A cause as a part of a sentence.
pub(super) const fn words(error_type: ErrorType) -> &'static str {
    match error_type {
        ErrorType::TimedOut => "no answer in time",
        ErrorType::Refused => "refused",
        ErrorType::Reset => "reset",
        ErrorType::Closed => "closed",
        ErrorType::HostUnreachable => "host unreachable",
        ErrorType::NetUnreachable => "no route",
        ErrorType::NoLocalAddress => "no local address or port",
        ErrorType::NotPermitted => "not permitted",
        other => other.name(),
    }
}

/// The sentences, the most important first.
pub(super) fn tell(measurement: &Measurement) -> Vec<String> {
    let mut story = Vec::new();
    for (index, step) in measurement.steps.iter().enumerate() {
        let last = index + 1 == measurement.steps.len();
        let failure = measurement.failure.as_ref().filter(|_| last);
        let sentences = of_step(step, failure);
        if measurement.steps.len() > 1 {
            // Which request of several it is about.
            story.extend(
                sentences
                    .into_iter()
                    .map(|it| format!("{}: {it}", step.url)),
            );
        } else {
            story.extend(sentences);
        }
    }
    if measurement.steps.len() > 1 {
        let times = measurement.steps.len() - 1;
        let plural = if times == 1 { "" } else { "s" };
        story.push(format!("redirected {times} time{plural}"));
    }
    story.extend(expiry(measurement));
    let kernel = measurement.kernel.iter();
    let (whole, facts): (Vec<_>, Vec<_>) = kernel.partition(|fact| fact.event == STORY);
    story.extend(whole.iter().map(|fact| format!("both ends: {}", fact.text)));
    story.extend(facts.iter().take(MAX_FACTS).map(|fact| {
        let at = duration_text(fact.at);
        format!("kernel: {} after {at}", fact.text)
    }));
    if let Some(more @ 1..) = facts.len().checked_sub(MAX_FACTS) {
        story.push(format!("kernel: {more} more events"));
    }
    if story.is_empty() {
        story.extend(usual(measurement));
    }
    story
}

/// What happened in one request; what failed comes first.
fn of_step(step: &Step, failure: Option<&Failure>) -> Vec<String> {
    let in_phase = |phase| failure.filter(|failure| failure.phase == phase);
    let mut story: Vec<String> = [Phase::Tls, Phase::FirstByte, Phase::Transfer]
        .into_iter()
        .filter_map(in_phase)
        .map(|failure| of_failure(step, failure))
        .collect();
    let connect = of_connect(step, in_phase(Phase::Connect));
    let lookup = step
        .lookup
        .as_ref()
        .and_then(|lookup| of_lookup(step, lookup, in_phase(Phase::Dns)));
    match in_phase(Phase::Connect) {
        Some(_) => story.extend(connect.into_iter().chain(lookup)),
        None => story.extend(lookup.into_iter().chain(connect)),
    }
    if let Some(error_type) = step.tls.as_ref().and_then(|tls| tls.verification_error)
        && in_phase(Phase::Tls).is_none()
    {
        let error_type = error_type.name();
        story.push(format!(
            "the certificate is not to be trusted ({error_type}), and was taken"
        ));
    }
    if let Some(http) = step.http.as_ref().filter(|http| http.body_cut) {
        let bytes = http.body_bytes;
        story.push(format!("the body was read up to the limit, {bytes} bytes"));
    }
    story
}

/// A connect is worth a sentence when a SYN was sent twice, an address did not answer, or it
/// failed.
fn of_connect(step: &Step, failure: Option<&Failure>) -> Option<String> {
    let last = step.connections.last()?;
    let took = duration_text(
        step.phases
            .connect
            .map_or(Duration::ZERO, |span| span.length),
    );
    let failed = |attempt: &Connection| attempt.error_type.is_some();
    let again = |attempt: &Connection| attempt.syns_sent.is_some_and(|syns| syns > 1);
    if failure.is_none() && !step.connections.iter().any(|it| failed(it) || again(it)) {
        let after = last.retransmits_after.filter(|after| *after > 0)?;
        let plural = if after == 1 { " was" } else { "s were" };
        return Some(format!(
            "{after} segment{plural} sent again once the connection stood"
        ));
    }
    let parts: Vec<String> = step
        .connections
        .iter()
        .map(|attempt| of_attempt(attempt, step.connections.len() > 1))
        .collect();
    Some(format!("connect took {took}: {}", parts.join("; then ")))
}

fn of_attempt(attempt: &Connection, several: bool) -> String {
    let mut text = String::new();
    if several {
        let _ = write!(text, "{}: ", attempt.remote.ip());
    }
    let times = |syns: u32| match syns {
        1 => "once".to_owned(),
        syns => format!("{syns} times"),
    };
    let sent = attempt
        .syns_sent
        .map(|syns| format!("SYN sent {}", times(syns)));
    match (attempt.error_type, sent) {
        (Some(ErrorType::TimedOut), Some(sent)) => {
            let any = if attempt.syns_sent == Some(1) {
                "to it"
            } else {
                "to any"
            };
            let _ = write!(text, "{sent}, no answer {any}");
        }
        (Some(ErrorType::Refused), sent) => {
            let sent = sent.filter(|_| attempt.syns_sent > Some(1));
            let sent = sent.map_or_else(String::new, |sent| format!("{sent}, then "));
            let _ = write!(
                text,
                "{sent}refused by the host: nobody listens on the port"
            );
        }
        (Some(error_type), _) => text.push_str(words(error_type)),
        (None, Some(sent)) => {
            text.push_str(&sent);
            match attempt.syns_sent {
                Some(0 | 1) | None => text.push_str(", answered"),
                Some(2) => text.push_str(", no answer to the first"),
                Some(syns) => {
                    let _ = write!(text, ", no answer to the first {}", syns - 1);
                }
            }
            if let Some(after) = attempt.retransmits_after {
                let plural = if after == 1 { "" } else { "s" };
                let _ = write!(text, "; {after} retransmission{plural} after");
            }
        }
        (None, None) => text.push_str("connected"),
    }
    text
}

/// What failed once the connection stood.
fn of_failure(step: &Step, failure: &Failure) -> String {
    let Failure {
        phase,
        error_type,
        message,
    } = failure;
    let length = step
        .phases
        .get(*phase)
        .map_or(Duration::ZERO, |span| span.length);
    let since_request = match (phase, step.phases.first_byte) {
        (Phase::Transfer, Some(first)) => first.length.saturating_add(length),
        _ => length,
    };
    let after = match phase {
        Phase::Tls => format!("{} after the handshake began", duration_text(length)),
        _ => format!("{} after the request", duration_text(since_request)),
    };
    let received = step.http.as_ref().map_or(0, |http| http.received_bytes);
    match error_type {
        ErrorType::Reset => format!("reset by the peer {after}"),
        ErrorType::Closed => {
            let had = if received > 0 {
                format!(", with {received} bytes of its answer sent")
            } else {
                String::new()
            };
            format!("closed by the peer {after}{had}")
        }
        ErrorType::TimedOut => {
            let took = duration_text(length);
            format!("{} took {took} and had not ended: {message}", phase.words())
        }
        _ => message.clone(),
    }
}

fn expiry(measurement: &Measurement) -> Option<String> {
    let expiry = Duration::from_secs(measurement.certificate_expiry()?);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    let left = expiry.checked_sub(now).filter(|left| *left < SOON)?;
    let days = left.as_secs() / 86_400;
    Some(match days {
        0 => format!("the certificate ends in {} hours", left.as_secs() / 3600),
        days => format!("the certificate ends in {days} days"),
    })
}

/// What there is to say when all went well.
fn usual(measurement: &Measurement) -> Option<String> {
    let phases = Phase::ALL.into_iter();
    let most = phases
        .filter_map(|phase| Some((phase, measurement.phases.get(phase)?)))
        .max_by_key(|(_, length)| *length)?;
    let (phase, length) = most;
    let (length, total) = (
        duration_text(length),
        duration_text(measurement.phases.total),
    );
    let rtt = measurement.steps.last()?.connections.last();
    let rtt = rtt.and_then(|last| last.rtt).map(duration_text);
    Some(match (phase, rtt) {
        (Phase::FirstByte, Some(rtt)) => format!(
            "nothing unusual; the server took {length} of {total} to begin its answer, a round \
             trip takes {rtt}"
        ),
        _ => format!(
            "nothing unusual; {} took {length} of {total}",
            phase.words()
        ),
    })
}
