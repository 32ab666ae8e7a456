//! Single values, and how each is read from text. The flags and the file share these.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use serde::Deserialize;
use thiserror::Error;

/// Loopback: metrics of a privileged process go to the network only when asked for.
pub const DEFAULT_LISTEN_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10977);

/// The largest cap on label sets: beyond a million series in one family no scraper follows.
pub const MAX_LABEL_SETS: usize = 1_000_000;

/// Paths of the HTTP surface that metrics cannot take.
const RESERVED_PATHS: [&str; 4] = ["/-/healthy", "/-/ready", "/status", "/health/network"];

/// The least important level that is still written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// netobs could not do what it was asked to.
    Error,
    /// netobs does less than it was asked to.
    Warn,
    /// What starts, stops and changes.
    #[default]
    Info,
    /// Why it was done this way.
    Debug,
    /// Everything.
    Trace,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which capabilities stay once everything is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepCapabilities {
    /// Those that it takes to follow network namespaces, as far as they are there.
    #[default]
    Auto,
    /// Not one: namespaces of other users' processes are not followed.
    None,
    /// All that netobs was started with.
    All,
}

/// Where the kernel's type information (BTF) comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BtfSource {
    /// The running kernel's own.
    #[default]
    Kernel,
    /// A file in the kernel's BTF format.
    File(PathBuf),
    /// None: only methods that need no type information are used.
    None,
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ValueError(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(why.into()))
}

/// Reads `ADDRESS:PORT`, `[ADDRESS]:PORT`, or `:PORT` for all addresses of both families.
///
/// # Errors
/// For anything else. Names are not resolved: what the agent listens on must not depend on DNS.
pub fn parse_listen_address(text: &str) -> Result<SocketAddr, ValueError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        let port = DEFAULT_LISTEN_ADDRESS.port();
        return match text.contains(':') {
            true => refuse(format!("the port is missing; write [{text}]:{port}")),
            false => refuse(format!("the port is missing; write {text}:{port}")),
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return refuse("expected ADDRESS:PORT, [ADDRESS]:PORT or :PORT");
    };
    // `parse` would take a leading plus sign.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port.parse::<u16>().ok().filter(|_| digits) else {
        return refuse("the port must be a number from 0 to 65535");
    };
    match host {
        "" => Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        "localhost" => refuse(format!(
            "host names are not resolved; write 127.0.0.1:{port} or [::1]:{port}"
        )),
        "*" => refuse(format!("write :{port} for all addresses")),
        _ if host.parse::<Ipv6Addr>().is_ok() => {
            refuse(format!("put the IPv6 address in brackets: [{host}]:{port}"))
        }
        _ => refuse("the part before the port must be an IP address; host names are not resolved"),
    }
}

/// Reads the path of the metrics.
///
/// # Errors
/// When it does not start with `/`, holds what a URL path cannot, or is taken by another page.
pub fn parse_telemetry_path(text: &str) -> Result<String, ValueError> {
    if !text.starts_with('/') {
        return refuse("the path must start with /");
    }
    if let Some(bad) = text.chars().find(|c| !is_path_character(*c)) {
        return refuse(format!("{bad:?} cannot be part of the path"));
    }
    if RESERVED_PATHS.contains(&text) {
        return refuse("netobs serves something else there");
    }
    Ok(text.to_owned())
}

/// What RFC 3986 lets a path segment hold unescaped, and `%` for the rest.
const fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '/' | '-'
                | '.'
                | '_'
                | '~'
                | '%'
                | '!'
                | '$'
                | '&'
                | '\''
                | '('
                | ')'
                | '*'
                | '+'
                | ','
                | ';'
                | '='
                | ':'
                | '@'
        )
}

/// Reads a file name, or `none`. A file of that name can be given as `./none`.
///
/// # Errors
/// Never; the file is opened later, by who needs it.
pub fn parse_btf(text: &str) -> Result<BtfSource, Infallible> {
    Ok(if text == "none" {
        BtfSource::None
    } else {
        BtfSource::File(PathBuf::from(text))
    })
}

