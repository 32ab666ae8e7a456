//! What a measurement found: plain data, the same for text, JSON, metrics and `/health/network`.
//!
//! The JSON form is `docs/path-probe.schema.json`. Times are seconds; a phase that was not reached
//! is `null`, and one that failed has the time until it did.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Serialize, Serializer};

use super::{cause::ErrorType, kernel::KernelFact, plan::Plan};

/// Version of the JSON form. Within a version, fields keep their meaning; new ones may be added.
pub const SCHEMA_VERSION: u32 = 1;

/// A part of a request, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From the first question to the addresses.
    Dns,
    /// From the first SYN to an established connection, addresses that failed included.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the request to the first byte of the answer.
    FirstByte,
    /// From the first to the last byte of the answer.
    Transfer,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::FirstByte,
        Self::Transfer,
    ];

    /// As a label has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::FirstByte => "first_byte",
            Self::Transfer => "transfer",
        }
    }

    /// As a sentence has it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::FirstByte => "first byte",
            Self::Transfer => "transfer",
        }
    }
}

/// A duration as JSON has it: seconds, to the microsecond.
///
/// # Errors
/// When the serializer refuses.
pub fn seconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*value))
}

fn optional_seconds<S: Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_f64(rounded(*value)),
        None => serializer.serialize_none(),
    }
}

/// Microseconds are what the clock is good for; more digits would be noise.
fn rounded(value: Duration) -> f64 {
    (value.as_secs_f64() * 1e6).round() / 1e6
}

/// When a phase began, counted from the start of the measurement, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Since the measurement began.
    #[serde(rename = "start_seconds", serialize_with = "seconds")]
    pub start: Duration,
    /// How long.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub length: Duration,
}

/// The phases of one step; `None` where it was not reached or has no such phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each field is the phase of the same name")]
pub struct Spans {
    pub dns: Option<Span>,
    pub connect: Option<Span>,
    pub tls: Option<Span>,
    pub first_byte: Option<Span>,
    pub transfer: Option<Span>,
}

impl Spans {
    /// One of them.
    #[must_use]
    pub const fn get(&self, phase: Phase) -> Option<Span> {
        match phase {
            Phase::Dns => self.dns,
            Phase::Connect => self.connect,
            Phase::Tls => self.tls,
            Phase::FirstByte => self.first_byte,
            Phase::Transfer => self.transfer,
        }
    }

    pub(super) fn set(&mut self, phase: Phase, span: Span) {
        let slot = match phase {
            Phase::Dns => &mut self.dns,
            Phase::Connect => &mut self.connect,
            Phase::Tls => &mut self.tls,
            Phase::FirstByte => &mut self.first_byte,
            Phase::Transfer => &mut self.transfer,
        };
        *slot = Some(span);
    }
}

/// Time by phase, summed over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each field is the phase of the same name")]
pub struct PhaseSums {
    #[serde(serialize_with = "optional_seconds")]
    pub dns: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub connect: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub tls: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub first_byte: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub transfer: Option<Duration>,
    /// From the start to the end of the measurement: the phases and the little between them.
    #[serde(serialize_with = "seconds")]
    pub total: Duration,
}

impl PhaseSums {
    /// One of them.
    #[must_use]
    pub const fn get(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Dns => self.dns,
            Phase::Connect => self.connect,
            Phase::Tls => self.tls,
            Phase::FirstByte => self.first_byte,
            Phase::Transfer => self.transfer,
        }
    }

    fn of(steps: &[Step], total: Duration) -> Self {
        let sum = |phase: Phase| {
            steps
                .iter()
                .filter_map(|step| step.phases.get(phase))
                .map(|span| span.length)
                .reduce(|a, b| a.saturating_add(b))
        };
        Self {
            dns: sum(Phase::Dns),
            connect: sum(Phase::Connect),
            tls: sum(Phase::Tls),
            first_byte: sum(Phase::FirstByte),
            transfer: sum(Phase::Transfer),
            total,
        }
    }
}

/// Why a measurement is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The phase in which it failed.
    pub phase: Phase,
    /// The kind of cause: one of a closed set.
    pub error_type: ErrorType,
    /// The cause in words.
    pub message: String,
}

/// One question to one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Query {
    /// The server asked.
    pub server: SocketAddr,
    /// Our end; `None` when no socket could be had.
    pub local: Option<SocketAddr>,
    /// `udp` or `tcp`.
    pub transport: Transport,
    /// The name asked for.
    pub name: String,
    /// `A`, `AAAA`, ...
    pub record_type: String,
    /// Since the measurement began.
    #[serde(rename = "start_seconds", serialize_with = "seconds")]
    pub start: Duration,
    /// Until the answer, or until waiting ended.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub length: Duration,
    /// What became of it.
    pub outcome: QueryOutcome,
    /// The code of the answer, such as `NOERROR` or `NXDOMAIN`; `None` without an answer.
    pub response_code: Option<&'static str>,
    /// Datagrams on this socket that were no answer to what was asked: wrong id, wrong question, or
    /// no DNS message at all.
    pub strange_answers: u32,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryOutcome {
    /// Answered, whatever the code.
    Answered,
    /// The answer was cut short: asked again over TCP.
    Truncated,
    /// Nothing that answers it came in time.
    NoAnswer,
    /// The server's host said that nothing listens there, or refused the connection.
    Refused,
    /// It could not be sent: no route, for one.
    NotSent,
}

/// `udp` or `tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Transport {
    Udp,
    Tcp,
}

/// Where the addresses of a name came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupSource {
    /// The host was an address.
    Literal,
    /// Given on the command line.
    Given,
    /// `/etc/hosts`.
    Hosts,
    /// Servers were asked.
    #[default]
    Dns,
}

