//! From a request to its answer. Pure but for asking the [`Surface`].

use std::{io::Write, sync::Arc, time::Instant};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Body,
    header::{self, HeaderName, HeaderValue},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Limits, NoEvents, Surface,
    accept::{Format, negotiate_format, negotiate_gzip},
    deadline::Pulse,
    events::{self, Parts},
    landing,
    limits::Sparingly,
    reply::Reply,
    text004,
};

/// Smaller bodies fit one packet as they are.
const GZIP_FROM_BYTES: usize = 1024;

const PLAIN: &str = "text/plain; charset=utf-8";

/// The answering side, shared by all connections.
pub(super) struct Routes {
    surface: Arc<dyn Surface>,
    telemetry_path: String,
    scrapes: Arc<Semaphore>,
    recordings: Arc<Semaphore>,
    complaints: Sparingly,
}

/// An answer before it is compressed and put on a connection.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    /// Header fields that only this answer has.
    extra: &'static [(HeaderName, &'static str)],
    scrape: Option<OwnedSemaphorePermit>,
    /// In place of the body, one that is made as it is taken.
    parts: Option<(Parts, OwnedSemaphorePermit)>,
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type,
            body: body.into(),
            extra: &[],
            scrape: None,
            parts: None,
        }
    }

    fn plain(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, PLAIN, body)
    }

    fn with(self, extra: &'static [(HeaderName, &'static str)]) -> Self {
        Self { extra, ..self }
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// More requests than the configured rate.
    TooOften,
    /// No password, or a wrong one.
    Unauthorized,
    /// Too many passwords are being checked.
    Busy,
}

impl Refusal {
    fn answer(self) -> Answer {
        match self {
            Self::TooOften => Answer::plain(StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
            Self::Unauthorized => Answer::plain(StatusCode::UNAUTHORIZED, "unauthorized\n")
                .with(&[(header::WWW_AUTHENTICATE, "Basic")]),
            Self::Busy => Answer::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many passwords are being checked\n",
            )
            .with(&[(header::RETRY_AFTER, "5")]),
        }
    }
}

impl Routes {
    pub(super) fn new(surface: Arc<dyn Surface>, telemetry_path: String, limits: &Limits) -> Self {
        Self {
            surface,
            telemetry_path,
            scrapes: Arc::new(Semaphore::new(limits.scrapes)),
            recordings: Arc::new(Semaphore::new(limits.recordings)),
            complaints: Sparingly::default(),
        }
    }

