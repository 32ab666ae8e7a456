//! From a request to its answer. Pure but for asking the [`Surface`].

use std::{io::Write, sync::Arc, time::Instant};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body,
    header::{self, HeaderName, HeaderValue},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Surface,
    accept::{Format, negotiate_format, negotiate_gzip},
    deadline::Pulse,
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
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type,
            body: body.into(),
            extra: &[],
            scrape: None,
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
    pub(super) fn new(surface: Arc<dyn Surface>, telemetry_path: String, scrapes: usize) -> Self {
        Self {
            surface,
            telemetry_path,
            scrapes: Arc::new(Semaphore::new(scrapes)),
            complaints: Sparingly::default(),
        }
    }

    /// Answers one request. A HEAD request gets the answer of GET; the connection leaves the body
    /// out and keeps its length.
    ///
    /// With a `refusal` the request is not looked at any further.
    pub(super) fn respond<B: Body>(
        &self,
        request: &Request<B>,
        refusal: Option<Refusal>,
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
            self.route(request.uri().path(), request.headers())
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

    fn route(&self, path: &str, headers: &HeaderMap) -> Answer {
        match path {
            _ if path == self.telemetry_path => self.metrics(headers),
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
            _ => Answer::plain(
                StatusCode::NOT_FOUND,
                format!("not found; metrics are at {}\n", self.telemetry_path),
            ),
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
    } = answer;
    let wants_gzip =
        body.len() >= GZIP_FROM_BYTES && negotiate_gzip(&list(request, &header::ACCEPT_ENCODING));
    let (body, gzipped) = match wants_gzip.then(|| gzip(&body)) {
        Some(Ok(compressed)) => (compressed, true),
        _ => (body, false),
    };
    let mut response = Response::new(Reply::new(Bytes::from(body), scrape, pulse));
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
