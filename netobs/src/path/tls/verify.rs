//! A verifier that remembers: the chain, and why it is not trusted.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Roots, chain};
use crate::path::{cause::ErrorType, outcome::Certificate};

/// Verifies as ever, notes what it saw, and lets pass what it may.
pub(super) struct Recorder {
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    insecure: bool,
    seen: Mutex<Seen>,
}

type Seen = (Vec<Certificate>, Option<(ErrorType, String)>);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    pub(super) fn new(roots: &Roots, insecure: bool) -> Self {
        Self {
            provider: Arc::clone(&roots.provider),
            verifier: roots.verifier.clone(),
            insecure,
            seen: Mutex::default(),
        }
    }

    /// What was seen: the chain, and why it is not to be trusted.
    pub(super) fn take(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen)
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(own, others, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let certificates = chain::read(own, others);
        let why = verdict
            .as_ref()
            .err()
            .map(|error| self.explain(error, &certificates, name));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (certificates, why);
        match verdict {
            Err(_) if self.insecure => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, own, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, own, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl Recorder {
    /// Why a chain is not trusted: which cause, and in words.
    fn explain(
        &self,
        error: &Error,
        chain: &[Certificate],
        name: &ServerName<'_>,
    ) -> (ErrorType, String) {
        let own = chain.first();
        let subject = own.map_or("?", |it| it.subject.as_str());
        let Error::InvalidCertificate(error) = error else {
            return (ErrorType::BadCertificate, error.to_string());
        };
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let ended = chain.iter().min_by_key(|it| it.not_after_unix_seconds);
                let text = ended.map_or_else(
                    || "a certificate has expired".to_owned(),
                    |it| {
                        format!(
                            "the certificate of {} ended at {}",
                            it.subject, it.not_after
                        )
                    },
                );
                (ErrorType::CertificateExpired, text)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                ErrorType::CertificateNotYetValid,
                format!("a certificate of the chain of {subject} is not valid yet"),
            ),
            CertificateError::NotValidForName => (
                ErrorType::NameMismatch,
                format!("the certificate of {subject} is not for {}", name.to_str()),
            ),
            CertificateError::NotValidForNameContext { presented, .. } => (
                ErrorType::NameMismatch,
                format!(
                    "the certificate is for {}, not for {}",
                    names(presented),
                    name.to_str()
                ),
            ),
            CertificateError::UnknownIssuer | CertificateError::Other(_)
                if own.is_some_and(|own| own.subject == own.issuer) =>
            {
                let text = format!("the certificate of {subject} was issued by itself");
                (ErrorType::SelfSigned, text)
            }
            CertificateError::UnknownIssuer if self.verifier.is_none() => (
                ErrorType::UnknownIssuer,
                "this machine has no root certificates; SSL_CERT_FILE can name some".to_owned(),
            ),
            CertificateError::UnknownIssuer => {
                let issuer = chain.last().map_or("?", |it| it.issuer.as_str());
                let text = format!(
                    "{issuer}, who issued the last of the {} certificates sent, is not trusted \
                     here",
                    chain.len()
                );
                (ErrorType::UnknownIssuer, text)
            }
            error => (ErrorType::BadCertificate, error.to_string()),
        }
    }
}

/// The first few of a list that the server sent.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = presented
        .iter()
        .take(SHOWN)
        .map(|name| name.chars().take(100).collect::<String>())
        .map(|name| name.escape_debug().to_string())
        .collect();
    match (shown.is_empty(), presented.len().saturating_sub(SHOWN)) {
        (true, _) => "no name at all".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
