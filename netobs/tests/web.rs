//! The HTTP surface over real loopback sockets, spoken to in raw bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use netobs::web::{EventLines, Limits, NoEvents, Options, Server, Surface, text004};
use tokio::sync::oneshot;

const OPENMETRICS: &str = "\
# HELP netobs_tcp_resets Resets \"seen\".
# TYPE netobs_tcp_resets counter
netobs_tcp_resets_total{process=\"a # {b=\\\"1\\\"} 2\"} 5 # {id=\"9\"} 1.0
# HELP netobs_build Build.
# TYPE netobs_build info
netobs_build_info{version=\"0.1.0\"} 1
# HELP netobs_latency_seconds Latency.
# TYPE netobs_latency_seconds histogram
# UNIT netobs_latency_seconds seconds
netobs_latency_seconds_sum 0.5
netobs_latency_seconds_count 2
netobs_latency_seconds_bucket{le=\"0.1\"} 1 # {id=\"7\"} 0.05
netobs_latency_seconds_bucket{le=\"+Inf\"} 2
# HELP netobs_queue_length Length.
# TYPE netobs_queue_length gauge
netobs_queue_length{netns=\"4026531840\"} 3
# EOF
";

struct Agent {
    metrics: Result<String, std::fmt::Error>,
    well: AtomicBool,
}

impl Agent {
    fn new(metrics: &str) -> Arc<Self> {
        Arc::new(Self {
            metrics: Ok(metrics.to_owned()),
            well: AtomicBool::new(true),
        })
    }
}

impl Surface for Agent {
    fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        self.metrics.clone()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"probes": {"tcp_retransmit": "active"}})
    }

    fn stories(&self) -> serde_json::Value {
        serde_json::json!({"stories": []})
    }

    fn events(&self, since: Option<&str>, until: Option<&str>) -> Result<EventLines, NoEvents> {
        match (since, until) {
            (None, None) => Err(NoEvents::Off),
            (Some("14:25"), Some("+1")) => {
                Ok(Box::new((0..20_000).map(|n| format!("{{\"number\":{n}}}"))))
            }
            _ => Err(NoEvents::Time("since: no time".to_owned())),
        }
    }

    fn network_health(&self) -> (bool, serde_json::Value) {
        let well = self.well.load(Ordering::Relaxed);
        (
            well,
            serde_json::json!({"status": if well { "healthy" } else { "degraded" }}),
        )
    }

    fn is_ready(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    fn is_healthy(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }
}

/// A server on its own single-threaded runtime, stopped and joined on drop.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn new(surface: Arc<dyn Surface>, options: Options) -> Self {
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
                .block_on(server.serve(surface, shutdown))
                .unwrap();
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn plain() -> Self {
        Self::new(Agent::new(OPENMETRICS), Options::default())
    }

    fn limited(metrics: &str, limits: Limits) -> Self {
        Self::new(
            Agent::new(metrics),
            Options {
                limits,
                ..Options::default()
            },
        )
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// Sends `request` as it is and reads until the server closes.
    fn exchange(&self, request: &str) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        Answer::parse(&self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        )))
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(raw: &[u8]) -> Self {
        let end = raw
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: raw[end..].to_vec(),
        }
    }

    /// The next answer on a connection that stays open.
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            raw.extend(byte);
        }
        let mut answer = Self::parse(&raw);
        let length = answer
            .header("content-length")
            .map_or(0, |value| value.parse().unwrap());
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Whether the server closes `stream` before its own read timeout, and how long that took.
fn time_to_close(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut sink = Vec::new();
    match stream.read_to_end(&mut sink) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server left the connection open: {error}"),
    }
    start.elapsed()
}

#[test]
fn metrics_come_in_both_formats() {
    let server = Running::plain();
    let text = server.get("/metrics", "");
    assert_eq!(text.status, 200);
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(text.header("vary"), Some("Accept, Accept-Encoding"));
    assert_eq!(text.text(), text004::rewrite(OPENMETRICS));
    let open = server.get("/metrics?x=1", "Accept: application/openmetrics-text\r\n");
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(open.text(), OPENMETRICS);
    // A list may come in several fields.
    let split = server.get(
        "/metrics",
        "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n",
    );
    assert_eq!(split.text(), OPENMETRICS);
}

