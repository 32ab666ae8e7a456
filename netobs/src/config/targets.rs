//! `[probe]` and its `[[probe.target]]`: what the agent measures from here.
//!
//! ```toml
//! [probe]
//! max_concurrent = 32                     # measurements under way at once
//!
//! [[probe.target]]
//! name = "orders"                         # the label; without it, the target as written
//! target = "https://orders.example/health" # or HOST:PORT, tls:HOST:PORT, dns:NAME[/TYPE]
//! interval = "30s"
//! timeout = "10s"
//! jitter = "3s"                           # each measurement up to so much later
//! ip_version = "any"                      # 4, 6, any
//! expect_status = ["2xx"]
//! # expect_code = "NXDOMAIN"              # for dns:
//! # method = "HEAD"
//! # headers = { authorization = "Bearer ..." }
//! # max_redirects = 5
//! # body_limit = 1048576
//! # insecure = false
//! # servers = ["10.96.0.10"]              # in place of the system's
//! # resolve = { "orders.example" = "10.0.0.7" }
//! # phase_timeout = { connect = "2s" }
//! slow = { dns = "1s", connect = "1s" }   # slower is degraded at /health/network
//! ```

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Error, parse_duration};
use crate::path::{
    self, IpVersion, MAX_REDIRECTS, MAX_TIMEOUT, Phase, Plan, Slow, StatusRange, Target,
};

/// The most targets: beyond that, more agents are needed, not a longer list.
pub const MAX_TARGETS: usize = 500;
/// The longest name of a target: it is a label of every series.
const MAX_NAME: usize = 100;
const MAX_CONCURRENT: usize = 256;
/// Bounds of an interval.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Header fields, servers, and such, of one target.
const MAX_LIST: usize = 32;
/// The largest body that is read: 1 GiB.
const MAX_BODY: i64 = 1 << 30;

pub(super) const PROBE_KEYS: &[&str] = &["max_concurrent", "target"];
pub(super) const TARGET_KEYS: &[&str] = &[
    "name",
    "target",
    "interval",
    "timeout",
    "jitter",
    "ip_version",
    "expect_status",
    "expect_code",
    "method",
    "headers",
    "max_redirects",
    "body_limit",
    "insecure",
    "servers",
    "resolve",
    "phase_timeout",
    "slow",
];

/// What the agent measures from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathProbes {
    /// Measurements under way at once.
    pub max_concurrent: usize,
    /// The targets; no two of one name.
    pub targets: Vec<ProbeTarget>,
}

impl Default for PathProbes {
    fn default() -> Self {
        Self {
            max_concurrent: 32,
            targets: Vec::new(),
        }
    }
}

