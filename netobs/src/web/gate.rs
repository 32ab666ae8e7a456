//! Who gets in: TLS, request rate, passwords. What is behind it are the [`Routes`].

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Request, Response, StatusCode, body::Body};
use tokio::{net::TcpStream, sync::Mutex, time::sleep};
use tokio_rustls::server::TlsStream;

use super::{
    WebFile,
    auth::Verdict,
    deadline::Pulse,
    pressure::Pressure,
    rate::Bucket,
    reply::Reply,
    routes::{Refusal, Routes},
    share::Share,
    tls::shake_hands,
};

/// How often the first connection that waits for its handshake asks again.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(20);

/// The way in, shared by all connections.
pub(super) struct Gate {
    routes: Routes,
    web_file: Option<Arc<WebFile>>,
    /// Held by the connection that is next to begin its handshake; the others wait in their order.
    begins: Mutex<()>,
    handshakes: Bucket,
    handshaking: Share,
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
            begins: Mutex::new(()),
            handshakes: Bucket::new(Duration::from_secs(1) / per_second, per_second),
            handshaking: Share::new(),
        }
    }

    /// Opens a connection as the configuration now in force asks for; `None` when the client did
    /// not do its part.
    pub(super) async fn handshake(&self, stream: TcpStream, pressure: &Pressure) -> Option<Opened> {
        let tls = match &self.web_file {
            None => None,
            Some(file) => file.current().await.tls.clone(),
        };
        let Some(tls) = tls else {
            return Some(Opened::Plain(stream));
        };
        // Who says nothing takes nobody's place.
        pressure.unless_asked(stream.readable()).await?.ok()?;
        {
            let _next = self.begins.lock().await;
            while !self.handshakes.allows(Instant::now()) {
                sleep(HANDSHAKE_PAUSE).await;
            }
        }
        match shake_hands(tls, stream, &self.handshaking, pressure).await {
            Ok(stream) => Some(Opened::Tls(Box::new(stream))),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Answers one request, with an answer or with why there is none.
    pub(super) async fn respond<B: Body>(
        &self,
        request: &Request<B>,
        client: IpAddr,
        pulse: Arc<Pulse>,
    ) -> Response<Reply> {
        let local = client.to_canonical().is_loopback();
        let Some(file) = &self.web_file else {
            return self.routes.respond(request, None, local, pulse);
        };
        let active = file.current().await;
        // The order is the exporter-toolkit's: a password is not looked at beyond the rate.
        let refusal = match (&active.bucket, &active.users) {
            (Some(bucket), _) if !bucket.allows(Instant::now()) => Some(Refusal::TooOften),
            (_, Some(users)) => match file.checker.check(users, request.headers(), client).await {
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