/// Reads the cap on label sets per family.
///
/// # Errors
/// When it is no number from 1 to [`MAX_LABEL_SETS`].
pub fn parse_label_sets(text: &str) -> Result<usize, ValueError> {
    match text.parse() {
        Ok(number @ 1..=MAX_LABEL_SETS) => Ok(number),
        _ => refuse(format!("expected a number from 1 to {MAX_LABEL_SETS}")),
    }
}

/// Reads a time such as `500ms`, `10s`, `2m` or `1h`; a number alone is seconds.
///
/// # Errors
/// When it is anything else, zero, or longer than a day.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    const DAY: Duration = Duration::from_secs(86_400);
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return refuse("expected a time such as 500ms, 10s, 2m or 1h"),
    };
    let Ok(number) = number.parse::<u64>() else {
        return refuse("expected a time such as 500ms, 10s, 2m or 1h");
    };
    match number.checked_mul(unit).map(Duration::from_millis) {
        Some(time) if !time.is_zero() && time <= DAY => Ok(time),
        _ => refuse("expected a time above 0 and of at most a day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let good = [
            ("127.0.0.1:10977", "127.0.0.1:10977"),
            ("[::1]:9100", "[::1]:9100"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            (":9100", "[::]:9100"),
        ];
        for (text, address) in good {
            assert_eq!(
                parse_listen_address(text).unwrap(),
                address.parse().unwrap(),
                "{text}"
            );
        }
        let bad = [
            ("", "expected ADDRESS:PORT, [ADDRESS]:PORT or :PORT"),
            ("9100", "expected ADDRESS:PORT, [ADDRESS]:PORT or :PORT"),
            (":", "the port must be a number from 0 to 65535"),
            (":http", "the port must be a number from 0 to 65535"),
            (":+80", "the port must be a number from 0 to 65535"),
            (
                "127.0.0.1:65536",
                "the port must be a number from 0 to 65535",
            ),
            ("127.0.0.1", "the port is missing; write 127.0.0.1:10977"),
            ("fe80::1", "the port is missing; write [fe80::1]:10977"),
            (
                "2001:db8:0:0:0:0:0:1:80",
                "put the IPv6 address in brackets: [2001:db8:0:0:0:0:0:1]:80",
            ),
            (
                "localhost:80",
                "host names are not resolved; write 127.0.0.1:80 or [::1]:80",
            ),
            ("*:80", "write :80 for all addresses"),
            (
                "node-1:80",
                "the part before the port must be an IP address; host names are not resolved",
            ),
        ];
        for (text, why) in bad {
            assert_eq!(
                parse_listen_address(text).unwrap_err().to_string(),
                why,
                "{text}"
            );
        }
    }

    #[test]
    fn telemetry_paths() {
        for good in ["/", "/metrics", "/a/b-c_d.e~f"] {
            assert_eq!(parse_telemetry_path(good).unwrap(), good);
        }
        let bad = [
            ("", "the path must start with /"),
            ("metrics", "the path must start with /"),
            ("/a b", "' ' cannot be part of the path"),
            ("/a?b", "'?' cannot be part of the path"),
            ("/\u{e9}", "'é' cannot be part of the path"),
            ("/a\n", "'\\n' cannot be part of the path"),
            ("/status", "netobs serves something else there"),
        ];
        for (text, why) in bad {
            assert_eq!(
                parse_telemetry_path(text).unwrap_err().to_string(),
                why,
                "{text}"
            );
        }
    }

    #[test]
    fn durations() {
        let table = [
            ("10", 10_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("24h", 86_400_000),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        let most = "18446744073709551615h";
        for bad in [
            "", "s", "0", "0ms", "-1s", "1.5s", "1 s", "25h", most, "9e9",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn label_sets() {
        assert_eq!(parse_label_sets("1"), Ok(1));
        assert_eq!(parse_label_sets("1000000"), Ok(1_000_000));
        for bad in ["", "0", "-1", "1000001", "1e3", "99999999999999999999"] {
            assert!(parse_label_sets(bad).is_err(), "{bad}");
        }
    }
}