/// A name and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// The name as it was given.
    pub name: String,
    /// Where its addresses came from.
    pub source: LookupSource,
    /// Questions in the order in which they were asked.
    pub queries: Vec<Query>,
    /// The addresses, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// The data of the records, for a DNS target; the first few.
    pub records: Vec<String>,
}

/// One attempt to connect, and what the kernel said of the socket at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Our end; `None` when no socket could be had.
    pub local: Option<SocketAddr>,
    /// Their end.
    pub remote: SocketAddr,
    /// Since the measurement began.
    #[serde(rename = "start_seconds", serialize_with = "seconds")]
    pub start: Duration,
    /// Until established or failed.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub length: Duration,
    /// Why there is no connection; `None` when there is.
    pub error_type: Option<ErrorType>,
    /// How often the SYN was sent, by `TCP_INFO`; `None` when the kernel did not say.
    pub syns_sent: Option<u32>,
    /// Segments sent again once the connection stood.
    pub retransmits_after: Option<u32>,
    /// Smoothed round-trip time at the end.
    #[serde(rename = "rtt_seconds", serialize_with = "optional_seconds")]
    pub rtt: Option<Duration>,
}

/// A certificate as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// When it ends, in RFC 3339.
    pub not_after: String,
    /// The same in seconds since 1970.
    pub not_after_unix_seconds: u64,
}

/// What the TLS handshake told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// `TLSv1.3` or `TLSv1.2`; `None` when it did not get that far.
    pub version: Option<&'static str>,
    /// The cipher suite.
    pub cipher: Option<&'static str>,
    /// The protocol agreed upon by ALPN.
    pub alpn: Option<String>,
    /// The certificates sent, the server's own first; at most eight.
    pub chain: Vec<Certificate>,
    /// When the first of them ends.
    pub expires_unix_seconds: Option<u64>,
    /// Whether the chain leads to a root of this machine and fits the name; `None` when none was
    /// sent.
    pub verified: Option<bool>,
    /// Why it does not.
    pub verification_error: Option<ErrorType>,
}

/// What the HTTP exchange told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Http {
    /// The status code; `None` when there was no answer.
    pub status: Option<u16>,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: Option<&'static str>,
    /// Bytes of the body that were read.
    pub body_bytes: u64,
    /// Whether reading ended at the limit.
    pub body_cut: bool,
    /// Bytes received on the connection, TLS taken off.
    pub received_bytes: u64,
    /// Where a redirect leads.
    pub location: Option<String>,
}

/// One request of a measurement: a redirect begins another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was asked for.
    pub url: String,
    /// Its phases.
    pub phases: Spans,
    /// How the name was looked up.
    pub lookup: Option<Lookup>,
    /// Attempts to connect, in order.
    pub connections: Vec<Connection>,
    /// The TLS handshake.
    pub tls: Option<Tls>,
    /// The HTTP exchange.
    pub http: Option<Http>,
}

/// One measurement of one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The target, as it was given or named.
    pub target: String,
    /// The family asked for: `4`, `6` or `any`.
    pub ip_version: &'static str,
    /// Which measurement of this target it is, from 1.
    pub sequence: u64,
    /// When it began, in RFC 3339, UTC.
    pub time: String,
    /// Whether everything was as expected.
    pub success: bool,
    /// Time by phase, over all steps.
    pub phases: PhaseSums,
    /// Why it is no success.
    pub failure: Option<Failure>,
    /// What happened, in plain sentences; the most important first.
    pub story: Vec<String>,
    /// The requests, in order.
    pub steps: Vec<Step>,
    /// What the kernel's events say of the same sockets; empty without the agent.
    pub kernel: Vec<KernelFact>,
    /// `CLOCK_MONOTONIC` at the start, nanoseconds; 0 when unknown.
    #[serde(skip)]
    pub started_ns: u64,
}

impl Measurement {
    /// One of `plan` that has found nothing yet.
    #[must_use]
    pub fn blank(plan: &Plan, sequence: u64) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            target: plan.name.clone(),
            ip_version: plan.ip_version.name(),
            sequence,
            time: String::new(),
            success: false,
            phases: PhaseSums::default(),
            failure: None,
            story: Vec::new(),
            steps: Vec::new(),
            kernel: Vec::new(),
            started_ns: 0,
        }
    }

    /// Completes the sums from the steps.
    pub(super) fn sum_up(&mut self, total: Duration) {
        self.phases = PhaseSums::of(&self.steps, total);
    }

    /// The first end of a certificate that any step was shown, in seconds since 1970.
    #[must_use]
    pub fn certificate_expiry(&self) -> Option<u64> {
        let tls = self.steps.iter().filter_map(|step| step.tls.as_ref());
        tls.filter_map(|tls| tls.expires_unix_seconds).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_summed_over_the_steps() {
        let span = |start, length| Span {
            start: Duration::from_millis(start),
            length: Duration::from_millis(length),
        };
        let mut steps = [Step::default(), Step::default()];
        steps[0].phases.set(Phase::Dns, span(0, 3));
        steps[1].phases.set(Phase::Dns, span(9, 4));
        steps[1].phases.set(Phase::Tls, span(13, 5));
        let sums = PhaseSums::of(&steps, Duration::from_millis(20));
        assert_eq!(sums.dns, Some(Duration::from_millis(7)));
        assert_eq!(sums.tls, Some(Duration::from_millis(5)));
        assert_eq!(sums.connect, None);
        let json = serde_json::to_value(sums).unwrap();
        assert_eq!(json["dns"], 0.007);
        assert!(json["transfer"].is_null());
    }
}
