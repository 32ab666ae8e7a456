//! Where the API server is, and what it takes to be let in: as a pod is told.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::client::PATIENCE;
use crate::names::{Connect, Error};
use crate::path::{Files, connect_to};

/// Where the kubelet puts what a pod's service account needs.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Larger than any token or bundle of authorities.
const FILE_LIMIT: u64 = 1 << 20;

/// The API server, and the node whose pods are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    host: String,
    port: u16,
    authority: PathBuf,
    token: PathBuf,
    node: String,
}

impl Access {
    /// As the environment of a pod tells: `KUBERNETES_SERVICE_HOST` and `_PORT`, and the files of
    /// its service account. `node` is the name of the pod's node.
    ///
    /// # Errors
    /// When it does not, or a value cannot be used.
    pub fn of_pod(node: &str) -> Result<Self, Error> {
        Self::from_variables(node, |name| std::env::var(name).ok())
    }

    fn from_variables(
        node: &str,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, Error> {
        let get = |name: &'static str| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.ok_or(Error::Environment { variable: name })
        };
        let host = get("KUBERNETES_SERVICE_HOST")?;
        let port = get("KUBERNETES_SERVICE_PORT")?;
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(setting("KUBERNETES_SERVICE_HOST", host));
        }
        // It becomes a part of a query.
        let named = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if node.is_empty() || node.len() > 253 || !node.bytes().all(named) {
            return Err(setting("the node's name", node.to_owned()));
        }
        Ok(Self {
            port: port
                .parse()
                .map_err(|_| setting("KUBERNETES_SERVICE_PORT", port))?,
            host,
            authority: Path::new(ACCOUNT).join("ca.crt"),
            token: Path::new(ACCOUNT).join("token"),
            node: node.to_owned(),
        })
    }

    /// The files that are read again at each connection: the token is replaced every hour.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        vec![self.authority.clone(), self.token.clone()]
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// As in a URL.
    pub(super) fn authority_of_url(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The token, without what an editor may have left at its end.
    pub(super) fn token(&self) -> Result<String, Error> {
        let token = read(&self.token)?;
        Ok(String::from_utf8_lossy(token.trim_ascii()).into_owned())
    }

    fn tls(&self) -> Result<TlsConnector, Error> {
        let pem = read(&self.authority)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
            // One of several that is beyond what the library takes spoils no other.
            let _ = roots.add(certificate);
        }
        let unusable = || Error::Authority {
            path: self.authority.clone(),
        };
        if roots.is_empty() {
            return Err(unusable());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| unusable())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Connect for Access {
    type Io = TlsStream<TcpStream>;

    async fn connect(&self) -> Result<Self::Io, Error> {
        let failed = |source| Error::Connect {
            to: self.authority_of_url(),
            source,
        };
        let tls = self.tls()?;
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| setting("KUBERNETES_SERVICE_HOST", self.host.clone()))?;
        let tcp = connect_to(&self.host, self.port, &Files::default(), PATIENCE)
            .await
            .map_err(failed)?;
        tls.connect(name, tcp).await.map_err(failed)
    }
}

fn setting(what: &'static str, value: String) -> Error {
    Error::Setting { what, value }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes))
        .map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(host: &str, port: &str, node: &str) -> Result<Access, Error> {
        Access::from_variables(node, |name| {
            let value = if name.ends_with("HOST") { host } else { port };
            Some(value.to_owned())
        })
    }

    #[test]
    fn a_pods_environment_says_where() {
        let url = |host| {
            access(host, "443", "node-1.example")
                .unwrap()
                .authority_of_url()
        };
        assert_eq!(url("10.96.0.1"), "10.96.0.1:443");
        assert_eq!(url("fd00::1"), "[fd00::1]:443");
        assert_eq!(url("api.example"), "api.example:443");
    }

    #[test]
    fn what_cannot_be_used_is_said_at_once() {
        let why = |host, port, node| access(host, port, node).unwrap_err().to_string();
        assert_eq!(
            why("", "443", "node"),
            "KUBERNETES_SERVICE_HOST is not set: not in a pod?"
        );
        assert_eq!(
            why("a b", "443", "node"),
            "KUBERNETES_SERVICE_HOST cannot be used: \"a b\""
        );
        assert!(why("10.0.0.1", "70000", "node").contains("PORT"));
        for node in ["", "a&b", "A", &"x".repeat(254)] {
            assert!(
                why("10.0.0.1", "443", node).contains("the node's name"),
                "{node}"
            );
        }
    }

    #[test]
    fn files_are_read_anew_and_named_in_messages() {
        let dir = tempfile::tempdir().unwrap();
        let mut access = access("10.0.0.1", "443", "node").unwrap();
        access.token = dir.path().join("token");
        access.authority = dir.path().join("ca.crt");
        assert!(access.token().unwrap_err().to_string().contains("token"));
        std::fs::write(&access.token, "one\n").unwrap();
        assert_eq!(access.token().unwrap(), "one");
        std::fs::write(&access.token, "two").unwrap();
        assert_eq!(access.token().unwrap(), "two");
        std::fs::write(&access.authority, "none").unwrap();
        let Err(error) = access.tls() else { panic!() };
        assert!(error.to_string().contains("no usable certificate"));
    }
}
