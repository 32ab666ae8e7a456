//! Which clients' certificates are taken.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, IpAddr, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::EndEntityCert;

/// A policy of Go's `ClientAuthType`, and the names that are let in.
pub(super) struct Verifier {
    /// Checks the chain; without it any certificate passes whose key the client has.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    names: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        chain: Option<Arc<dyn ClientCertVerifier>>,
        mandatory: bool,
        names: Option<Vec<String>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            chain,
            mandatory,
            names,
            algorithms,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// Whether one of the certificate's names is, letter by letter, one of `allowed`.
fn carries(certificate: &CertificateDer<'_>, allowed: &[String]) -> Result<bool, Error> {
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let among = |name: &str| allowed.iter().any(|allowed| allowed == name);
    let address = |name: &String| {
        name.parse::<std::net::IpAddr>().is_ok_and(|address| {
            let name = ServerName::IpAddress(IpAddr::from(address));
            certificate.verify_is_valid_for_subject_name(&name).is_ok()
        })
    };
    Ok(certificate.valid_dns_names().any(among)
        || certificate.valid_uri_names().any(among)
        || allowed.iter().any(address))
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain
            .as_ref()
            .map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        match &self.names {
            Some(allowed) if !carries(end_entity, allowed)? => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