#[test]
fn pages_and_their_headers() {
    let server = Running::plain();
    let table = [
        (
            "/",
            200,
            "text/html; charset=utf-8",
            "<a href=\"/metrics\">",
        ),
        ("/-/healthy", 200, "text/plain; charset=utf-8", "healthy\n"),
        ("/-/ready", 200, "text/plain; charset=utf-8", "ready\n"),
        ("/status", 200, "application/json", "{\n  \"probes\": {\n"),
        ("/health/network", 200, "application/json", "\"healthy\""),
        (
            "/nothing",
            404,
            "text/plain; charset=utf-8",
            "metrics are at /metrics",
        ),
        (
            "//metrics",
            404,
            "text/plain; charset=utf-8",
            "metrics are at /metrics",
        ),
        (
            "/metrics/",
            404,
            "text/plain; charset=utf-8",
            "metrics are at /metrics",
        ),
        (
            "/../etc/passwd",
            404,
            "text/plain; charset=utf-8",
            "metrics are at /metrics",
        ),
    ];
    for (path, status, content_type, part) in table {
        let answer = server.get(path, "");
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.text().contains(part), "{path}: {}", answer.text());
    }
    assert!(
        server
            .get("/", "")
            .header("content-security-policy")
            .is_some()
    );
}

#[test]
fn an_agent_that_is_not_well_says_so() {
    let agent = Agent::new(OPENMETRICS);
    agent.well.store(false, Ordering::Relaxed);
    let server = Running::new(agent, Options::default());
    for path in ["/-/ready", "/-/healthy"] {
        let answer = server.get(path, "");
        assert_eq!(answer.status, 503);
        assert!(answer.text().starts_with("not "), "{}", answer.text());
    }
}

#[test]
fn metrics_that_cannot_be_encoded_are_an_error() {
    let agent = Arc::new(Agent {
        metrics: Err(std::fmt::Error),
        well: AtomicBool::new(true),
    });
    let answer = Running::new(agent, Options::default()).get("/metrics", "");
    assert_eq!(answer.status, 500);
}

#[test]
fn the_telemetry_path_can_be_the_root() {
    let options = Options {
        telemetry_path: "/".to_owned(),
        ..Options::default()
    };
    let server = Running::new(Agent::new(OPENMETRICS), options);
    assert!(
        server
            .get("/", "")
            .text()
            .contains("netobs_tcp_resets_total")
    );
}

#[test]
fn head_is_get_without_the_body() {
    let server = Running::plain();
    let mut stream = server.connect();
    stream
        .write_all(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        raw.extend(byte);
    }
    let head = Answer::parse(&raw);
    assert_eq!(head.status, 200);
    let length = text004::rewrite(OPENMETRICS).len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    // No body came: the next bytes are the next answer.
    stream
        .write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().text(), "ready\n");
}

#[test]
fn other_methods_and_bodies_are_refused() {
    let server = Running::plain();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let answer = Answer::parse(&server.exchange(&format!(
            "{method} /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )));
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
    }
    for framing in ["Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"] {
        let answer = Answer::parse(&server.exchange(&format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\n{framing}\r\n"
        )));
        assert_eq!(answer.status, 413, "{framing}");
        assert_eq!(answer.header("connection"), Some("close"), "{framing}");
    }
}

#[test]
fn gzip_when_asked_for_and_worth_it() {
    let mut metrics = String::from("# TYPE a gauge\n");
    for series in 0..500 {
        writeln!(metrics, "a{{series=\"{series}\"}} 1").unwrap();
    }
    let server = Running::limited(&metrics, Limits::default());
    let answer = server.get("/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(
        answer.header("content-length").unwrap(),
        answer.body.len().to_string()
    );
    assert!(answer.body.len() < metrics.len() / 3);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice())
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, metrics);
    assert_eq!(server.get("/metrics", "").text(), metrics);
    assert_eq!(
        server
            .get("/metrics", "Accept-Encoding: gzip;q=0\r\n")
            .text(),
        metrics
    );
    assert_eq!(
        server.get("/-/ready", "Accept-Encoding: gzip\r\n").text(),
        "ready\n"
    );
}

