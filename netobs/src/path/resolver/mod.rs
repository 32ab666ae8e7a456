//! Names to addresses, in the way of the C library and with every question timed.
//!
//! hickory's own resolver asks servers side by side and remembers which was fast; what programs
//! wait for is glibc's stub resolver: one server after the other, five seconds for the first. So
//! the order, the waiting and the search list are glibc's, and hickory reads and writes the
//! messages. Nothing is cached. `/etc/nsswitch.conf` is not read: hosts file first, then DNS.

mod config;
mod exchange;
mod message;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use tokio::time::Instant;

pub use self::{config::Files, message::response_code};
use self::{
    config::ResolvConf,
    message::{Answer, Question, code_name},
};
use super::{
    cause::ErrorType,
    course::Course,
    outcome::{Failure, Lookup, LookupSource, Phase, Query, QueryOutcome},
    plan::{IpVersion, Plan},
    target::Host,
};

pub(super) use self::config::DNS_PORT;

/// Addresses of one name that are kept; `connect` tries fewer.
const MAX_ADDRESSES: usize = 16;

fn failure(error_type: ErrorType, message: impl Into<String>) -> Failure {
    Failure {
        phase: Phase::Dns,
        error_type,
        message: message.into(),
    }
}

/// Looks up the addresses of a host, into `lookup`.
pub(super) async fn addresses(
    course: &Course<'_>,
    plan: &Plan,
    host: &Host,
    lookup: &mut Lookup,
    until: Instant,
) -> Result<(), Failure> {
    lookup.name = host.to_string();
    let name = match host {
        Host::Address(address) => {
            lookup.source = LookupSource::Literal;
            return settle(plan, lookup, vec![*address]);
        }
        Host::Name(name) => name,
    };
    let bare = name.trim_end_matches('.');
    let given: Vec<IpAddr> = plan
        .dns
        .given
        .iter()
        .filter(|(of, _)| of.trim_end_matches('.').eq_ignore_ascii_case(bare))
        .map(|(_, address)| *address)
        .collect();
    if !given.is_empty() {
        lookup.source = LookupSource::Given;
        return settle(plan, lookup, given);
    }
    // A hosts file that cannot be read is none, as for the C library.
    let listed = config::hosts(&course.files.hosts, name).unwrap_or_default();
    if !listed.is_empty() {
        lookup.source = LookupSource::Hosts;
        return settle(plan, lookup, listed);
    }
    lookup.source = LookupSource::Dns;
    let conf = configuration(course, plan)?;
    let found = search(course, plan, &conf, name, lookup, until).await?;
    settle(plan, lookup, found)
}

/// Asks the question of a DNS target, into `lookup`.
pub(super) async fn records(
    course: &Course<'_>,
    plan: &Plan,
    name: &Name,
    record_type: Option<RecordType>,
    lookup: &mut Lookup,
    until: Instant,
) -> Result<(), Failure> {
    lookup.name = name.to_string();
    lookup.source = LookupSource::Dns;
    let by_family = match plan.ip_version {
        IpVersion::V6 => RecordType::AAAA,
        IpVersion::V4 | IpVersion::Any => RecordType::A,
    };
    let questions = [Question::new(
        name.clone(),
        record_type.unwrap_or(by_family),
    )];
    let conf = configuration(course, plan)?;
    let wanted = plan.dns.expect.unwrap_or("NOERROR");
    let answers = resolve(course, &conf, &questions, lookup, until, wanted).await?;
    let Some(answer) = answers.into_iter().next() else {
        return Err(unheard(lookup));
    };
    let code = code_name(answer.code);
    lookup.addresses = answer.addresses;
    lookup.addresses.truncate(MAX_ADDRESSES);
    lookup.records = answer.records;
    let [Question { record_type, .. }] = &questions;
    if code != wanted {
        let error_type = match answer.code {
            _ if plan.dns.expect.is_some() => ErrorType::UnexpectedResponseCode,
            ResponseCode::NXDomain => ErrorType::NoSuchName,
            ResponseCode::ServFail => ErrorType::ServerFailure,
            ResponseCode::Refused => ErrorType::Refused,
            _ => ErrorType::UnexpectedResponseCode,
        };
        return Err(failure(
            error_type,
            format!("the answer is {code}, not {wanted}"),
        ));
    }
    if lookup.records.is_empty() && plan.dns.expect.is_none() {
        return Err(failure(
            ErrorType::NoAddress,
            format!("{name} exists and has no {record_type} record"),
        ));
    }
    Ok(())
}

fn configuration(course: &Course<'_>, plan: &Plan) -> Result<ResolvConf, Failure> {
    let path = &course.files.resolv_conf;
    let mut conf = ResolvConf::read(path).map_err(|error| {
        let file = path.display();
        failure(
            ErrorType::NoResolver,
            format!("{file} cannot be read: {error}"),
        )
    })?;
    if !plan.dns.servers.is_empty() {
        conf.servers.clone_from(&plan.dns.servers);
    }
    Ok(conf)
}

