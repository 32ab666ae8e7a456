//! Who gets in: TLS, request rate, passwords. What is behind it are the [`Routes`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Request, Response, StatusCode, body::Body};
use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    WebFile,
    auth::Verdict,
    deadline::Pulse,
    rate::Bucket,
    reply::Reply,
    routes::{Refusal, Routes},
};

/// How often a connection that waits for its handshake asks again.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(20);

/// The way in, shared by all connections.
pub(super) struct Gate {
    routes: Routes,
    web_file: Option<Arc<WebFile>>,
    handshakes: Bucket,
}

/// A connection that may send requests.
pub(super) enum Opened {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Gate {
    pub(super) fn new(
        routes: Routes,
        web_file: Option<Arc<WebFile>>,
        handshakes_per_second: u32,
    ) -> Self {
        let per_second = handshakes_per_second.max(1);
        Self {
            routes,
            web_file,
            handshakes: Bucket::new(Duration::from_secs(1) / per_second, per_second),
        }
    }

    /// Opens a connection as the configuration now in force asks for; `None` when the client did
    /// not do its part.
    pub(super) async fn handshake(&self, stream: TcpStream) -> Option<Opened> {
        let tls = match &self.web_file {
            None => None,
            Some(file) => file.current().await.tls.clone(),
        };
        let Some(tls) = tls else {
            return Some(Opened::Plain(stream));
        };
        while !self.handshakes.allows(Instant::now()) {
            sleep(HANDSHAKE_PAUSE).await;
        }
        match TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => Some(Opened::Tls(Box::new(stream))),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Answers one request, with an answer or with why there is none. `local` says whether the client
    /// is on this machine.
    pub(super) async fn respond<B: Body>(
        &self,
        request: &Request<B>,
        local: bool,
        pulse: Arc<Pulse>,
    ) -> Response<Reply> {
        let Some(file) = &self.web_file else {
            return self.routes.respond(request, None, local, pulse);
        };
        let active = file.current().await;
        // The order is the exporter-toolkit's: a password is not looked at beyond the rate.
        let refusal = match (&active.bucket, &active.users) {
            (Some(bucket), _) if !bucket.allows(Instant::now()) => Some(Refusal::TooOften),
            (_, Some(users)) => match file.checker.check(users, request.headers()).await {
                Verdict::Granted => None,
                Verdict::Denied => Some(Refusal::Unauthorized),
                Verdict::Busy => Some(Refusal::Busy),
            },
            _ => None,
        };
        let mut response =
            self.routes
                .respond(request, refusal, local || active.users.is_some(), pulse);
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            for (name, value) in &active.headers {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}
