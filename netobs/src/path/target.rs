//! What is measured: a URL, a TCP port, a TLS port or a name.

use std::{fmt, net::IpAddr, str::FromStr};

use hickory_proto::rr::{Name, RecordType};
use url::Url;

/// Longer targets are refused: no host name or path that anybody probes is near it.
const LONGEST: usize = 2048;

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, in ASCII: IDNA has been applied.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Result<Self, TargetError> {
        // `url` reads numbers such as 127.1 as browsers do, and applies IDNA.
        match url::Host::parse(text) {
            Ok(host) => Ok(host.into()),
            Err(_) => Err(TargetError::Host(text.escape_debug().to_string())),
        }
    }
}

impl<S: AsRef<str>> From<url::Host<S>> for Host {
    fn from(host: url::Host<S>) -> Self {
        match host {
            url::Host::Domain(name) => Self::Name(name.as_ref().to_owned()),
            url::Host::Ipv4(address) => Self::Address(address.into()),
            url::Host::Ipv6(address) => Self::Address(address.into()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One request by `http` or `https`, and those that its redirects lead to.
    Http(Url),
    /// A TCP connection, and on top of it a TLS handshake where asked for.
    Port {
        /// Whom.
        host: Host,
        /// Where.
        port: u16,
        /// Whether to shake hands by TLS.
        tls: bool,
    },
    /// A DNS question.
    Dns {
        /// The name, taken as a full one.
        name: Name,
        /// The type of record; by the family asked for when not given.
        record_type: Option<RecordType>,
    },
}

/// Why a target was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the forms.
    #[error(
        "expected http://..., https://..., HOST:PORT, tls:HOST:PORT or dns:NAME[/TYPE], not \"{0}\""
    )]
    Form(String),
    /// Not a URL.
    #[error("the URL cannot be read: {0}")]
    Url(url::ParseError),
    /// A URL with a user name or password in it.
    #[error("credentials do not belong in a URL: give an authorization header instead")]
    Credentials,
    /// Not a host.
    #[error("\"{0}\" is no host name and no address; an IPv6 address stands in brackets")]
    Host(String),
    /// Not a port.
    #[error("\"{0}\" is no port: expected a number from 1 to 65535")]
    Port(String),
    /// Not a name for DNS.
    #[error("\"{0}\" is no name that DNS can be asked for")]
    Name(String),
    /// Not a type of record.
    #[error("\"{0}\" is no type of DNS record, such as A, AAAA, MX or TXT")]
    RecordType(String),
    /// Too long.
    #[error("the target is longer than {LONGEST} bytes")]
    TooLong,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.len() > LONGEST {
            return Err(TargetError::TooLong);
        }
        let scheme = |name: &str| {
            let head = text.get(..name.len())?;
            head.eq_ignore_ascii_case(name)
                .then(|| text.get(name.len()..))?
        };
        if scheme("http://").is_some() || scheme("https://").is_some() {
            return http(Url::parse(text).map_err(TargetError::Url)?).map(Self::Http);
        }
        if let Some(question) = scheme("dns:") {
            return dns(question.trim_start_matches("//"));
        }
        if let Some(rest) = scheme("tls:") {
            return port(rest.trim_start_matches("//"), true, text);
        }
        let text = scheme("tcp://").unwrap_or(text);
        if text.contains("://") {
            return Err(TargetError::Form(text.escape_debug().to_string()));
        }
        port(text, false, text)
    }
}

/// A URL that can be asked for.
pub(super) fn http(mut url: Url) -> Result<Url, TargetError> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(TargetError::Form(url.as_str().escape_debug().to_string()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::Credentials);
    }
    url.set_fragment(None);
    Ok(url)
}

fn dns(question: &str) -> Result<Target, TargetError> {
    let (name, record_type) = match question.rsplit_once('/') {
        Some((name, record_type)) => (name, Some(record_type)),
        None => (question, None),
    };
    let refused = || TargetError::Name(name.escape_debug().to_string());
    let mut full = Name::from_utf8(name).map_err(|_| refused())?;
    full.set_fqdn(true);
    if full.is_root() && name != "." {
        return Err(refused());
    }
    let record_type = record_type
        .map(|text| {
            RecordType::from_str(&text.to_ascii_uppercase())
                .map_err(|_| TargetError::RecordType(text.escape_debug().to_string()))
        })
        .transpose()?;
    Ok(Target::Dns {
        name: full,
        record_type,
    })
}

fn port(text: &str, tls: bool, whole: &str) -> Result<Target, TargetError> {
    let form = || TargetError::Form(whole.escape_debug().to_string());
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    if host.is_empty() {
        return Err(form());
    }
    // `parse` would take a leading plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|port| digits && *port != 0);
    let number = number.ok_or_else(|| TargetError::Port(port.escape_debug().to_string()))?;
    Ok(Target::Port {
        host: Host::parse(host)?,
        port: number,
        tls,
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str()),
            Self::Port { host, port, tls } => {
                let scheme = if *tls { "tls:" } else { "" };
                write!(f, "{scheme}{host}:{port}")
            }
            Self::Dns { name, record_type } => {
                let text = name.to_string();
                match text.trim_end_matches('.') {
                    "" => f.write_str("dns:.")?,
                    text => write!(f, "dns:{text}")?,
                }
                match record_type {
                    Some(record_type) => write!(f, "/{record_type}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        let table = [
            ("http://a.example", "http://a.example/"),
            ("HTTPS://A.example/x?y#z", "https://a.example/x?y"),
            (
                "https://b\u{fc}cher.example/",
                "https://xn--bcher-kva.example/",
            ),
            ("a.example:443", "a.example:443"),
            ("tcp://a.example:443", "a.example:443"),
            ("10.0.0.1:53", "10.0.0.1:53"),
            ("[::1]:53", "[::1]:53"),
            ("tls:a.example:443", "tls:a.example:443"),
            ("dns:a.example", "dns:a.example"),
            ("dns:a.example./mx", "dns:a.example/MX"),
            ("dns:.", "dns:."),
        ];
        for (text, shown) in table {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<Target>().unwrap(), target, "{text}");
        }
    }

    #[test]
    fn what_is_no_target_says_why() {
        let table = [
            ("", "expected http"),
            ("a.example", "expected http"),
            (":80", "expected http"),
            ("a.example:http", "no port"),
            ("a.example:0", "no port"),
            ("a.example:+1", "no port"),
            ("a.example:65536", "no port"),
            ("::1:80", "in brackets"),
            ("a b:80", "no host name"),
            ("http://", "cannot be read"),
            ("http://a:b@c.example/", "credentials"),
            ("ftp://a.example/", "expected http"),
            ("dns:", "no name"),
            ("dns:a..b", "no name"),
            ("dns:a/NONSENSE", "no type of DNS record"),
            (&"a".repeat(3000), "longer than"),
        ];
        for (text, why) in table {
            let message = text.parse::<Target>().unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