    /// Answers one request. A HEAD request gets the answer of GET; the connection leaves the body
    /// out and keeps its length.
    ///
    /// With a `refusal` the request is not looked at any further. Events name peers and processes,
    /// which metrics do not: they are for who is `trusted`, by a password or by being on this machine.
    pub(super) fn respond<B: Body>(
        &self,
        request: &Request<B>,
        refusal: Option<Refusal>,
        trusted: bool,
        pulse: Arc<Pulse>,
    ) -> Response<Reply> {
        let has_body = !request.body().is_end_stream();
        let answer = if let Some(refusal) = refusal {
            refusal.answer()
        } else if has_body {
            Answer::plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "no request here has a body\n",
            )
        } else if matches!(*request.method(), Method::GET | Method::HEAD) {
            self.route(request.uri(), request.headers(), trusted)
        } else {
            Answer::plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered\n",
            )
            .with(&[(header::ALLOW, "GET, HEAD")])
        };
        let mut response = finish(answer, request.headers(), pulse);
        if has_body {
            // The rest of what the client sends would be taken for its next request.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn route(&self, uri: &Uri, headers: &HeaderMap, trusted: bool) -> Answer {
        match uri.path() {
            path if path == self.telemetry_path => self.metrics(headers),
            "/" => Answer::new(
                StatusCode::OK,
                "text/html; charset=utf-8",
                landing::page(&self.telemetry_path),
            )
            .with(&[(
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            )]),
            "/-/healthy" if self.surface.is_healthy() => Answer::plain(StatusCode::OK, "healthy\n"),
            "/-/healthy" => Answer::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "not healthy: the agent has stopped doing its work; see /status\n",
            ),
            "/-/ready" if self.surface.is_ready() => Answer::plain(StatusCode::OK, "ready\n"),
            "/-/ready" => Answer::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: probes, sockets or baselines are still missing; see /status\n",
            ),
            "/events" if trusted => self.events(uri.query()),
            "/events" => Answer::plain(
                StatusCode::FORBIDDEN,
                "events are given to clients on this machine, and to others where users are \
                 configured (--web.config.file)\n",
            ),
            "/health/network" => {
                let (healthy, particulars) = self.surface.network_health();
                let status = if healthy {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                Answer::new(status, "application/json", format!("{particulars:#}\n"))
            }
            "/status" => Answer::new(
                StatusCode::OK,
                "application/json",
                format!("{:#}\n", self.surface.status()),
            ),
            "/stories" => Answer::new(
                StatusCode::OK,
                "application/json",
                format!("{:#}\n", self.surface.stories()),
            ),
            _ => Answer::plain(
                StatusCode::NOT_FOUND,
                format!("not found; metrics are at {}\n", self.telemetry_path),
            ),
        }
    }

    fn events(&self, query: Option<&str>) -> Answer {
        let Ok(permit) = Arc::clone(&self.recordings).try_acquire_owned() else {
            return Answer::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many answers with events at once\n",
            )
            .with(&[(header::RETRY_AFTER, "1")]);
        };
        let [since, until] = events::bounds(query);
        match self.surface.events(since.as_deref(), until.as_deref()) {
            Ok(lines) => Answer {
                parts: Some((events::stream(lines), permit)),
                ..Answer::new(StatusCode::OK, "application/jsonl", "")
            },
            Err(NoEvents::Off) => Answer::plain(
                StatusCode::NOT_FOUND,
                "the flight recorder is switched off (--recorder.size 0)\n",
            ),
            Err(NoEvents::Time(why)) => Answer::plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let Ok(permit) = Arc::clone(&self.scrapes).try_acquire_owned() else {
            return Answer::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes at once\n",
            )
            .with(&[(header::RETRY_AFTER, "1")]);
        };
        let Ok(openmetrics) = self.surface.openmetrics() else {
            if self.complaints.allows(Instant::now()) {
                tracing::error!("failed to encode the metrics; scrapes get status 500");
            }
            return Answer::plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be encoded\n",
            );
        };
        let format = negotiate_format(&list(headers, &header::ACCEPT));
        let body = match format {
            Format::OpenMetrics => openmetrics,
            Format::Text004 => text004::rewrite(&openmetrics),
        };
        Answer {
            scrape: Some(permit),
            ..Answer::new(StatusCode::OK, format.content_type(), body)
                .with(&[(header::VARY, "Accept, Accept-Encoding")])
        }
    }
}

/// The values of a list header, joined as if they had come in one field.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    values.join(",")
}

fn finish(answer: Answer, request: &HeaderMap, pulse: Arc<Pulse>) -> Response<Reply> {
    let Answer {
        status,
        content_type,
        body,
        extra,
        scrape,
        parts,
    } = answer;
    let wants_gzip =
        body.len() >= GZIP_FROM_BYTES && negotiate_gzip(&list(request, &header::ACCEPT_ENCODING));
    let (body, gzipped) = match wants_gzip.then(|| gzip(&body)) {
        Some(Ok(compressed)) => (compressed, true),
        _ => (body, false),
    };
    let reply = match parts {
        Some((parts, permit)) => Reply::streamed(parts, permit, pulse),
        None => Reply::new(Bytes::from(body), scrape, pulse),
    };
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    let fixed = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let coding = gzipped.then_some((header::CONTENT_ENCODING, "gzip"));
    for (name, value) in fixed.into_iter().chain(extra.iter().cloned()).chain(coding) {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Level 1: a scrape costs the host CPU time, and metrics shrink well at any level.
fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;

    use super::*;

    struct Silent;

    impl Surface for Silent {
        fn openmetrics(&self) -> Result<String, std::fmt::Error> {
            Ok("# EOF\n".to_owned())
        }

        fn status(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn stories(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn network_health(&self) -> (bool, serde_json::Value) {
            (true, serde_json::Value::Null)
        }

        fn is_ready(&self) -> bool {
            true
        }

        fn is_healthy(&self) -> bool {
            true
        }
    }

    #[test]
    fn events_are_for_who_is_trusted() {
        let limits = Limits::default();
        let routes = Routes::new(Arc::new(Silent), "/metrics".to_owned(), &limits);
        let status = |path: &str, trusted| {
            let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
            let pulse = Arc::new(Pulse::new(limits.clone()));
            routes.respond(&request, None, trusted, pulse).status()
        };
        assert_eq!(status("/events", false), StatusCode::FORBIDDEN);
        assert_eq!(status("/events", true), StatusCode::NOT_FOUND);
        assert_eq!(status("/metrics", false), StatusCode::OK);
    }
}