impl PathProbes {
    /// By when the first measurement of each target has begun and reached its limit, if nothing keeps
    /// it waiting.
    #[must_use]
    pub fn first_round(&self) -> Duration {
        let ends = self
            .targets
            .iter()
            .map(|target| target.interval + target.plan.timeouts.total);
        ends.max().unwrap_or_default()
    }
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// What is measured, and how; its name is the label.
    pub plan: Plan,
    /// From the beginning of one measurement to that of the next.
    pub interval: Duration,
    /// Each measurement begins up to so much later, so that targets and agents spread out.
    pub jitter: Duration,
    /// Times from which a phase, or the total, counts as degraded.
    pub slow: Slow,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Table {
    max_concurrent: Option<Spanned<i64>>,
    target: Vec<Spanned<TargetTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct TargetTable {
    name: Option<Spanned<String>>,
    target: Spanned<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    jitter: Option<Spanned<String>>,
    ip_version: Option<Spanned<String>>,
    expect_status: Option<Vec<Spanned<String>>>,
    expect_code: Option<Spanned<String>>,
    method: Option<Spanned<String>>,
    headers: Option<BTreeMap<String, Spanned<String>>>,
    max_redirects: Option<Spanned<i64>>,
    body_limit: Option<Spanned<i64>>,
    #[serde(default)]
    insecure: bool,
    servers: Option<Vec<Spanned<String>>>,
    resolve: Option<BTreeMap<String, Spanned<String>>>,
    phase_timeout: Option<BTreeMap<String, Spanned<String>>>,
    slow: Option<BTreeMap<String, Spanned<String>>>,
}

/// What is wrong with a value: where it stands, the key, and why.
type Refusal = (usize, &'static str, String);

fn at<T>(value: &Spanned<T>, key: &'static str, why: impl Display) -> Refusal {
    (value.span().start, key, why.to_string())
}

/// Checks the whole table; `refused` makes an error of what is wrong.
pub(super) fn read(
    table: Table,
    refused: impl Fn(&'static str, usize, &dyn Display) -> Error,
) -> Result<PathProbes, Error> {
    check(table).map_err(|(at, key, why)| refused(key, at, &why))
}

fn check(table: Table) -> Result<PathProbes, Refusal> {
    let mut probes = PathProbes::default();
    if let Some(number) = table.max_concurrent {
        probes.max_concurrent = bounded(&number, "probe.max_concurrent", 1, MAX_CONCURRENT as i64)?
            .try_into()
            .unwrap_or(MAX_CONCURRENT);
    }
    if let Some(beyond) = table.target.get(MAX_TARGETS) {
        let why = format!("more than {MAX_TARGETS} targets");
        return Err(at(beyond, "probe.target", why));
    }
    for table in table.target {
        let begin = table.span().start;
        let target = one(table.into_inner(), begin)?;
        let name = &target.plan.name;
        if probes.targets.iter().any(|other| other.plan.name == *name) {
            let name = name.escape_debug();
            let why = format!("\"{name}\" is named twice; give one of them another name");
            return Err((begin, "probe.target.name", why));
        }
        probes.targets.push(target);
    }
    Ok(probes)
}

fn one(table: TargetTable, begin: usize) -> Result<ProbeTarget, Refusal> {
    let text = table.target.get_ref();
    let target: Target = text
        .parse()
        .map_err(|why| at(&table.target, "probe.target.target", why))?;
    let mut plan = Plan::new(target);
    if let Some(name) = table.name {
        plan.name = name_of(&name)?;
    } else if plan.name.chars().count() > MAX_NAME {
        let why = format!("the target has more than {MAX_NAME} characters: give it a name");
        return Err((begin, "probe.target.name", why));
    }
    plan.insecure = table.insecure;
    let time = |value: &Option<Spanned<String>>, key| {
        let value = value.as_ref();
        value.map(|it| duration(it, key)).transpose()
    };
    let interval = time(&table.interval, "probe.target.interval")?;
    let interval = interval.unwrap_or(Duration::from_secs(30));
    if let Some(given) = &table.interval
        && (interval < INTERVALS.0 || interval > INTERVALS.1)
    {
        return Err(at(given, "probe.target.interval", "expected 1s to 1h"));
    }
    let timeout = time(&table.timeout, "probe.target.timeout")?;
    plan.timeouts.total = timeout.unwrap_or(plan.timeouts.total);
    if let Some(given) = table.timeout
        && plan.timeouts.total > MAX_TIMEOUT
    {
        let most = MAX_TIMEOUT.as_secs();
        let why = format!("expected at most {most}s");
        return Err(at(&given, "probe.target.timeout", why));
    }
    let jitter = match &table.jitter {
        Some(zero) if zero.get_ref() == "0" => Duration::ZERO,
        given => time(given, "probe.target.jitter")?.unwrap_or(interval / 10),
    };
    if let Some(given) = &table.jitter
        && jitter > interval
    {
        let why = "expected no more than the interval";
        return Err(at(given, "probe.target.jitter", why));
    }
    if let Some(given) = &table.ip_version {
        let known = [IpVersion::V4, IpVersion::V6, IpVersion::Any];
        let version = known.into_iter().find(|it| it.name() == given.get_ref());
        plan.ip_version =
            version.ok_or_else(|| at(given, "probe.target.ip_version", "expected 4, 6 or any"))?;
    }
    for (name, value) in table.phase_timeout.iter().flatten() {
        let key = "probe.target.phase_timeout";
        let slot = phase(name).and_then(|phase| plan.timeouts.phases.get_mut(phase as usize));
        *slot.ok_or_else(|| unknown_phase(value, key, name, false))? = Some(duration(value, key)?);
    }
    let mut slow = Slow::default();
    for (name, value) in table.slow.iter().flatten() {
        let key = "probe.target.slow";
        let slot = match phase(name) {
            Some(phase) => slow.phases.get_mut(phase as usize),
            None if name == "total" => Some(&mut slow.total),
            None => None,
        };
        *slot.ok_or_else(|| unknown_phase(value, key, name, true))? = Some(duration(value, key)?);
    }
    http(
        &mut plan,
        HttpKeys {
            method: table.method,
            headers: table.headers.unwrap_or_default(),
            expect_status: table.expect_status.unwrap_or_default(),
            max_redirects: table.max_redirects,
            body_limit: table.body_limit,
        },
    )?;
    names(
        &mut plan,
        table.expect_code.as_ref(),
        table.servers.unwrap_or_default(),
        table.resolve.unwrap_or_default(),
    )?;
    Ok(ProbeTarget {
        plan,
        interval,
        jitter,
        slow,
    })
}

struct HttpKeys {
    method: Option<Spanned<String>>,
    headers: BTreeMap<String, Spanned<String>>,
    expect_status: Vec<Spanned<String>>,
    max_redirects: Option<Spanned<i64>>,
    body_limit: Option<Spanned<i64>>,
}

fn http(plan: &mut Plan, keys: HttpKeys) -> Result<(), Refusal> {
    if let Some(given) = keys.method {
        plan.http.method =
            path::method(given.get_ref()).map_err(|why| at(&given, "probe.target.method", why))?;
    }
    few(keys.headers.values(), "probe.target.headers")?;
    for (name, value) in &keys.headers {
        let key = "probe.target.headers";
        let field = path::header_field(name, value.get_ref());
        let (name, value) = field.map_err(|why| at(value, key, why))?;
        plan.http.headers.append(name, value);
    }
    let mut expect: Vec<StatusRange> = Vec::new();
    few(&keys.expect_status, "probe.target.expect_status")?;
    for given in &keys.expect_status {
        let range = given.get_ref().parse();
        expect.push(range.map_err(|why| at(given, "probe.target.expect_status", why))?);
    }
    if !expect.is_empty() {
        plan.http.expect = expect;
    }
    if let Some(given) = keys.max_redirects {
        let number = bounded(
            &given,
            "probe.target.max_redirects",
            0,
            MAX_REDIRECTS.into(),
        )?;
        plan.http.max_redirects = u8::try_from(number).unwrap_or(MAX_REDIRECTS);
    }
    if let Some(given) = keys.body_limit {
        plan.http.body_limit = bounded(&given, "probe.target.body_limit", 0, MAX_BODY)?;
    }
    Ok(())
}

fn names(
    plan: &mut Plan,
    expect_code: Option<&Spanned<String>>,
    servers: Vec<Spanned<String>>,
    resolve: BTreeMap<String, Spanned<String>>,
) -> Result<(), Refusal> {
    if let Some(given) = expect_code {
        let why = "expected a code such as NOERROR or NXDOMAIN";
        let code = path::response_code(given.get_ref());
        plan.dns.expect = Some(code.ok_or_else(|| at(given, "probe.target.expect_code", why))?);
    }
    few(&servers, "probe.target.servers")?;
    for given in servers {
        let server = path::dns_server(given.get_ref());
        let server = server.map_err(|why| at(&given, "probe.target.servers", why))?;
        plan.dns.servers.push(server);
    }
    few(resolve.values(), "probe.target.resolve")?;
    for (host, given) in resolve {
        let address = given.get_ref().parse();
        let address = address.map_err(|_| {
            at(
                &given,
                "probe.target.resolve",
                "expected HOST = \"ADDRESS\"",
            )
        })?;
        plan.dns.given.push((host, address));
    }
    Ok(())
}

/// Refuses a list that is longer than anybody needs.
fn few<'a>(
    list: impl IntoIterator<Item = &'a Spanned<String>>,
    key: &'static str,
) -> Result<(), Refusal> {
    match list.into_iter().nth(MAX_LIST) {
        Some(beyond) => Err(at(beyond, key, format!("more than {MAX_LIST}"))),
        None => Ok(()),
    }
}

/// A name that is safe as a label: short, and nothing in it that a screen would not show.
fn name_of(given: &Spanned<String>) -> Result<String, Refusal> {
    let name = given.get_ref().trim();
    let key = "probe.target.name";
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(at(
            given,
            key,
            format!("expected 1 to {MAX_NAME} characters"),
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(at(given, key, "control characters cannot be part of it"));
    }
    Ok(name.to_owned())
}

fn duration(given: &Spanned<String>, key: &'static str) -> Result<Duration, Refusal> {
    parse_duration(given.get_ref()).map_err(|why| at(given, key, why))
}

fn bounded(given: &Spanned<i64>, key: &'static str, least: i64, most: i64) -> Result<u64, Refusal> {
    let number = *given.get_ref();
    u64::try_from(number)
        .ok()
        .filter(|_| (least..=most).contains(&number))
        .ok_or_else(|| {
            at(
                given,
                key,
                format!("expected a number from {least} to {most}"),
            )
        })
}

fn phase(name: &str) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| phase.name() == name)
}

fn unknown_phase(given: &Spanned<String>, key: &'static str, name: &str, total: bool) -> Refusal {
    let mut known = Phase::ALL.map(Phase::name).to_vec();
    if total {
        known.push("total");
    }
    let name = name.escape_debug();
    at(
        given,
        key,
        format!("\"{name}\" is none of {}", known.join(", ")),
    )
}
