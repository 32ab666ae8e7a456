//! One request and its answer by HTTP/1.1, on a connection that is there already.
//!
//! The request is driven in place: no task is started, so dropping the future ends everything.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    cause::ErrorType,
    course::Course,
    outcome::{Failure, Http, Phase, Span, Step},
    plan::HttpOptions,
    stream::{Marks, Stream},
};

/// The largest head of an answer that is read. Servers' own limits are 8 to 64 KiB.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The most that is read before the head of the final answer is there: answers with a status of 1xx
/// may come before it, and hyper sets no limit to them.
const MAX_BYTES_BEFORE: u64 = 4 * MAX_HEAD_BYTES as u64;
/// The most header fields in it.
const MAX_HEADERS: usize = 256;
const USER_AGENT: &str = concat!("netobs/", env!("CARGO_PKG_VERSION"));

/// Until when the two phases may last; the second is counted from the first byte.
pub(super) struct Limits {
    pub(super) first_byte: Instant,
    pub(super) transfer: Option<std::time::Duration>,
}

/// Sends the request and reads the answer, into `step`.
pub(super) async fn exchange(
    course: &Course<'_>,
    options: &HttpOptions,
    url: &Url,
    own_headers: bool,
    (stream, marks): (Stream, Arc<Marks>),
    limits: &Limits,
    step: &mut Step,
) -> Result<(), Failure> {
    let http = step.http.insert(Http::default());
    let start = course.now();
    let result = send(
        course,
        options,
        url,
        own_headers,
        stream,
        &marks,
        limits,
        http,
    )
    .await;
    http.received_bytes = marks.received();
    let first = marks.first_byte();
    let first = first.map(|at| at.saturating_duration_since(course.started));
    step.phases.set(
        Phase::FirstByte,
        first.map_or_else(
            || course.span(start),
            |first| Span {
                start,
                length: first.saturating_sub(start),
            },
        ),
    );
    if let Some(first) = first {
        step.phases.set(Phase::Transfer, course.span(first));
    }
    result.map_err(|(error_type, message)| Failure {
        phase: if first.is_some() {
            Phase::Transfer
        } else {
            Phase::FirstByte
        },
        error_type,
        message,
    })
}

type Why = (ErrorType, String);

#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one request; a structure for one call would hide nothing"
)]
async fn send(
    course: &Course<'_>,
    options: &HttpOptions,
    url: &Url,
    own_headers: bool,
    stream: Stream,
    marks: &Marks,
    limits: &Limits,
    http: &mut Http,
) -> Result<(), Why> {
    let request = request(options, url, own_headers)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| why(&error))?;
    let headed = AtomicBool::new(false);
    let work = async {
        let response = sender.send_request(request);
        let response = response.await.map_err(|error| why(&error))?;
        headed.store(true, Ordering::Relaxed);
        note(&response, http);
        read(response.into_body(), options.body_limit, http).await
    };
    let mut work = pin!(drive(connection, work));
    // The limit of the second phase begins with the first byte, which only the connection sees.
    loop {
        let until = match (marks.first_byte(), limits.transfer) {
            (None, _) => limits.first_byte,
            (Some(first), Some(most)) => {
                let own = first.checked_add(most).unwrap_or(course.deadline);
                own.min(course.deadline)
            }
            (Some(_), None) => course.deadline,
        };
        let before = marks.first_byte();
        let arrived = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending
                if marks.received() > MAX_BYTES_BEFORE && !headed.load(Ordering::Relaxed) =>
            {
                let text = "answers with a status of 1xx came, and no end of them".to_owned();
                Poll::Ready(Some(Err((ErrorType::HeaderTooLarge, text))))
            }
            Poll::Pending if marks.first_byte() != before => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match timeout_at(until, arrived).await {
            Ok(Some(result)) => return result,
            Ok(None) => {}
            Err(_) if marks.first_byte() != before => {}
            Err(_) => {
                let received = marks.received();
                let text = match before {
                    None => "no byte of an answer came".to_owned(),
                    Some(_) => format!("{received} bytes came and the answer is not whole"),
                };
                return Err((ErrorType::TimedOut, text));
            }
        }
    }
}

/// Runs `work` with the connection that it needs; when the connection ends first, `work` learns it.
async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    work: impl Future<Output = T>,
) -> T {
    let mut connection = Some(Box::pin(connection));
    let mut work = pin!(work);
    poll_fn(move |cx| {
        let ended = connection
            .as_mut()
            .is_some_and(|connection| connection.as_mut().poll(cx).is_ready());
        if ended {
            connection = None; // Its end of the channel goes with it, which wakes `work`.
        }
        work.as_mut().poll(cx)
    })
    .await
}

fn request(
    options: &HttpOptions,
    url: &Url,
    own_headers: bool,
) -> Result<Request<Empty<Bytes>>, Why> {
    let refused = |error: &dyn std::fmt::Display| (ErrorType::Other, error.to_string());
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    let host = HeaderValue::from_str(&host).map_err(|error| refused(&error))?;
    headers.insert(header::HOST, host);
    if own_headers {
        for name in options.headers.keys() {
            headers.remove(name);
        }
        headers.extend(options.headers.clone());
    }
    let mut request = Request::builder()
        .method(options.method.clone())
        .uri(path)
        .body(Empty::new())
        .map_err(|error| refused(&error))?;
    *request.headers_mut() = headers;
    if matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    ) {
        let none = HeaderValue::from_static("0");
        request.headers_mut().insert(header::CONTENT_LENGTH, none);
    }
    Ok(request)
}

fn note(response: &Response<Incoming>, http: &mut Http) {
    http.status = Some(response.status().as_u16());
    http.version = Some(match response.version() {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    });
    let followed = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION);
    http.location = location
        .filter(|_| followed)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
}

async fn read(mut body: Incoming, limit: u64, http: &mut Http) -> Result<(), Why> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| why(&error))?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        http.body_bytes = http.body_bytes.saturating_add(length as u64);
        if http.body_bytes >= limit {
            http.body_cut = !body.is_end_stream();
            break;
        }
    }
    Ok(())
}

/// The cause and the words of an error of hyper's: those of the socket where it has one.
fn why(error: &hyper::Error) -> Why {
    if error.is_parse_too_large() {
        let text = format!("the head of the answer is larger than {MAX_HEAD_BYTES} bytes");
        return (ErrorType::HeaderTooLarge, text);
    }
    if error.is_parse() {
        return (
            ErrorType::BadResponse,
            "what came back is no HTTP".to_owned(),
        );
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match ErrorType::of_io(io) {
                ErrorType::Closed => closed(),
                error_type => (error_type, io.to_string()),
            };
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return closed();
    }
    (ErrorType::Other, error.to_string())
}

fn closed() -> Why {
    let text = "the server closed the connection before its answer was whole";
    (ErrorType::Closed, text.to_owned())
}
