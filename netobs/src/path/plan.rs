//! How a target is measured: family, limits, what is expected.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    outcome::{Phase, PhaseSums},
    resolver::DNS_PORT,
    target::Target,
};

/// The most redirects that may be followed.
pub const MAX_REDIRECTS: u8 = 20;
/// The longest time that a measurement may be given.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// Which family to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// What there is; IPv6 first where there is a route, as `getaddrinfo` sorts, one address after
    /// the other and never two at once.
    #[default]
    Any,
}

impl IpVersion {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
            Self::Any => "any",
        }
    }

    /// Whether an address is of this family.
    #[must_use]
    pub const fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Any => true,
        }
    }
}

/// Status codes from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// Why an expectation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a status such as 200, 2xx or 200-299")]
pub struct StatusRangeError;

impl StatusRange {
    /// Every status of success and every redirect.
    pub const FINE: Self = Self {
        first: 200,
        last: 399,
    };

    /// Whether the status is in it.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl FromStr for StatusRange {
    type Err = StatusRangeError;

    fn from_str(text: &str) -> Result<Self, StatusRangeError> {
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let code: u16 = text.parse().map_err(|_| StatusRangeError)?;
            (digits && (100..600).contains(&code))
                .then_some(code)
                .ok_or(StatusRangeError)
        };
        let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => (code(&format!("{class}00"))?, code(&format!("{class}99"))?),
            (None, Some((first, last))) => (code(first)?, code(last)?),
            (None, None) => (code(text)?, code(text)?),
        };
        (first <= last)
            .then_some(Self { first, last })
            .ok_or(StatusRangeError)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole measurement.
    pub total: Duration,
    /// Each phase of each step, in the order of [`Phase::ALL`]; `None` leaves it to the total.
    pub phases: [Option<Duration>; 5],
}

impl Timeouts {
    /// The limit of one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> Option<Duration> {
        let mut pairs = Phase::ALL.into_iter().zip(self.phases);
        pairs.find_map(|(it, limit)| (it == phase).then_some(limit)?)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(10),
            phases: [None; 5],
        }
    }
}

/// What is asked for by HTTP, and what is expected back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The method.
    pub method: Method,
    /// Header fields on top of netobs's own; sent to the origin of the first URL only, never to
    /// another that a redirect leads to.
    pub headers: HeaderMap,
    /// The status codes that are a success; never empty.
    pub expect: Vec<StatusRange>,
    /// How many redirects to follow; 0 takes a redirect as the answer.
    pub max_redirects: u8,
    /// How much of a body to read, in bytes; then the transfer counts as whole.
    pub body_limit: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            method: Method::GET,
            headers: HeaderMap::new(),
            expect: vec![StatusRange::FINE],
            max_redirects: 5,
            body_limit: 1 << 20,
        }
    }
}

/// How names are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// Servers to ask in place of the system's.
    pub servers: Vec<SocketAddr>,
    /// Addresses of names that are not looked up.
    pub given: Vec<(String, IpAddr)>,
    /// The response code that is a success, for a DNS target: `NOERROR` when `None`.
    pub expect: Option<&'static str>,
}

/// Times from which something is slow; `None` means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// In the order of [`Phase::ALL`].
    pub phases: [Option<Duration>; 5],
    /// The whole measurement.
    pub total: Option<Duration>,
}

impl Default for Slow {
    /// A lookup of a second is most of a request's budget; a connect of a second is a lost SYN.
    fn default() -> Self {
        let second = Some(Duration::from_secs(1));
        Self {
            phases: [second, second, None, None, None],
            total: None,
        }
    }
}

impl Slow {
    /// Whether any phase, or the total, took so long.
    #[must_use]
    pub fn is_exceeded(&self, times: &PhaseSums) -> bool {
        let over = |time: Option<Duration>, limit: Option<Duration>| {
            time.is_some_and(|time| limit.is_some_and(|limit| time >= limit))
        };
        let mut phases = Phase::ALL.into_iter().zip(self.phases);
        phases.any(|(phase, limit)| over(times.get(phase), limit))
            || over(Some(times.total), self.total)
    }
}

/// A target and how it is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What results and labels call it.
    pub name: String,
    /// What is measured.
    pub target: Target,
    /// Which family to use.
    pub ip_version: IpVersion,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// For HTTP.
    pub http: HttpOptions,
    /// For names.
    pub dns: DnsOptions,
    /// Whether to go on when the certificate cannot be trusted. It is checked and told all the
    /// same.
    pub insecure: bool,
}

