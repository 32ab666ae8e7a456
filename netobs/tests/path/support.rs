//! Running the command in a namespace, and reading what it says.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;
use testbed::{Link, NetNs, Ns, wait_until};

use crate::schema;

/// How long a server may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces with a link: probes go from `client` to `server`.
pub(crate) struct Net {
    pub(crate) client: NetNs,
    pub(crate) server: NetNs,
    pub(crate) link: Link,
}

impl Net {
    pub(crate) fn new(purpose: &str) -> Self {
        let (client, server) = (NetNs::new(purpose).unwrap(), NetNs::new(purpose).unwrap());
        let link = Link::veth(&client, &server).unwrap();
        Self {
            client,
            server,
            link,
        }
    }

    /// The server's address.
    pub(crate) fn v4(&self) -> IpAddr {
        self.link.b.v4()
    }

    pub(crate) fn v6(&self) -> IpAddr {
        self.link.b.v6()
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4(), port)
    }
}

/// What one run of `netobs probe` came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netobs"));
    command
        .arg("probe")
        .args(args)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn run(ns: &Ns, mut command: Command) -> Run {
    let output = ns.run(|| command.output()).unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Its lines of JSON, each held against the published schema.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .inspect(conforms)
            .collect()
    }
}

/// Holds a line against `docs/path-probe.schema.json`.
pub(crate) fn conforms(line: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/path-probe.schema.json");
    let mut published: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let kind = line["kind"].as_str().unwrap();
    // The checker knows no `oneOf`; the kind says which one it is.
    let root = published.as_object_mut().unwrap();
    root.remove("oneOf").unwrap();
    root.insert("$ref".to_owned(), format!("#/$defs/{kind}").into());
    let violations = schema::violations(&published, line);
    assert!(violations.is_empty(), "{violations:#?}\n{line:#}");
}

/// Measures once and prints what a person sees as well, which the test log keeps.
pub(crate) fn measure(ns: &Ns, args: &[&str]) -> Value {
    measure_with(ns, args, |_| {})
}

pub(crate) fn measure_with(ns: &Ns, args: &[&str], prepare: impl Fn(&mut Command)) -> Value {
    let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let mut json = command(&with_json);
    prepare(&mut json);
    let result = run(ns, json);
    let [line] = result.lines().try_into().unwrap_or_else(|lines| {
        panic!("{lines:?} {}", result.stderr);
    });
    let success = line["success"].as_bool().unwrap();
    assert_eq!(result.code, Some(if success { 0 } else { 3 }), "{line:#}");
    println!("{} {line:#}", args.join(" "));
    line
}

/// The story as one text.
pub(crate) fn story(line: &Value) -> String {
    let sentences = line["story"].as_array().unwrap().iter();
    let sentences: Vec<&str> = sentences.map(|it| it.as_str().unwrap()).collect();
    sentences.join(" | ")
}

/// Demands a failure of this phase and cause.
pub(crate) fn failed(line: &Value, phase: &str, error_type: &str) {
    assert_eq!(
        (&line["failure"]["phase"], &line["failure"]["error_type"]),
        (&phase.into(), &error_type.into()),
        "{line:#}"
    );
}

/// Demands that a phase took what was planted; see the head of `main.rs` for the tolerance.
pub(crate) fn took(line: &Value, phase: &str, planted: f64) {
    let measured = line["phases"][phase].as_f64().unwrap_or(-1.0);
    assert!(
        planted - 0.01 <= measured && measured <= planted + 1.5,
        "{phase} took {measured} s, planted were {planted} s: {line:#}"
    );
}

/// A process that ends with the test.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(ns: &Ns, command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self(ns.run(|| command.spawn()).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until somebody listens.
pub(crate) fn wait_listening(ns: &Ns, address: SocketAddr) {
    wait_until(PATIENCE, "the server to listen", || {
        Ok(ns.run(|| TcpStream::connect(address).is_ok()))
    })
    .unwrap();
}

/// A thread that serves until the test ends.
pub(crate) struct Thread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP server that does `what` with each connection, one after the other. `what` is told when to
/// stop by its second argument.
pub(crate) fn serve_tcp(
    ns: &Ns,
    address: SocketAddr,
    what: impl Fn(TcpStream, &AtomicBool) + Send + 'static,
) -> (SocketAddr, Thread) {
    let listener = ns.run(|| TcpListener::bind(address)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let local = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    what(stream, &stopped);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    let thread = Thread {
        stop,
        thread: Some(thread),
    };
    (local, thread)
}

/// A UDP server that answers each datagram with those that `what` makes of it.
pub(crate) fn serve_udp(
    ns: &Ns,
    address: SocketAddr,
    what: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> Thread {
    let socket = ns.run(|| UdpSocket::bind(address)).unwrap();
    let brief = Duration::from_millis(20);
    socket.set_read_timeout(Some(brief)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !stopped.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            for answer in what(&buffer[..length]) {
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    Thread {
        stop,
        thread: Some(thread),
    }
}

/// Reads a request's head.
pub(crate) fn read_head(stream: &mut TcpStream) {
    let timeout = Duration::from_secs(5);
    stream.set_read_timeout(Some(timeout)).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.extend(byte),
            _ => return,
        }
    }
}

/// Answers a request with `text` as it is.
pub(crate) fn answer(mut stream: TcpStream, text: &str) {
    read_head(&mut stream);
    let _ = stream.write_all(text.as_bytes());
}
