//! What an agent has recorded, by HTTP.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Method, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    cli::failure::UsageError,
    path::{Files, connect_to},
    recorder::Range,
    trace::Line,
};

/// How long connecting and each part of the answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of one line, and of an error's text.
const MOST_LINE: usize = 64 * 1024;
/// Where the certificates of the system are, on most distributions.
const SYSTEM_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A request for events.
pub(in crate::cli) struct Request {
    host: String,
    port: u16,
    tls: bool,
    target: String,
    authorization: Option<HeaderValue>,
    ca: Option<PathBuf>,
}

impl Request {
    /// For the events of `range` from the agent at `url`.
    pub(in crate::cli) fn new(
        url: &str,
        ca: Option<&Path>,
        range: Range,
    ) -> Result<Self, UsageError> {
        let wrong = |what: &str| UsageError(format!("--agent: {what}"));
        let expected = "expected a URL such as http://127.0.0.1:10977";
        let uri: Uri = url.parse().map_err(|_| wrong(expected))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong(expected)),
        };
        let host = uri.host().ok_or_else(|| wrong(expected))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authorization = authority.rsplit_once('@').map(|(user, _)| {
            let basic = base64::engine::general_purpose::STANDARD.encode(user);
            HeaderValue::try_from(format!("Basic {basic}"))
        });
        let mut authorization = authorization
            .transpose()
            .map_err(|_| wrong("the user name cannot be sent"))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let path = match uri.path() {
            "" | "/" => "/events",
            path => path,
        };
        let time = |ns: u64| Timestamp::from_nanosecond(ns.into()).ok();
        let bounds = [("since", range.since_ns), ("until", range.until_ns)];
        let query: Vec<String> = bounds
            .into_iter()
            .filter_map(|(name, ns)| Some(format!("{name}={}", time(ns?)?)))
            .collect();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            target: format!("{path}?{}", query.join("&")),
            authorization,
            ca: ca.map(Path::to_owned),
        })
    }

    /// Hands each line to `visit` until it has seen enough.
    pub(in crate::cli) fn lines(
        &self,
        visit: impl FnMut(Line) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the runtime")?;
        runtime.block_on(self.ask(visit))
    }

    async fn ask(
        &self,
        visit: impl FnMut(Line) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let failed = || format!("failed to connect to {}:{}", self.host, self.port);
        let stream = connect_to(&self.host, self.port, &Files::default(), PATIENCE)
            .await
            .with_context(failed)?;
        if !self.tls {
            return self.talk(stream, visit).await;
        }
        let connector = TlsConnector::from(Arc::new(self.tls_config()?));
        let name = ServerName::try_from(self.host.clone())
            .context("the agent's name is none that a certificate can have")?;
        let stream = timeout(PATIENCE, connector.connect(name, stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .and_then(|result| result)
            .with_context(failed)?;
        self.talk(stream, visit).await
    }

    fn tls_config(&self) -> anyhow::Result<ClientConfig> {
        let system = || SYSTEM_CA.iter().map(Path::new).find(|path| path.exists());
        let path = self
            .ca
            .as_deref()
            .or_else(system)
            .context("no certificates to check the agent's by; name a file with --agent-ca")?;
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("failed to read certificates from {}", path.display()))?;
        // A system's collection may hold some that are not understood.
        let (added, _) = roots.add_parsable_certificates(certificates);
        ensure!(added > 0, "no certificates in {}", path.display());
        Ok(
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        visit: impl FnMut(Line) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .context("failed to speak HTTP with the agent")?;
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(Method::GET)
            .uri(&self.target)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(
                header::USER_AGENT,
                concat!("netobs/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = timeout(PATIENCE, sender.send_request(request))
            .await
            .context("the agent does not answer")?
            .context("the agent's answer cannot be read")?;
        let status = answer.status();
        if status != StatusCode::OK {
            let text = Limited::new(answer.into_body(), MOST_LINE).collect().await;
            let text = text.map(|text| text.to_bytes()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let why = text.lines().next().unwrap_or_default();
            bail!("the agent answers {status}: {why}");
        }
        let result = read(answer.into_body(), visit).await;
        connection.abort();
        result
    }
}

async fn read(
    mut body: Incoming,
    mut visit: impl FnMut(Line) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = timeout(PATIENCE, body.frame())
        .await
        .context("the agent's answer does not go on")?
    {
        let frame = frame.context("the agent's answer was cut short")?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        rest.extend_from_slice(&data);
        let mut done = 0;
        while let Some(length) = rest
            .get(done..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = rest.get(done..done + length).unwrap_or_default();
            done += length + 1;
            let line =
                serde_json::from_slice(line).context("the agent sent a line that is no event")?;
            if visit(line)?.is_break() {
                return Ok(());
            }
        }
        rest.drain(..done);
        ensure!(rest.len() <= MOST_LINE, "the agent sent a line without end");
    }
    ensure!(rest.is_empty(), "the agent's answer was cut short");
    Ok(())
}
