//! One measurement from its first question to its last byte.
//!
//! Everything happens inside one future: nothing is spawned, so a measurement that is dropped, or
//! runs out of time, leaves no task and no socket behind.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use url::Url;
use x509_cert::der::DateTime;

use super::{
    cause::ErrorType,
    connect,
    course::Course,
    http,
    kernel::KernelStory,
    outcome::{Failure, Lookup, LookupSource, Measurement, Phase, Step, Tls},
    plan::Plan,
    resolver::{self, Files},
    story,
    stream::Stream,
    target::{self, Host, Target},
    tls::{self, Roots},
};
use crate::sys::{clock::ClockPair, tcp_info::TcpInfo};

/// Addresses that are tried, one after the other, when the first do not answer.
const MAX_CONNECTIONS: usize = 4;

/// What measurements need of this machine.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The files that names are looked up by; read at each measurement.
    pub files: Files,
    /// The certificates that are trusted; read once.
    pub roots: Roots,
}

impl Environment {
    /// That of this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self {
            files: Files::default(),
            roots: Roots::load(),
        }
    }

    /// Measures `plan` once. It ends within `plan.timeouts.total`, whatever the other side does.
    pub async fn measure(
        &self,
        plan: &Plan,
        sequence: u64,
        kernel: &dyn KernelStory,
    ) -> Measurement {
        let clocks = ClockPair::sample();
        let started = Instant::now();
        let course = Course {
            started,
            deadline: started + plan.timeouts.total,
            files: &self.files,
            kernel,
        };
        let mut measurement = Measurement {
            time: now_text(),
            started_ns: clocks.map_or(0, |clocks| clocks.monotonic_ns),
            ..Measurement::blank(plan, sequence)
        };
        let result = self.run(&course, plan, &mut measurement.steps).await;
        measurement.sum_up(course.now());
        measurement.success = result.is_ok();
        measurement.failure = result.err();
        measurement.story = story::tell(&measurement);
        measurement
    }

    async fn run(
        &self,
        course: &Course<'_>,
        plan: &Plan,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        match &plan.target {
            Target::Http(url) => self.browse(course, plan, url, steps).await,
            Target::Port { host, port, tls } => {
                let mut step = step_of(plan.target.to_string());
                let result = self.dial(course, plan, host, *port, *tls, &mut step).await;
                steps.push(step);
                result
            }
            Target::Dns { name, record_type } => {
                let mut step = step_of(plan.target.to_string());
                let until = course.limit(plan.timeouts.of(Phase::Dns));
                let start = course.now();
                let mut lookup = Lookup::default();
                let result =
                    resolver::records(course, plan, name, *record_type, &mut lookup, until).await;
                step.phases.set(Phase::Dns, course.span(start));
                step.lookup = Some(lookup);
                steps.push(step);
                result
            }
        }
    }

    /// A connection, and a handshake on top where `tls` says so.
    async fn dial(
        &self,
        course: &Course<'_>,
        plan: &Plan,
        host: &Host,
        port: u16,
        tls: bool,
        step: &mut Step,
    ) -> Result<(), Failure> {
        let stream = reach(course, plan, host, port, step).await?;
        let witness = Witness::of(&stream);
        let result = if tls {
            self.shake(course, plan, host, false, stream, step)
                .await
                .map(drop)
        } else {
            Ok(())
        };
        witness.testify(step);
        result
    }

    /// A request, and those that its redirects lead to.
    async fn browse(
        &self,
        course: &Course<'_>,
        plan: &Plan,
        first: &Url,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        let mut url = first.clone();
        let mut seen = HashSet::from([url.clone()]);
        for followed in 0..=plan.http.max_redirects {
            let own_headers = url.origin() == first.origin();
            let mut step = step_of(url.to_string());
            let result = self
                .request(course, plan, &url, own_headers, &mut step)
                .await;
            let http = step.http.clone().unwrap_or_default();
            steps.push(step);
            result?;
            let (status, location) = (http.status.unwrap_or_default(), http.location.as_deref());
            let Some(location) = location.filter(|_| plan.http.max_redirects > 0) else {
                return expected(plan, status);
            };
            if followed == plan.http.max_redirects {
                let text = format!("more than {followed} redirects; the next leads to {location}");
                return Err(redirect(ErrorType::TooManyRedirects, &text));
            }
            let next = url
                .join(location)
                .map_err(|error| error.to_string())
                .and_then(|next| target::http(next).map_err(|error| error.to_string()));
            url = next.map_err(|why| {
                let text = format!("a redirect to \"{location}\" cannot be followed: {why}");
                redirect(ErrorType::BadRedirect, &text)
            })?;
            if !seen.insert(url.clone()) {
                let text = format!("redirects lead back to {url}");
                return Err(redirect(ErrorType::RedirectLoop, &text));
            }
        }
        Ok(())
    }

    async fn request(
        &self,
        course: &Course<'_>,
        plan: &Plan,
        url: &Url,
        own_headers: bool,
        step: &mut Step,
    ) -> Result<(), Failure> {
        let (Some(host), Some(port)) = (url.host().map(Host::from), url.port_or_known_default())
        else {
            return Err(redirect(ErrorType::BadRedirect, "the URL has no host"));
        };
        let stream = reach(course, plan, &host, port, step).await?;
        let witness = Witness::of(&stream);
        let result = async {
            let stream = if url.scheme() == "https" {
                let shaken = self.shake(course, plan, &host, true, stream, step).await?;
                Stream::new(shaken)
            } else {
                Stream::new(stream)
            };
            let limits = http::Limits {
                first_byte: course.limit(plan.timeouts.of(Phase::FirstByte)),
                transfer: plan.timeouts.of(Phase::Transfer),
            };
            http::exchange(course, &plan.http, url, own_headers, stream, &limits, step).await
        }
        .await;
        witness.testify(step);
        result
    }

    async fn shake(
        &self,
        course: &Course<'_>,
        plan: &Plan,
        host: &Host,
        http: bool,
        stream: TcpStream,
        step: &mut Step,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let until = course.limit(plan.timeouts.of(Phase::Tls));
        let start = course.now();
        let tls = step.tls.insert(Tls::default());
        let handshake = tls::handshake(&self.roots, host, plan.insecure, http, stream, tls);
        let result = timeout_at(until, handshake).await;
        step.phases.set(Phase::Tls, course.span(start));
        result.unwrap_or_else(|_| {
            Err(Failure {
                phase: Phase::Tls,
                error_type: ErrorType::TimedOut,
                message: "the handshake did not come to an end".to_owned(),
            })
        })
    }
}

