//! TLS, passwords, headers and request rate over real loopback sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use netobs::web::{Limits, Options, Server, Surface, WebFile};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

struct Agent;

impl Surface for Agent {
    fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        Ok("# EOF\n".to_owned())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    fn stories(&self) -> serde_json::Value {
        serde_json::json!({"stories": []})
    }

    fn network_health(&self) -> (bool, serde_json::Value) {
        (true, serde_json::json!({}))
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn is_healthy(&self) -> bool {
        true
    }
}

/// Certificate authorities, and what they have signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, names: Vec<SanType>) -> Signed {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A folder with a server's certificate and a web configuration, and a server on it.
struct Running {
    folder: TempDir,
    authority: Authority,
    file: Arc<WebFile>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

impl Running {
    fn new(web: &str) -> Self {
        Self::limited(web, Limits::default())
    }

    fn limited(web: &str, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("one");
        write_server(folder.path(), &authority);
        fs::write(folder.path().join("clients.pem"), authority.pem()).unwrap();
        let path = folder.path().join("web.yml");
        fs::write(&path, web).unwrap();
        let file = Arc::new(WebFile::load(&path).unwrap());
        let options = Options {
            web_file: Some(Arc::clone(&file)),
            limits,
            ..Options::default()
        };
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], options).unwrap();
        let address = server.local_addrs()[0];
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let shutdown = async move {
                let _ = stopped.await;
            };
            runtime
                .unwrap()
                .block_on(server.serve(Arc::new(Agent), shutdown))
                .unwrap();
        });
        Self {
            folder,
            authority,
            file,
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream
    }

    /// Status and head of the answer to a request over plain HTTP.
    fn plain(&self, path: &str, headers: &str) -> (u16, String) {
        ask(self.connect(), path, headers).unwrap()
    }

    /// The same over TLS.
    fn tls(&self, client: ClientConfig, path: &str) -> io::Result<(u16, String)> {
        ask(self.tls_stream(client), path, "")
    }

    fn tls_stream(&self, client: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(client), name).unwrap();
        StreamOwned::new(session, self.connect())
    }

    fn write(&self, name: &str, text: &str) {
        // As a secret is changed in Kubernetes: in one step.
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.path().join(name)).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn write_server(folder: &Path, authority: &Authority) {
    let server = authority.sign(vec![dns("localhost")]);
    fs::write(folder.join("server.crt"), server.certificate).unwrap();
    fs::write(folder.join("server.key"), server.key).unwrap();
}

fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // A close without close_notify, after the answer.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(error),
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status
        .map(|status| (status, text))
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn client(
    trusted: &Authority,
    own: Option<&Signed>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn basic(user: &str, password: &str) -> String {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

fn users(cost: u32) -> String {
    let hash = bcrypt::hash("right", cost).unwrap();
    format!("basic_auth_users:\n  prometheus: {hash}\n")
}

#[test]
fn metrics_are_served_over_tls_and_not_in_clear() {
    let server = Running::new(TLS);
    let (status, text) = server
        .tls(client(&server.authority, None, BOTH), "/metrics")
        .unwrap();
    assert_eq!(status, 200);
    assert!(
        text.ends_with("# EOF\n") || text.contains("200 OK"),
        "{text}"
    );
    let in_clear = ask(server.connect(), "/metrics", "");
    assert!(in_clear.is_err(), "{in_clear:?}");
    let stranger = server.tls(client(&Authority::new("two"), None, BOTH), "/metrics");
    assert!(stranger.is_err(), "{stranger:?}");
}

#[test]
fn versions_outside_the_range_are_refused() {
    let server = Running::new(&format!("{TLS}  min_version: TLS13\n"));
    assert!(
        server
            .tls(client(&server.authority, None, &[&TLS12]), "/")
            .is_err()
    );
    assert!(
        server
            .tls(client(&server.authority, None, BOTH), "/")
            .is_ok()
    );
    let older = Running::new(&format!(
        "{TLS}  max_version: TLS12\n  cipher_suites: \
         [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n  curve_preferences: [CurveP384]\n"
    ));
    let mut stream = older.tls_stream(client(&older.authority, None, BOTH));
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let suite = stream.conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(
        suite,
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
    let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::secp384r1);
}

/// Each policy of `client_auth_type`, against no certificate, one of a stranger and one of ours.
#[test]
fn client_certificates_are_asked_for_as_configured() {
    let table = [
        ("NoClientCert", false, [true, true, true]),
        ("RequestClientCert", false, [true, true, true]),
        ("RequireAnyClientCert", false, [false, true, true]),
        ("VerifyClientCertIfGiven", true, [true, false, true]),
        ("RequireAndVerifyClientCert", true, [false, false, true]),
    ];
    for (policy, authorities, expected) in table {
        let ca = if authorities {
            "  client_ca_file: clients.pem\n"
        } else {
            ""
        };
        let server = Running::new(&format!("{TLS}  client_auth_type: {policy}\n{ca}"));
        let ours = server.authority.sign(vec![dns("prometheus.example")]);
        let strange = Authority::new("two").sign(vec![dns("prometheus.example")]);
        let passed = [None, Some(&strange), Some(&ours)].map(|own| {
            server
                .tls(client(&server.authority, own, BOTH), "/metrics")
                .is_ok()
        });
        assert_eq!(passed, expected, "{policy}");
    }
}

#[test]
fn only_named_clients_are_let_in() {
    let server = Running::new(&format!(
        "{TLS}  client_ca_file: clients.pem\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_allowed_sans: [prometheus.example, 'spiffe://example/prometheus', 192.0.2.7]\n"
    ));
    let table = [
        (dns("prometheus.example"), true),
        (dns("Prometheus.example"), false),
        (dns("other.prometheus.example"), false),
        (dns("*.example"), false),
        (
            SanType::URI("spiffe://example/prometheus".try_into().unwrap()),
            true,
        ),
        (
            SanType::URI("spiffe://example/other".try_into().unwrap()),
            false,
        ),
        (SanType::IpAddress("192.0.2.7".parse().unwrap()), true),
        (SanType::IpAddress("192.0.2.8".parse().unwrap()), false),
    ];
    for (name, passes) in table {
        let own = server.authority.sign(vec![name.clone()]);
        let answer = server.tls(client(&server.authority, Some(&own), BOTH), "/metrics");
        assert_eq!(answer.is_ok(), passes, "{name:?}: {answer:?}");
    }
}

#[test]
fn a_client_that_never_shakes_hands_is_dropped() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Running::limited(TLS, limits);
    let mut silent = server.connect();
    let start = Instant::now();
    let mut sink = Vec::new();
    let _ = silent.read_to_end(&mut sink);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(
        server
            .tls(client(&server.authority, None, BOTH), "/")
            .is_ok()
    );
}

/// Their time is not up before the test is over.
#[test]
fn clients_that_never_shake_hands_keep_nobody_out() {
    let limits = Limits {
        connections: 2,
        header_timeout: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = Running::limited(TLS, limits);
    let held: Vec<_> = [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"]
        .into_iter()
        .cycle()
        .take(20)
        .map(|part| {
            let mut stream = server.connect();
            stream.write_all(part).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        let answer = server.tls(client(&server.authority, None, BOTH), "/");
        assert!(answer.is_ok(), "{answer:?}");
    }
    drop(held);
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let server = Running::new(TLS);
    let asks = |trusted: &Authority| server.tls(client(trusted, None, BOTH), "/metrics").is_ok();
    assert!(asks(&server.authority));
    let next = Authority::new("next");
    let signed = next.sign(vec![dns("localhost")]);

    // Half of a change: a key that does not belong to the certificate.
    server.write("server.key", &signed.key);
    assert!(server.file.reload().is_err());
    assert!(asks(&server.authority));

    server.write("server.crt", &signed.certificate);
    let until = Instant::now() + Duration::from_secs(20);
    while !asks(&next) {
        assert!(Instant::now() < until, "the new certificate was not taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!asks(&server.authority));

    server.write("web.yml", "tls_server_config: [\n");
    assert!(server.file.reload().is_err());
    assert!(asks(&next));
}

#[test]
fn nothing_is_answered_without_the_right_password() {
    let server = Running::new(&users(4));
    for path in [
        "/metrics",
        "/status",
        "/",
        "/-/healthy",
        "/-/ready",
        "/nothing",
    ] {
        let (status, text) = server.plain(path, "");
        assert_eq!(status, 401, "{path}");
        assert!(
            text.to_ascii_lowercase()
                .contains("www-authenticate: basic\r\n"),
            "{text}"
        );
        assert!(!text.contains("# EOF"), "{text}");
        let (status, _) = server.plain(path, &basic("prometheus", "wrong"));
        assert_eq!(status, 401, "{path}");
        let (status, _) = server.plain(path, &basic("nobody", "right"));
        assert_eq!(status, 401, "{path}");
        let (status, _) = server.plain(path, &basic("prometheus", "right"));
        assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    for junk in [
        "Authorization: Basic !!!\r\n",
        "Authorization: Basic\r\n",
        "Authorization: Bearer cHJvbWV0aGV1czpyaWdodA==\r\n",
        "Authorization: Basic \r\n",
    ] {
        assert_eq!(server.plain("/metrics", junk).0, 401, "{junk}");
    }
}

/// With a hash that takes tens of milliseconds: the second request with the same password does
/// not pay for it again, and an unknown user waits as long as a known one.
#[test]
fn passwords_are_checked_once_and_users_cannot_be_told_apart() {
    let server = Running::new(&users(8));
    let timed = |user: &str, password: &str| {
        let start = Instant::now();
        let (status, _) = server.plain("/metrics", &basic(user, password));
        (status, start.elapsed())
    };
    // Tries with the rest after a check in between, so that only the check itself is timed.
    let fastest = |user: &str| {
        (0..4)
            .map(|n| {
                let (status, time) = timed(user, &format!("wrong {user} {n}"));
                assert_eq!(status, 401);
                std::thread::sleep(time * 5);
                time
            })
            .min()
            .unwrap()
    };
    let (known, unknown) = (fastest("prometheus"), fastest("nobody"));
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{known:?} against {unknown:?}");

    assert_eq!(timed("prometheus", "right").0, 200);
    let again = (0..5)
        .map(|_| timed("prometheus", "right").1)
        .min()
        .unwrap();
    assert!(again * 3 < known, "{again:?} against {known:?}");
}

/// A flood of guesses gets at most a fifth of one CPU, and those who are in stay in.
#[test]
fn a_flood_of_guesses_is_turned_away() {
    let server = Running::new(&users(9));
    assert_eq!(
        server.plain("/metrics", &basic("prometheus", "right")).0,
        200
    );
    let outcomes = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..40)
            .map(|n| {
                let server = &server;
                scope.spawn(move || server.plain("/", &basic("prometheus", &n.to_string())).0)
            })
            .collect();
        let start = Instant::now();
        assert_eq!(
            server.plain("/metrics", &basic("prometheus", "right")).0,
            200
        );
        assert!(start.elapsed() < Duration::from_secs(2));
        guesses
            .into_iter()
            .map(|guess| guess.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(
        outcomes.iter().all(|status| matches!(status, 401 | 503)),
        "{outcomes:?}"
    );
    assert!(outcomes.contains(&503), "{outcomes:?}");
}

#[test]
fn a_changed_password_locks_the_old_one_out() {
    let server = Running::new(&users(4));
    let asks = |password: &str| server.plain("/metrics", &basic("prometheus", password)).0;
    assert_eq!(asks("right"), 200);
    let hash = bcrypt::hash("new", 4).unwrap();
    server.write(
        "web.yml",
        &format!("basic_auth_users:\n  prometheus: {hash}\n"),
    );
    server.file.reload().unwrap();
    assert_eq!(asks("right"), 401);
    assert_eq!(asks("new"), 200);
}

#[test]
fn headers_and_rate_are_as_configured() {
    let server = Running::new(
        "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    \
         Strict-Transport-Security: max-age=60\nrate_limit:\n  interval: 1h\n  burst: 2\n",
    );
    for _ in 0..2 {
        let (status, text) = server.plain("/", "");
        assert_eq!(status, 200);
        let text = text.to_ascii_lowercase();
        assert!(text.contains("x-frame-options: deny\r\n"), "{text}");
        assert!(
            text.contains("strict-transport-security: max-age=60\r\n"),
            "{text}"
        );
    }
    assert_eq!(server.plain("/", "").0, 429);
    // A new state of the file is no new allowance.
    server.file.reload().unwrap();
    assert_eq!(server.plain("/", "").0, 429);
}