/// Tries the names of the search list.
async fn search(
    course: &Course<'_>,
    plan: &Plan,
    conf: &ResolvConf,
    name: &str,
    lookup: &mut Lookup,
    until: Instant,
) -> Result<Vec<IpAddr>, Failure> {
    let types: &[RecordType] = match plan.ip_version {
        IpVersion::V4 => &[RecordType::A],
        IpVersion::V6 => &[RecordType::AAAA],
        IpVersion::Any => &[RecordType::A, RecordType::AAAA],
    };
    let candidates = conf.candidates(name);
    if candidates.is_empty() {
        let text = format!("{name} is no name that DNS can be asked for");
        return Err(failure(ErrorType::NoSuchName, text));
    }
    let mut exists = false;
    let mut failed = None;
    for candidate in candidates {
        let questions: Vec<Question> = types
            .iter()
            .map(|record_type| Question::new(candidate.clone(), *record_type))
            .collect();
        match resolve(course, conf, &questions, lookup, until, "NOERROR").await {
            Ok(answers) => {
                exists |= answers
                    .iter()
                    .any(|answer| answer.code == ResponseCode::NoError);
                let found: Vec<IpAddr> = answers.into_iter().flat_map(|it| it.addresses).collect();
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            // Other names of the list may fare better with the same servers, but nobody waits
            // again for servers that do not answer.
            Err(error) if error.error_type == ErrorType::ServerFailure => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let Some(failed) = failed.filter(|_| !exists) {
        return Err(failed);
    }
    Err(if exists {
        let family = family(plan.ip_version);
        failure(
            ErrorType::NoAddress,
            format!("{name} exists and has no {family} address"),
        )
    } else {
        failure(ErrorType::NoSuchName, format!("{name} does not exist"))
    })
}

const fn family(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
        IpVersion::Any => "IP",
    }
}

/// Asks one server after the other until each question has an answer that settles it: that the
/// name has records, has none, or does not exist. `wanted` settles it as well.
async fn resolve(
    course: &Course<'_>,
    conf: &ResolvConf,
    questions: &[Question],
    lookup: &mut Lookup,
    until: Instant,
    wanted: &str,
) -> Result<Vec<Answer>, Failure> {
    let begin = lookup.queries.len();
    let mut open = questions.to_vec();
    let mut answers = Vec::new();
    let mut last = None;
    'asking: for _ in 0..conf.attempts {
        for (index, server) in conf.servers.iter().enumerate() {
            if Instant::now() >= until {
                break 'asking;
            }
            let patience = Instant::now() + conf.patience(index);
            let asked = exchange::ask(course, *server, &open, patience.min(until)).await;
            for exchange::Asked { query, answer } in asked {
                let settled = answer.filter(|answer| {
                    let code = code_name(answer.code);
                    let settles = matches!(code, "NOERROR" | "NXDOMAIN") || code == wanted;
                    if !settles {
                        last = Some(answer.clone());
                    }
                    settles
                });
                if let Some(answer) = settled {
                    open.retain(|it| it.record_type.to_string() != query.record_type);
                    answers.push(answer);
                }
                lookup.queries.push(query);
            }
            if open.is_empty() {
                return Ok(answers);
            }
        }
    }
    if !answers.is_empty() {
        return Ok(answers); // One family is better than none, as for the C library.
    }
    match last {
        Some(answer) if answer.code == ResponseCode::Refused => Err(failure(
            ErrorType::Refused,
            "the servers refuse to answer (REFUSED)",
        )),
        Some(answer) => Err(failure(
            ErrorType::ServerFailure,
            format!(
                "the servers could not find out ({})",
                code_name(answer.code)
            ),
        )),
        None => Err(unheard_of(lookup.queries.get(begin..).unwrap_or_default())),
    }
}

fn unheard(lookup: &Lookup) -> Failure {
    unheard_of(&lookup.queries)
}

/// Why questions without any answer have none.
fn unheard_of(queries: &[Query]) -> Failure {
    let all = |outcome| queries.iter().all(|query| query.outcome == outcome);
    let mut servers: Vec<String> = Vec::new();
    for query in queries {
        let server = server_name(query.server);
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    let servers = servers.join(", ");
    if queries.is_empty() {
        failure(ErrorType::TimedOut, "no time was left to ask")
    } else if all(QueryOutcome::Refused) {
        let text = format!("nobody listens for DNS at {servers}");
        failure(ErrorType::Refused, text)
    } else if all(QueryOutcome::NotSent) {
        let text = format!("questions cannot be sent to {servers}");
        failure(ErrorType::NetUnreachable, text)
    } else if queries.iter().any(|query| query.strange_answers > 0) {
        let text = format!("what {servers} sent back does not answer the question");
        failure(ErrorType::BadAnswer, text)
    } else {
        failure(ErrorType::TimedOut, format!("no answer from {servers}"))
    }
}

/// A server as a sentence has it: the usual port goes without saying.
pub(super) fn server_name(server: SocketAddr) -> String {
    if server.port() == DNS_PORT {
        server.ip().to_string()
    } else {
        server.to_string()
    }
}

/// Keeps the addresses of the family asked for, in the order in which they are to be tried.
fn settle(plan: &Plan, lookup: &mut Lookup, mut found: Vec<IpAddr>) -> Result<(), Failure> {
    found.retain(|address| plan.ip_version.takes(*address));
    if plan.ip_version == IpVersion::Any {
        found.sort_by_cached_key(|address| (!has_route(*address), address.is_ipv4()));
    }
    found.truncate(MAX_ADDRESSES);
    if found.is_empty() {
        let (name, family) = (&lookup.name, family(plan.ip_version));
        let text = format!("{name} has no {family} address");
        return Err(failure(ErrorType::NoAddress, text));
    }
    lookup.addresses = found;
    Ok(())
}

/// Whether the kernel knows a way there: what `getaddrinfo` asks, too, in order to sort. Sends
/// nothing.
fn has_route(address: IpAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect((address, DNS_PORT)).is_ok())
}
