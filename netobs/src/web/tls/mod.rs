//! From settings to a TLS server.

mod client;
mod handshake;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use self::client::Verifier;
pub(super) use self::handshake::shake_hands;
use super::{
    SettingsError,
    settings::{ClientAuth, Tls, bytes},
};

/// Larger than any chain or bundle of authorities.
const LIMIT_BYTES: u64 = 4 << 20;
/// Certificates in a chain that is sent to clients.
const CHAIN: usize = 16;

/// Reads the files that `tls` names, and makes a server of them. `settings` is for messages.
pub(super) fn server(tls: &Tls, settings: &Path) -> Result<Arc<ServerConfig>, SettingsError> {
    let unusable = |source| SettingsError::Tls {
        path: settings.to_owned(),
        source,
    };
    let provider = Arc::new(provider(tls));
    let versions: Vec<_> = [(tls.tls13, &TLS13), (tls.tls12, &TLS12)]
        .into_iter()
        .filter_map(|(wanted, version)| wanted.then_some(version))
        .collect();
    let chain = certificates("cert_file", &tls.cert_file)?;
    if chain.len() > CHAIN {
        let message = format!("more than {CHAIN} certificates in a chain");
        return Err(pem("cert_file", &tls.cert_file, message));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes("key_file", &tls.key_file, LIMIT_BYTES)?)
        .map_err(|_| pem("key_file", &tls.key_file, "no private key in PEM form"))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(unusable)?;
    let builder = match client_verifier(tls, &provider)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(unusable)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.ignore_client_order = tls.prefer_server_suites;
    Ok(Arc::new(server))
}

fn provider(tls: &Tls) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if let Some(wanted) = &tls.suites {
        let all = std::mem::take(&mut provider.cipher_suites);
        // The suites of TLS 1.3 cannot be chosen, as in Go.
        let (tls13, tls12): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_3);
        provider.cipher_suites = tls13;
        provider.cipher_suites.extend(
            wanted
                .iter()
                .filter_map(|name| tls12.iter().find(|suite| suite.suite() == *name)),
        );
    }
    if let Some(wanted) = &tls.groups {
        let all = std::mem::take(&mut provider.kx_groups);
        provider.kx_groups = wanted
            .iter()
            .filter_map(|name| all.iter().copied().find(|group| group.name() == *name))
            .collect();
    }
    provider
}

fn client_verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, SettingsError> {
    if tls.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let chain = match &tls.client_ca_file {
        Some(path) if tls.client_auth.is_verified() => Some(authorities(path, provider)?),
        _ => None,
    };
    Ok(Some(Arc::new(Verifier::new(
        chain,
        tls.client_auth.is_mandatory(),
        tls.client_allowed_sans.clone(),
        provider.signature_verification_algorithms,
    ))))
}

fn authorities(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, SettingsError> {
    const WHAT: &str = "client_ca_file";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(WHAT, path)? {
        roots
            .add(certificate)
            .map_err(|error| pem(WHAT, path, error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| pem(WHAT, path, error.to_string()))
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes(what, path, LIMIT_BYTES)?)
        .collect::<Result<_, _>>()
        .map_err(|_| pem(what, path, "not in PEM form"))?;
    if certificates.is_empty() {
        return Err(pem(what, path, "no certificate in PEM form"));
    }
    Ok(certificates)
}

fn pem(what: &'static str, path: &Path, message: impl Into<String>) -> SettingsError {
    SettingsError::Pem {
        what,
        path: path.to_owned(),
        message: message.into(),
    }
}

/// The files whose change asks for a new server.
pub(super) fn files(tls: &Tls) -> impl Iterator<Item = &PathBuf> {
    [&tls.cert_file, &tls.key_file]
        .into_iter()
        .chain(&tls.client_ca_file)
}
