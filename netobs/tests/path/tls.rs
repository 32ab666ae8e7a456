//! nginx with certificates of every sort.

use std::{fs, path::Path, process::Command, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use testbed::require;

use crate::support::{
    Net, Server, failed, measure, measure_with, serve_tcp, story, took, wait_listening,
};

const NAME: &str = "a.example";

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Certificates in a folder, each as `NAME.pem` with `NAME.key`, and the root that is trusted.
fn certificates(folder: &Path) {
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("test root"), key()).unwrap();
    let between = CertifiedIssuer::signed_by(authority("test between"), key(), &root).unwrap();
    fs::write(folder.join("roots.pem"), root.pem()).unwrap();
    let write = |name: &str, chain: &str, key: &KeyPair| {
        fs::write(folder.join(format!("{name}.pem")), chain).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    let own = key();
    let leaf = params(NAME).signed_by(&own, &between).unwrap();
    write("good", &(leaf.pem() + &between.pem()), &own);
    write("broken", &leaf.pem(), &own);
    let mut old = params(NAME);
    old.not_before = rcgen::date_time_ymd(2020, 1, 1);
    old.not_after = rcgen::date_time_ymd(2021, 2, 3);
    write("expired", &old.signed_by(&own, &root).unwrap().pem(), &own);
    let mut coming = params(NAME);
    coming.not_before = rcgen::date_time_ymd(2090, 1, 1);
    coming.not_after = rcgen::date_time_ymd(2091, 1, 1);
    write(
        "coming",
        &coming.signed_by(&own, &root).unwrap().pem(),
        &own,
    );
    let other = params("b.example").signed_by(&own, &root).unwrap();
    write("other", &other.pem(), &own);
    write("self", &params(NAME).self_signed(&own).unwrap().pem(), &own);
}

/// nginx with one port for each certificate, from 8001.
fn nginx(net: &Net, folder: &Path, certificates: &[&str]) -> Server {
    let mut servers = String::new();
    for (port, name) in (8001..).zip(certificates) {
        let folder = folder.display();
        servers += &format!(
            "server {{ listen {}:{port} ssl; ssl_certificate {folder}/{name}.pem; \
             ssl_protocols TLSv1.2 TLSv1.3; \
             ssl_certificate_key {folder}/{name}.key; location / {{ return 200 hello; }} }}\n",
            net.v4()
        );
    }
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log stderr crit;\n\
         events {{}} http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; \
         fastcgi_temp_path {0}; uwsgi_temp_path {0}; scgi_temp_path {0};\n{servers} }}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(folder);
    command.args(["-e", "stderr"]);
    let server = Server::start(&net.server, &mut command);
    wait_listening(&net.server, net.at(8001));
    server
}

fn trusting(net: &Net, folder: &Path, args: &[&str]) -> Value {
    let given = format!("{NAME}={}", net.v4());
    let args: Vec<&str> = args.iter().copied().chain(["--resolve", &given]).collect();
    measure_with(&net.client, &args, |command| {
        command.env("SSL_CERT_FILE", folder.join("roots.pem"));
        command.env_remove("SSL_CERT_DIR");
    })
}

#[test]
fn every_reason_not_to_trust_a_certificate_is_told_apart() {
    require!(require::root(), require::command("nginx"));
    let net = Net::new("tls");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    let all = ["good", "broken", "expired", "coming", "other", "self"];
    let _nginx = nginx(&net, folder, &all);
    let url = |port: u16| format!("https://{NAME}:{port}/");

    let line = trusting(&net, folder, &[&url(8001)]);
    assert_eq!(line["success"], true, "{line:#}");
    let tls = &line["steps"][0]["tls"];
    assert_eq!(tls["version"], "TLSv1.3");
    assert_eq!(tls["alpn"], "http/1.1");
    assert_eq!(tls["verified"], true);
    assert_eq!(tls["chain"].as_array().unwrap().len(), 2);
    assert_eq!(line["steps"][0]["http"]["body_bytes"], 5);
    for phase in ["connect", "tls", "first_byte", "transfer"] {
        assert!(line["phases"][phase].as_f64().unwrap() > 0.0, "{line:#}");
    }

    let causes = [
        (8002, "unknown_issuer", "test between"),
        (8003, "certificate_expired", "2021-02-03"),
        (8004, "certificate_not_yet_valid", "not valid yet"),
        (8005, "name_mismatch", "b.example"),
        (8006, "self_signed", "issued by itself"),
    ];
    for (port, error_type, words) in causes {
        let line = trusting(&net, folder, &[&url(port)]);
        failed(&line, "tls", error_type);
        assert!(story(&line).contains(words), "{line:#}");
        let line = trusting(&net, folder, &[&url(port), "--insecure"]);
        assert_eq!(line["success"], true, "{line:#}");
        assert_eq!(line["steps"][0]["tls"]["verification_error"], error_type);
        assert!(story(&line).contains("not to be trusted"), "{line:#}");
    }

    let handshake = trusting(&net, folder, &[&format!("tls:{NAME}:8001")]);
    assert_eq!(handshake["success"], true, "{handshake:#}");
    assert!(handshake["phases"]["first_byte"].is_null());
}

#[test]
fn handshakes_that_do_not_come_about() {
    require!(require::root());
    let net = Net::new("notls");
    let (plain, _plain) = serve_tcp(&net.server, net.at(0), |mut stream, _| {
        use std::io::Write;
        let _ = stream.write_all(b"220 hello, who is there?\r\n");
        std::thread::sleep(Duration::from_millis(100));
    });
    let line = measure(&net.client, &[&format!("https://{plain}/")]);
    failed(&line, "tls", "tls_protocol");
    assert!(story(&line).contains("no TLS"), "{line:#}");

    let (silent, _silent) = serve_tcp(&net.server, net.at(0), |_stream, stop| {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let line = measure(
        &net.client,
        &[&format!("https://{silent}/"), "--timeout", "1s"],
    );
    failed(&line, "tls", "timed_out");
    took(&line, "tls", 1.0);

    // The beginning of a record of 16 KiB, a byte at a time.
    let (slow, _slow) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        use std::io::Write;
        let head = [22, 3, 3, 0x40, 0].into_iter();
        for byte in head.chain(std::iter::repeat(0)) {
            if stop.load(std::sync::atomic::Ordering::Relaxed) || stream.write_all(&[byte]).is_err()
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let url = format!("https://{slow}/");
    let line = measure(&net.client, &[&url, "--timeout", "1s"]);
    failed(&line, "tls", "timed_out");
    took(&line, "tls", 1.0);

    let (closing, _closing) = serve_tcp(&net.server, net.at(0), |mut stream, _| {
        let mut hello = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut hello);
    });
    let line = measure(&net.client, &[&format!("https://{closing}/")]);
    failed(&line, "tls", "closed");
}