/// A second handle of a connection's socket, to ask the kernel when all is over.
struct Witness(Option<OwnedFd>);

impl Witness {
    fn of(stream: &TcpStream) -> Self {
        Self(stream.as_fd().try_clone_to_owned().ok())
    }

    /// Adds to the last connection of `step` what became of it.
    fn testify(self, step: &mut Step) {
        if let (Some(socket), Some(last)) = (&self.0, step.connections.last_mut())
            && let Ok(info) = TcpInfo::of(socket)
        {
            connect::close(last, info);
        }
    }
}

fn step_of(url: String) -> Step {
    Step {
        url,
        ..Step::default()
    }
}

fn redirect(error_type: ErrorType, message: &str) -> Failure {
    Failure {
        phase: Phase::FirstByte,
        error_type,
        message: message.to_owned(),
    }
}

fn expected(plan: &Plan, status: u16) -> Result<(), Failure> {
    if plan.http.expect.iter().any(|range| range.contains(status)) {
        return Ok(());
    }
    let wanted: Vec<String> = plan.http.expect.iter().map(ToString::to_string).collect();
    Err(Failure {
        phase: Phase::FirstByte,
        error_type: ErrorType::UnexpectedStatus,
        message: format!("the status is {status}, not {}", wanted.join(" or ")),
    })
}

/// Looks up the host and connects to the first of its addresses that answers.
async fn reach(
    course: &Course<'_>,
    plan: &Plan,
    host: &Host,
    port: u16,
    step: &mut Step,
) -> Result<TcpStream, Failure> {
    let until = course.limit(plan.timeouts.of(Phase::Dns));
    let start = course.now();
    let mut lookup = Lookup::default();
    let found = resolver::addresses(course, plan, host, &mut lookup, until).await;
    // An address has no such phase, unless it cannot be used.
    if lookup.source != LookupSource::Literal || found.is_err() {
        step.phases.set(Phase::Dns, course.span(start));
    }
    let addresses = lookup.addresses.clone();
    step.lookup = Some(lookup);
    found?;
    let until = course.limit(plan.timeouts.of(Phase::Connect));
    let start = course.now();
    let stream = first_of(course, &addresses, port, until, step).await;
    step.phases.set(Phase::Connect, course.span(start));
    stream.ok_or_else(|| {
        let last = step.connections.last();
        let error_type = last.and_then(|last| last.error_type);
        let error_type = error_type.unwrap_or(ErrorType::TimedOut);
        let tried: Vec<String> = step
            .connections
            .iter()
            .map(|it| {
                let why = it.error_type.map_or("no connection", story::words);
                format!("{}: {why}", it.remote)
            })
            .collect();
        Failure {
            phase: Phase::Connect,
            error_type,
            message: if tried.is_empty() {
                "no time was left to connect".to_owned()
            } else {
                tried.join("; ")
            },
        }
    })
}

/// Tries one address after the other, never two at once.
async fn first_of(
    course: &Course<'_>,
    addresses: &[IpAddr],
    port: u16,
    until: Instant,
    step: &mut Step,
) -> Option<TcpStream> {
    for address in addresses.iter().take(MAX_CONNECTIONS) {
        if Instant::now() >= until {
            break;
        }
        let remote = SocketAddr::new(*address, port);
        let (attempt, stream) = connect::open(course, remote, until).await;
        step.connections.push(attempt);
        if stream.is_some() {
            return stream;
        }
    }
    None
}

/// The wall clock in RFC 3339, to the millisecond.
fn now_text() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let whole = DateTime::from_unix_duration(Duration::from_secs(since.as_secs()));
    whole.map_or_else(
        |_| String::new(),
        |whole| {
            let text = whole.to_string();
            format!(
                "{}.{:03}Z",
                text.trim_end_matches('Z'),
                since.subsec_millis()
            )
        },
    )
}
