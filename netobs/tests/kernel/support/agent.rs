//! The real binary as a child process.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread::JoinHandle,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{wait_until, witness::wait_for};

use super::{Metrics, PATIENCE};

pub(crate) const LISTEN: [&str; 2] = ["--web.listen-address", "127.0.0.1:0"];
const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
const TEXT: &str = "text/plain;version=0.0.4";

/// The binary under test, with the arguments given: the one that `NETOBS_BIN` names if it is there,
/// as in a guest, else the one that was built with the tests.
pub(crate) fn binary(args: &[&str]) -> Command {
    let path = std::env::var_os("NETOBS_BIN")
        .filter(|path| std::path::Path::new(path).exists())
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_netobs").into());
    let mut command = Command::new(path);
    command
        .args(args)
        .env("NO_COLOR", "1")
        .env_remove("NETOBS_REQUIRE")
        .stdin(Stdio::null());
    command
}

/// `netobs run` on a port of the kernel's choice, with these arguments more.
pub(crate) fn run(args: &[&str]) -> Command {
    let mut all = vec!["run"];
    all.extend(LISTEN);
    all.extend(args);
    binary(&all)
}

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// Runs a command that is expected to end by itself.
pub(crate) fn run_to_end(mut command: Command) -> Ended {
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut running = Running::of(child.unwrap());
    let status = running.wait("the command to end");
    Ended {
        code: status.code(),
        stderr: running.stderr(),
    }
}

/// A child and what it says on its standard error.
#[derive(Debug)]
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    fn of(mut child: Child) -> Self {
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let to = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(stderr);
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let mut said = to.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            child,
            said,
            reader: Some(reader),
        }
    }

    fn stderr(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for the end and for the last word.
    fn wait(&mut self, what: &str) -> ExitStatus {
        let status = wait_for(PATIENCE, what, || Ok(self.child.try_wait()?));
        let status = status.unwrap_or_else(|error| {
            let _ = self.child.kill();
            panic!("{error}; it said:\n{}", self.stderr());
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A running, ready agent. Dropping it stops it and demands exit code 0.
#[derive(Debug)]
pub(crate) struct Agent {
    running: Running,
    address: SocketAddr,
    stopped: bool,
}

/// Arguments of an agent that sees accepts on every kernel.
pub(crate) const SEES_ACCEPTS: [&str; 2] = ["--probe", "sys_exit_accept"];

/// The agent of all tests that need no agent of their own; it sees accepts.
static SHARED: OnceLock<Agent> = OnceLock::new();

impl Agent {
    /// The agent of all tests that need no agent of their own: its start is most of the time that
    /// a test takes in an emulated guest. Each test has namespaces of its own, so none sees
    /// another's numbers.
    ///
    /// It is killed when the test program ends.
    pub(crate) fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            let (ready, started) = mpsc::channel();
            // The kernel kills it when the thread that started it ends: one that never does, as
            // each test has a thread of its own.
            std::thread::spawn(move || {
                let mut command = run(&SEES_ACCEPTS);
                // SAFETY: a system call without pointers; allowed between fork and exec.
                unsafe {
                    command.pre_exec(
                        || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                            0 => Ok(()),
                            _ => Err(std::io::Error::last_os_error()),
                        },
                    );
                }
                // Whoever waits has gone when a test before it has failed.
                let _ = ready.send(Self::of(command));
                loop {
                    std::thread::park();
                }
            });
            started.recv().expect("the shared agent starts")
        })
    }

    /// Starts `netobs run` with these arguments more.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(run(args))
    }

    /// Starts a command that becomes `netobs run`.
    pub(crate) fn of(mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut running = Running::of(child.unwrap());
        let address = wait_for(PATIENCE, "the agent's address", || {
            if let Some(status) = running.child.try_wait()? {
                anyhow::bail!("the agent ended with {status}");
            }
            Ok(served(&running.stderr()))
        });
        let address = address.unwrap_or_else(|error| panic!("{error}: {}", running.stderr()));
        let agent = Self {
            running,
            address,
            stopped: false,
        };
        let ready = wait_until(PATIENCE, "the agent to be ready", || {
            Ok(agent
                .get("/-/ready", TEXT)
                .is_ok_and(|(status, _)| status == 200))
        });
        if let Err(error) = ready {
            panic!("{error}; it said:\n{}", agent.stderr());
        }
        agent
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// What it has said so far.
    pub(crate) fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Waits until the flight recorder has written all that it was given, and so many events at
    /// least.
    pub(crate) fn recorded(&self, least: u64) -> Metrics {
        self.scrape_until("the events to be written", |metrics| {
            let written = metrics.sum("netobs_recorder_written_events_total", &[]);
            written >= least && written == metrics.sum("netobs_recorder_events_total", &[])
        })
    }

    /// Reads `/metrics` once.
    pub(crate) fn scrape(&self) -> Metrics {
        let (status, body) = self
            .get("/metrics", OPENMETRICS)
            .unwrap_or_else(|error| panic!("{error}; it said:\n{}", self.stderr()));
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body).unwrap_or_else(|error| panic!("{error:#} in\n{body}"))
    }

    /// Reads `/stories`.
    pub(crate) fn stories(&self) -> serde_json::Value {
        let (status, body) = self.get("/stories", "application/json").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Reads `/metrics` in the older text format, which checking tools take.
    pub(crate) fn scrape_text(&self) -> String {
        let (status, body) = self.get("/metrics", TEXT).unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Scrapes until the metrics satisfy a condition.
    pub(crate) fn scrape_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&Metrics) -> bool,
    ) -> Metrics {
        let mut last = None;
        let found = wait_for(PATIENCE, what, || {
            let metrics = self.scrape();
            let good = condition(&metrics);
            Ok(if good {
                Some(metrics)
            } else {
                last = Some(metrics);
                None
            })
        });
        found.unwrap_or_else(|error| {
            panic!(
                "{error}; the agent said:\n{}\nand shows:\n{}",
                self.stderr(),
                last.map(|metrics| metrics.text).unwrap_or_default()
            )
        })
    }

    /// One request on a connection of its own.
    fn get(&self, path: &str, accept: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = String::new();
        write!(
            request,
            "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\
             Connection: close\r\n\r\n"
        )?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let parts = answer.split_once("\r\n\r\n");
        let (head, body) = parts.ok_or_else(|| anyhow::anyhow!("no HTTP answer: {answer:?}"))?;
        anyhow::ensure!(
            head.to_ascii_lowercase().contains("content-length"),
            "the answer's length is not told"
        );
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok((status, body.to_owned()))
    }

    /// SIGTERM, and waits: exit code 0 is demanded.
    pub(crate) fn stop(mut self) -> String {
        self.end();
        self.stderr()
    }

    /// SIGKILL, and waits.
    pub(crate) fn kill(mut self) {
        self.stopped = true;
        self.running.child.kill().unwrap();
        let status = self.running.wait("the agent's end by SIGKILL");
        assert_eq!(status.signal(), Some(9), "{}", self.stderr());
    }

    fn end(&mut self) {
        self.stopped = true;
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let status = self.running.wait("the agent to stop");
        assert_eq!(status.code(), Some(0), "{status}: {}", self.stderr());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.stderr());
            return; // `Running` kills it.
        }
        self.end();
    }
}

/// The address in the line `serving http://ADDRESS/...`.
fn served(said: &str) -> Option<SocketAddr> {
    let (_, after) = said.split_once("serving http://")?;
    let (address, _) = after.split_once('/')?;
    address.parse().ok()
}