#[test]
fn a_connection_serves_many_requests_and_pipelines() {
    let server = Running::plain();
    let mut stream = server.connect();
    for _ in 0..3 {
        stream
            .write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().text(), "ready\n");
    }
    let pipeline = "GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50)
        + "GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(pipeline.as_bytes()).unwrap();
    for _ in 0..50 {
        assert_eq!(Answer::read(&mut stream).unwrap().text(), "ready\n");
    }
    assert_eq!(Answer::read(&mut stream).unwrap().text(), "healthy\n");
    time_to_close(&mut stream);
}

#[test]
fn malformed_requests_get_an_error_and_the_door() {
    let server = Running::plain();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(9_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
    let table = [
        "\r\n\r\n\r\nnonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}",
        &long_target,
        &long_header,
        &many_headers,
    ];
    for request in table {
        let mut stream = server.connect();
        // The server may close before it has taken all of it.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let shown: String = request.chars().take(40).collect();
        assert!(
            answer.starts_with(b"HTTP/1.1 4") || answer.is_empty(),
            "{shown:?}: {answer:?}"
        );
    }
    assert_eq!(server.get("/-/ready", "").status, 200);
}

#[test]
fn dripping_headers_do_not_hold_a_connection() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Running::limited(OPENMETRICS, limits);
    // Nothing at all, half a head, and a head that never ends.
    assert!(time_to_close(&mut server.connect()) < Duration::from_secs(5));
    let mut half = server.connect();
    half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    assert!(time_to_close(&mut half) < Duration::from_secs(5));
    let mut dripping = server.connect();
    let start = Instant::now();
    dripping.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    while dripping.write_all(b"X: y\r\n").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "still open");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A later request on the same connection has the same time for its headers.
    let mut later = server.connect();
    later
        .write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    Answer::read(&mut later).unwrap();
    later.write_all(b"G").unwrap();
    assert!(time_to_close(&mut later) < Duration::from_secs(5));
}

#[test]
fn an_idle_connection_is_closed() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Running::limited(OPENMETRICS, limits);
    for request in [
        "GET /metrics HTTP/1.1\r\n\r\n",
        "HEAD /metrics HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        assert!(
            time_to_close(&mut stream) < Duration::from_secs(5),
            "{request}"
        );
    }
}

/// More than a loopback connection buffers, so that the answer cannot leave unread.
fn large_metrics() -> String {
    format!(
        "# TYPE a gauge\na{{l=\"{}\"}} 1\n# EOF\n",
        "x".repeat(32 << 20)
    )
}

#[test]
fn a_slow_reader_loses_its_connection_and_blocks_nobody() {
    let limits = Limits {
        scrapes: 1,
        answer_timeout: Duration::from_millis(600),
        ..Limits::default()
    };
    let server = Running::limited(&large_metrics(), limits);
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut first = [0];
    slow.read_exact(&mut first).unwrap();
    // The one scrape is taken; everything else is still answered.
    let refused = server.get("/metrics", "");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.get("/-/healthy", "").status, 200);
    // The slot comes back without the slow reader's help.
    let start = Instant::now();
    while server.get("/metrics", "").status != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the slot never came back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.len() < 32 << 20, "the slow reader got it all");
}