impl Plan {
    /// A plan with every default.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            name: target.to_string(),
            target,
            ip_version: IpVersion::default(),
            timeouts: Timeouts::default(),
            http: HttpOptions::default(),
            dns: DnsOptions::default(),
            insecure: false,
        }
    }
}

/// Why a part of a plan was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError(why.into()))
}

/// Reads a method, in upper case; one that is not registered is taken as it is.
///
/// # Errors
/// When it holds what no method can, or is `CONNECT`, which asks for something else.
pub fn method(text: &str) -> Result<Method, PlanError> {
    let method = Method::from_bytes(text.to_ascii_uppercase().as_bytes());
    match method {
        Ok(Method::CONNECT) => refuse("CONNECT opens a tunnel, which is not measured"),
        Ok(method) if text.len() <= 32 => Ok(method),
        _ => refuse("expected a method such as GET or HEAD"),
    }
}

/// Reads `NAME: VALUE`.
///
/// # Errors
/// When either holds what a header field cannot, or the field is netobs's to set.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), PlanError> {
    let Some((name, value)) = text.split_once(':') else {
        return refuse("expected NAME: VALUE");
    };
    header_field(name.trim(), value.trim())
}

/// Checks a header field.
///
/// # Errors
/// As [`header`].
pub fn header_field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), PlanError> {
    let Ok(name) = name.parse::<HeaderName>() else {
        return refuse(format!(
            "\"{}\" is no name of a header field",
            name.escape_debug()
        ));
    };
    let framing = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ];
    if framing.contains(&name) {
        return refuse(format!("{name} is set by netobs"));
    }
    match HeaderValue::from_str(value) {
        Ok(mut value) => {
            // Its value may be a secret: it is in no message and no log.
            value.set_sensitive(true);
            Ok((name, value))
        }
        Err(_) => refuse(format!("the value of {name} holds control characters")),
    }
}

/// Reads `ADDRESS` or `ADDRESS:PORT` of a DNS server; IPv6 with a port in brackets.
///
/// # Errors
/// For anything else.
pub fn dns_server(text: &str) -> Result<SocketAddr, PlanError> {
    if let Ok(address) = text.parse() {
        return Ok(SocketAddr::new(address, DNS_PORT));
    }
    match text.parse::<SocketAddr>() {
        Ok(server) if server.port() != 0 => Ok(server),
        _ => refuse("expected an address, ADDRESS:PORT or [ADDRESS]:PORT"),
    }
}

/// Reads `HOST=ADDRESS`.
///
/// # Errors
/// For anything else.
pub fn given_address(text: &str) -> Result<(String, IpAddr), PlanError> {
    let parts = text.split_once('=');
    match parts.map(|(host, address)| (host, address.parse())) {
        Some((host, Ok(address))) if !host.is_empty() => {
            Ok((host.trim_end_matches('.').to_ascii_lowercase(), address))
        }
        _ => refuse("expected HOST=ADDRESS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_plan() {
        assert_eq!(method("head"), Ok(Method::HEAD));
        assert!(method("CONNECT").is_err() && method("a b").is_err());
        assert_eq!(header("X-A:  b c ").unwrap().1, "b c");
        for bad in ["x", ": y", "a b: c", "content-length: 3"] {
            assert!(header(bad).is_err(), "{bad}");
        }
        assert!(header("a: b\nc").is_err());
        assert!(!format!("{:?}", header("authorization: s3cret")).contains("s3cret"));
        assert_eq!(dns_server("1.1.1.1").unwrap().port(), 53);
        assert_eq!(dns_server("[::1]:54").unwrap().port(), 54);
        assert!(dns_server("dns.example").is_err() && dns_server("1.1.1.1:0").is_err());
        assert_eq!(given_address("A.b.=::1").unwrap().0, "a.b");
        assert!(given_address("a").is_err() && given_address("=::1").is_err());
    }

    #[test]
    fn statuses() {
        let range = |text: &str| text.parse::<StatusRange>();
        assert!(range("2xx").unwrap().contains(299));
        assert!(!range("2xx").unwrap().contains(300));
        assert!(range("200").unwrap().contains(200));
        assert!(range("401-403").unwrap().contains(402));
        assert_eq!(range("401-403").unwrap().to_string(), "401-403");
        for bad in ["", "20", "2000", "abc", "6xx", "0xx", "300-200", "+20", "-"] {
            assert_eq!(range(bad), Err(StatusRangeError), "{bad}");
        }
    }
}
