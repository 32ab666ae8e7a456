//! Debian's Prometheus as a child process, with the rules of `deploy/`.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use testbed::wait_until;

use crate::{PATIENCE, queries::deploy};

/// A server that scrapes twice a second; killed on drop.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that keeps its data in `folder`.
    pub(crate) fn start(folder: &Path, target: SocketAddr) -> Self {
        Self::start_every(folder, target, "500ms")
    }

    /// Starts one that scrapes so often.
    pub(crate) fn start_every(folder: &Path, target: SocketAddr, interval: &str) -> Self {
        let rules = |name: &str| deploy("prometheus").join(name).display().to_string();
        let config = format!(
            "global: {{scrape_interval: {interval}, scrape_timeout: 500ms, evaluation_interval: 1s}}\n\
             rule_files: ['{}', '{}']\n\
             scrape_configs:\n  \
               - job_name: netobs\n    \
                 honor_labels: true\n    \
                 static_configs: [{{targets: ['{target}'], labels: {{pod: agent, namespace: agent}}}}]\n",
            rules("alerts.yml"),
            rules("recording.yml"),
        );
        let file = folder.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let address = free();
        let log = fs::File::create(folder.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, address };
        let ready = wait_until(PATIENCE, "Prometheus to be ready", || {
            Ok(server.request("GET", "/-/ready", "").is_some())
        });
        let said = || fs::read_to_string(folder.join("prometheus.log")).unwrap();
        assert!(ready.is_ok(), "{}", said());
        server
    }

    /// What an instant query returns, in a few words; `None` when there is no number.
    pub(crate) fn ask(&self, query: &str) -> Option<String> {
        let (series, greatest) = self.greatest(query)?;
        Some(format!("{series} series, greatest {greatest}"))
    }

    /// The greatest number that an instant query returns.
    pub(crate) fn number(&self, query: &str) -> Option<f64> {
        self.greatest(query).map(|(_, greatest)| greatest)
    }

    /// How many series, and the greatest number.
    fn greatest(&self, query: &str) -> Option<(usize, f64)> {
        let body = format!("query={}", escaped(query));
        let answer = self.request("POST", "/api/v1/query", &body)?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().unwrap();
        let numbers = result
            .iter()
            .filter_map(|sample| sample["value"][1].as_str()?.parse::<f64>().ok())
            .filter(|number| number.is_finite());
        let greatest = numbers.reduce(f64::max)?;
        Some((result.len(), greatest))
    }

    /// Waits until a query returns something.
    pub(crate) fn wait_for(&self, query: &str) {
        wait_until(PATIENCE, query, || Ok(self.ask(query).is_some())).unwrap();
    }

    /// The body of a good answer.
    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: test\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?;
        // A query that Prometheus cannot read is answered 400, with its complaint.
        (status == "200" || (status == "400" && !body.is_empty())).then(|| body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that was free a moment ago: Prometheus does not tell which port it got.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(byte.into());
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
    }
    out
}