#[test]
fn beyond_the_connection_limit_who_keeps_the_server_waiting_gives_way() {
    let limits = Limits {
        connections: 2,
        header_timeout: Duration::from_secs(3600),
        idle_timeout: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = Running::limited(OPENMETRICS, limits);
    let mut idle = server.connect();
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    Answer::read(&mut idle).unwrap();
    let mut busy = server.connect();
    busy.write_all(b"GET /-/ready HTTP/1.1\r\n").unwrap();
    // Between two requests: that one goes first.
    assert_eq!(server.get("/-/ready", "").status, 200);
    time_to_close(&mut idle);
    busy.write_all(b"Host: x\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut busy).unwrap().status, 200);
    // Many that never come to the end of their headers, and send a byte now and then.
    let held: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(server.get("/-/ready", "").status, 200);
    }
    drop(held);
}

#[test]
fn a_shutdown_finishes_answers_and_drops_the_rest() {
    let mut server = Running::limited(
        &large_metrics(),
        Limits {
            drain_timeout: Duration::from_secs(5),
            ..Limits::default()
        },
    );
    let mut idle = server.connect();
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    Answer::read(&mut idle).unwrap();
    let mut running = server.connect();
    running
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut first = [0];
    running.read_exact(&mut first).unwrap();
    drop(server.stop.take());
    time_to_close(&mut idle);
    let mut rest = Vec::new();
    running.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"} 1\n"), "the running answer was cut");
    let address = server.address;
    server.stop();
    assert!(TcpStream::connect(address).is_err(), "still listening");
}

#[test]
fn a_shutdown_does_not_wait_for_a_reader_that_stalls() {
    let limits = Limits {
        drain_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut server = Running::limited(&large_metrics(), limits);
    let mut stalled = server.connect();
    stalled
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut first = [0];
    stalled.read_exact(&mut first).unwrap();
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn prometheus_own_parsers_take_both_bodies() {
    if Command::new("promtool")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        assert!(
            std::env::var_os("NETOBS_REQUIRE").is_none(),
            "promtool is not on PATH"
        );
        eprintln!("skipped: promtool is not on PATH");
        return;
    }
    let server = Running::plain();
    let text = server.get("/metrics", "");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&text.body).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );

    // `check metrics` knows the text format only. What reads OpenMetrics is the importer, which
    // asks for a time stamp on every sample.
    let open = server.get("/metrics", "Accept: application/openmetrics-text\r\n");
    let mut stamped = String::new();
    for line in open.text().lines() {
        match line.rfind(" # {id") {
            _ if line.starts_with('#') => writeln!(stamped, "{line}").unwrap(),
            Some(at) => writeln!(stamped, "{} 1700000000{}", &line[..at], &line[at..]).unwrap(),
            None => writeln!(stamped, "{line} 1700000000").unwrap(),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("metrics.txt");
    std::fs::write(&input, stamped).unwrap();
    let imported = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&input, &folder.path().join("blocks")])
        .output()
        .unwrap();
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
}

#[test]
fn events_are_streamed() {
    let running = Running::plain();
    let get = |query: &str| {
        let request =
            format!("GET /events{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        String::from_utf8(running.exchange(&request)).unwrap()
    };
    let answer = get("?since=14%3A25&until=%2B1");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let head = answer.split_once("\r\n\r\n").unwrap().0.to_lowercase();
    assert!(head.contains("content-type: application/jsonl"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(answer.matches("{\"number\":").count(), 20_000);
    assert!(answer.ends_with("\r\n0\r\n\r\n"));
    assert!(get("?since=x").starts_with("HTTP/1.1 400 "));
    assert!(get("").starts_with("HTTP/1.1 404 "));
}

#[test]
fn answers_with_events_are_bounded_in_number() {
    let limits = Limits {
        answer_timeout: Duration::from_millis(300),
        recordings: 1,
        ..Limits::default()
    };
    let running = Running::limited(OPENMETRICS, limits);
    let request = b"GET /events?since=14:25&until=%2B1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = running.connect();
    let mut other = running.connect();
    idle.write_all(request).unwrap();
    let mut first = [0; 1];
    idle.read_exact(&mut first).unwrap();
    // One at a time.
    other.write_all(request).unwrap();
    let mut head = [0; 12];
    other.read_exact(&mut head).unwrap();
    let busy = head == *b"HTTP/1.1 503";
    // The kernel's buffers may have taken all of it.
    assert!(busy || head == *b"HTTP/1.1 200", "{head:?}");
}
