//! The TLS handshake of a probe: whole each time, never resumed, and the chain looked at whether or
//! not it can be trusted.

mod chain;
mod verify;

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::ServerName,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::debug;

use self::verify::Recorder;
use super::{
    cause::ErrorType,
    outcome::{Failure, Phase, Tls},
    target::Host,
};

/// The only protocol of the layer above that netobs speaks.
const ALPN: &[u8] = b"http/1.1";

/// The certificates that this machine trusts: those of `SSL_CERT_FILE` or `SSL_CERT_DIR` where set,
/// else the distribution's.
#[derive(Clone, Debug)]
pub struct Roots {
    provider: Arc<CryptoProvider>,
    /// `None` without a single root: then nothing is trusted.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Roots {
    /// Reads them. That there are none, or that some cannot be read, is told by what they would have
    /// verified.
    #[must_use]
    pub fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            debug!(%error, "a root certificate cannot be used");
        }
        let mut store = RootCertStore::empty();
        let (roots, unusable) = store.add_parsable_certificates(found.certs);
        debug!(roots, unusable, "read the root certificates");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        Self {
            verifier: verifier.build().ok(),
            provider,
        }
    }
}

/// Shakes hands on `stream`; what is learned stands in `tls`, also when it fails.
pub(super) async fn handshake(
    roots: &Roots,
    host: &Host,
    insecure: bool,
    http: bool,
    stream: TcpStream,
    tls: &mut Tls,
) -> Result<TlsStream<TcpStream>, Failure> {
    let recorder = Arc::new(Recorder::new(roots, insecure));
    let outcome = shake(roots, &recorder, host, http, stream).await;
    let (chain, error) = recorder.take();
    tls.verified = (!chain.is_empty()).then_some(error.is_none());
    tls.verification_error = error.as_ref().map(|(error_type, _)| *error_type);
    tls.expires_unix_seconds = chain.iter().map(|it| it.not_after_unix_seconds).min();
    tls.chain = chain;
    let failed = |error_type, message| Failure {
        phase: Phase::Tls,
        error_type,
        message,
    };
    match (outcome, error) {
        (Ok(stream), _) => {
            let (_, connection) = stream.get_ref();
            note(connection, tls);
            Ok(stream)
        }
        (Err(_), Some((error_type, message))) if !insecure => Err(failed(error_type, message)),
        (Err(error), _) => {
            let error_type = match rustls_error(&error) {
                Some(_) => ErrorType::TlsProtocol,
                None => ErrorType::of_io(&error),
            };
            Err(failed(error_type, words(&error)))
        }
    }
}

async fn shake(
    roots: &Roots,
    recorder: &Arc<Recorder>,
    host: &Host,
    http: bool,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = match host {
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(std::io::Error::other)?,
        Host::Address(address) => ServerName::IpAddress((*address).into()),
    };
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(recorder) as Arc<_>;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&roots.provider))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    if http {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn note(connection: &ClientConnection, tls: &mut Tls) {
    tls.version = connection.protocol_version().map(|version| match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "other",
    });
    tls.cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str());
    tls.alpn = connection
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
}

fn rustls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What went wrong, in the words of a sentence.
fn words(error: &std::io::Error) -> String {
    match rustls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the server ended the handshake with the alert {alert:?}")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "what the server sent is no TLS: does it speak it on this port?".to_owned()
        }
        Some(error) => error.to_string(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the handshake".to_owned()
        }
        None => error.to_string(),
    }
}
