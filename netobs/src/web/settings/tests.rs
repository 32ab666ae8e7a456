use std::path::Path;

use super::{file::Source, *};

const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK";

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Source {
        path: Path::new("/etc/netobs/web.yml"),
    }
    .settings(text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_full_file_is_read() {
    let settings = parse(&format!(
        "tls_server_config:
  cert_file: server.crt
  key_file: /run/secrets/server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example, 'spiffe://example/prometheus']
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  curve_preferences: [CurveP256, X25519]
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
    Content-Security-Policy: ''
basic_auth_users:
  prometheus: {HASH}
rate_limit:
  interval: 100ms
  burst: 20
"
    ))
    .unwrap();
    let tls = settings.tls.unwrap();
    assert_eq!(tls.cert_file, Path::new("/etc/netobs/server.crt"));
    assert_eq!(tls.key_file, Path::new("/run/secrets/server.key"));
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerify);
    assert_eq!(tls.client_allowed_sans.unwrap().len(), 2);
    assert!(tls.tls12 && tls.tls13 && !tls.prefer_server_suites);
    assert_eq!(tls.suites.unwrap().len(), 1);
    assert_eq!(tls.groups.unwrap()[0], NamedGroup::secp256r1);
    assert_eq!(settings.headers.len(), 1);
    assert_eq!(settings.users["prometheus"].cost, 4);
    assert_eq!(settings.rate.unwrap().burst, 20);
}

#[test]
fn an_empty_file_asks_for_nothing() {
    for text in ["", "# nothing yet\n", "---\n", "tls_server_config: {}\n"] {
        let settings = parse(text).unwrap();
        assert!(
            settings.tls.is_none() && settings.users.is_empty(),
            "{text:?}"
        );
    }
}

#[test]
fn what_is_unknown_or_wrong_is_refused_with_its_place() {
    let tls = "tls_server_config:\n  cert_file: a\n  key_file: b\n  ";
    let table = [
        ("basic_auth_user:\n  a: b\n".to_owned(), "web.yml:1:1: "),
        (format!("{tls}cert: x\n"), "web.yml:4:3: "),
        (
            format!("{tls}client_auth_type: Maybe\n"),
            "web.yml:4:21: tls_server_config.client_auth_type: expected NoClientCert",
        ),
        (
            format!("{tls}client_auth_type: VerifyClientCertIfGiven\n"),
            "client_ca_file",
        ),
        (format!("{tls}client_ca_file: c\n"), "set client_auth_type"),
        (format!("{tls}min_version: TLS10\n"), "not safe"),
        (
            format!("{tls}min_version: TLS13\n  max_version: TLS12\n"),
            "lower than min_version",
        ),
        (
            format!("{tls}cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n"),
            "supported are",
        ),
        (
            format!("{tls}curve_preferences: [CurveP521]\n"),
            "supported are X25519",
        ),
        (
            format!("{tls}client_allowed_sans: [x]\n"),
            "client_auth_type must be",
        ),
        (
            format!(
                "{tls}client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a@b.c]\n"
            ),
            "e-mail",
        ),
        (
            "tls_server_config:\n  cert_file: a\n".to_owned(),
            "key_file is missing",
        ),
        ("tls_server_config: 3\n".to_owned(), "web.yml:1:"),
        (
            "http_server_config:\n  headers:\n    Server: x\n".to_owned(),
            "\"Server\" cannot be set",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n".to_owned(),
            "deny or sameorigin",
        ),
        (
            "basic_auth_users:\n  a: secret\n".to_owned(),
            "not a bcrypt hash",
        ),
        (
            "rate_limit:\n  interval: soon\n  burst: 1\n".to_owned(),
            "such as 500ms",
        ),
        (
            "rate_limit:\n  interval: 1s\n".to_owned(),
            "burst is missing",
        ),
        ("rate_limit:\n  burst: -1\n".to_owned(), "web.yml:2:"),
        ("a: [\n".to_owned(), "web.yml:"),
        (
            "rate_limit: {interval: 0, burst: 1}\nrate_limit: {}\n".to_owned(),
            "web.yml:2:",
        ),
    ];
    for (text, part) in table {
        let message = refusal(&text);
        assert!(message.contains(part), "{text}\n-> {message}");
        assert!(message.starts_with("/etc/netobs/web.yml:"), "{message}");
        assert!(!message.contains('\n'), "{message:?}");
    }
}

#[test]
fn no_message_shows_a_password() {
    let costly = "$2y$31$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK";
    for secret in ["hunter2-hunter2", costly] {
        let message = refusal(&format!("basic_auth_users:\n  a: {secret}\n"));
        assert!(!message.contains(secret), "{message}");
    }
    let settings = parse(&format!("basic_auth_users:\n  a: {HASH}\n")).unwrap();
    assert!(!format!("{settings:?}").contains("2y$04"));
}

#[test]
fn a_rate_of_zero_is_no_limit() {
    assert!(
        parse("rate_limit: {interval: 0, burst: 1}\n")
            .unwrap()
            .rate
            .is_none()
    );
}
