//! The agent and its peers, started and stopped around a piece of work.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::peers;
use super::process::Process;

/// How long any of them may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Attached is who has made no new hook for this long.
const QUIET: Duration = Duration::from_millis(400);
/// How long any of them may take to end by itself when asked to.
const STUBBORN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// A program that watches TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watcher {
    pub(super) name: &'static str,
    /// `None`: the agent.
    program: Option<&'static str>,
    arguments: &'static [&'static str],
    /// Where it serves, if it does nothing else.
    address: Option<&'static str>,
    /// A configuration file's content; its path is the last argument.
    settings: Option<&'static str>,
}

/// Everything that the agent attaches by default.
pub(super) const NETOBS: Watcher = Watcher {
    name: "netobs",
    program: None,
    arguments: &["run", "--web.listen-address", "127.0.0.1:0"],
    address: None,
    settings: None,
};

const fn bpftrace(name: &'static str, script: &'static [&'static str]) -> Watcher {
    Watcher {
        name,
        program: Some("bpftrace"),
        arguments: script,
        address: None,
        settings: None,
    }
}

const fn tool(name: &'static str) -> Watcher {
    Watcher {
        name,
        program: Some(name),
        arguments: &[],
        address: None,
        settings: None,
    }
}

/// Counts retransmissions in a map of the kernel.
pub(super) const BPFTRACE_COUNT: Watcher = bpftrace(
    "bpftrace count",
    &[
        "-e",
        "tracepoint:tcp:tcp_retransmit_skb { @data = count(); } \
         tracepoint:tcp:tcp_retransmit_synack { @synack = count(); }",
    ],
);

/// Prints a line per retransmission.
pub(super) const BPFTRACE_PRINT: Watcher = bpftrace(
    "bpftrace print",
    &[
        "-e",
        "tracepoint:tcp:tcp_retransmit_skb { printf(\"R %lld %d %d\\n\", nsecs, args->sport, args->dport); } \
         tracepoint:tcp:tcp_retransmit_synack { printf(\"S %lld %d %d\\n\", nsecs, args->sport, args->dport); }",
    ],
);

/// Counts changes of state, the least that can be done per connection.
pub(super) const BPFTRACE_STATES: Watcher = bpftrace(
    "bpftrace count",
    &[
        "-e",
        "tracepoint:sock:inet_sock_set_state { @states = count(); }",
    ],
);

pub(super) const TCPLIFE: Watcher = tool("tcplife");
pub(super) const TCPSTATES: Watcher = tool("tcpstates");
pub(super) const TCPCONNLAT: Watcher = tool("tcpconnlat");

/// With the collector of `/proc/net/netstat` only.
pub(super) const NODE_EXPORTER: Watcher = Watcher {
    name: "node_exporter",
    program: Some("prometheus-node-exporter"),
    arguments: &[
        "--collector.disable-defaults",
        "--collector.netstat",
        "--web.disable-exporter-metrics",
        "--web.listen-address=127.0.0.1:19100",
    ],
    address: Some("127.0.0.1:19100"),
    settings: None,
};

/// With its samplers of TCP only; those that need kprobes attach nothing where there are none.
pub(super) const REZOLUS: Watcher = Watcher {
    name: "rezolus",
    program: Some("rezolus"),
    arguments: &[],
    address: None,
    settings: Some(
        "[general]\nlisten = \"127.0.0.1:14241\"\n[defaults]\nenabled = false\n\
         [samplers.tcp_connect_latency]\nenabled = true\n\
         [samplers.tcp_packet_latency]\nenabled = true\n\
         [samplers.tcp_receive]\nenabled = true\n\
         [samplers.tcp_retransmit]\nenabled = true\n\
         [samplers.tcp_traffic]\nenabled = true\n",
    ),
};

impl Watcher {
    /// Where its program is; `None` when it is not installed.
    pub(super) fn path(&self, agent: &Path) -> Option<PathBuf> {
        match self.program {
            None => Some(agent.to_owned()),
            Some(program) => peers::find(program),
        }
    }

    /// Why it is not here.
    pub(super) fn absence(&self) -> String {
        peers::absence(self.program.unwrap_or("netobs"))
    }

    /// Starts it and returns at once.
    pub(super) fn launch(&self, agent: &Path) -> Result<Running> {
        let path = self.path(agent).with_context(|| self.absence())?;
        let place = tempfile::tempdir().context("failed to make a temporary folder")?;
        let create =
            |name| File::create(place.path().join(name)).context("failed to make a temporary file");
        let (out, err) = (create("out")?, create("err")?);
        // Peers look for tracepoints in tracefs, which is mounted nowhere on a new machine; nobody
        // else sees this mount.
        let mut command = if self.program.is_some() {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "--", "sh", "-c"]);
            command.arg(
                "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; \
                 mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; exec \"$0\" \"$@\"",
            );
            command.arg(path);
            command
        } else {
            Command::new(path)
        };
        command.args(self.arguments);
        if let Some(settings) = self.settings {
            let file = place.path().join("settings");
            fs::write(&file, settings).context("failed to write a configuration file")?;
            command.arg(file);
        }
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        Ok(Running {
            child,
            watcher: *self,
            place,
        })
    }

    /// Starts it and waits until everything is attached.
    pub(super) fn start(&self, agent: &Path) -> Result<Running> {
        let mut running = self.launch(agent)?;
        running.wait_ready()?;
        Ok(running)
    }
}

/// A watcher at work; killed when dropped.
pub(super) struct Running {
    child: Child,
    watcher: Watcher,
    place: TempDir,
}

impl Running {
    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// What it has printed so far.
    pub(super) fn output(&self) -> Result<String> {
        let bytes = fs::read(self.place.path().join("out")).context("failed to read output")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What it has complained of so far.
    pub(super) fn complaints(&self) -> String {
        let bytes = fs::read(self.place.path().join("err")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails when it has ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("failed to look at a child")? {
            let said = self.complaints();
            let last: Vec<&str> = said.lines().rev().take(2).collect();
            bail!("it ended with {status}: {}", last.join("; "));
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        if self.watcher.address.is_some() {
            while self
                .address()
                .is_none_or(|to| TcpStream::connect(to).is_err())
            {
                self.alive()?;
                ensure!(begun.elapsed() < PATIENCE, "it does not serve");
                std::thread::sleep(PAUSE);
            }
            return Ok(());
        }
        self.attached()?;
        if self.watcher.program.is_none() {
            while !self.is_ready() {
                self.alive()?;
                ensure!(begun.elapsed() < PATIENCE, "it does not become ready");
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Waits until no new hook appears, and says how long after this call the last one did.
    pub(super) fn attached(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let (mut last, mut changed) = (0, Duration::ZERO);
        loop {
            self.alive()?;
            // It may end between the two, which the next round says better.
            let hooks = self.process().hooks().unwrap_or(0);
            if hooks != last {
                (last, changed) = (hooks, begun.elapsed());
            }
            if last > 0 && begun.elapsed() - changed > QUIET {
                return Ok(changed);
            }
            ensure!(begun.elapsed() < PATIENCE, "it attaches nothing");
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether `/-/ready` says so. Only the agent has it.
    pub(super) fn is_ready(&self) -> bool {
        self.get("/-/ready")
            .is_ok_and(|(head, _)| head.starts_with("HTTP/1.1 200"))
    }

    /// Where it serves; `None` as long as it does not say so.
    fn address(&self) -> Option<SocketAddr> {
        if let Some(fixed) = self.watcher.address {
            return fixed.parse().ok();
        }
        let said = self.complaints();
        let (_, after) = said.split_once("serving http://")?;
        after.split_once('/')?.0.parse().ok()
    }

    /// One GET on a connection of its own: head and body.
    pub(super) fn get(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let address = self.address().context("it does not serve yet")?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("set a time limit")?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: bench\r\n\
             Accept: application/openmetrics-text;version=1.0.0\r\nConnection: close\r\n\r\n"
        )
        .context("send a request")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("read an answer")?;
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .context("the answer is not HTTP")?;
        let body = answer.split_off(end + 4);
        Ok((String::from_utf8_lossy(&answer).into_owned(), body))
    }

    /// Its metrics as text.
    pub(super) fn scrape(&self) -> Result<String> {
        let (head, body) = self.get("/metrics")?;
        ensure!(
            head.starts_with("HTTP/1.1 200"),
            "the scrape failed: {head}"
        );
        String::from_utf8(body).context("the scrape is not text")
    }

    /// Asks it to stop and waits; what it printed is returned. Some versions of some peers do not
    /// always obey: those are killed.
    pub(super) fn stop(mut self) -> Result<String> {
        let pid = i32::try_from(self.child.id()).context("a process id")?;
        kill(Pid::from_raw(pid), Signal::SIGINT).context("failed to stop a watcher")?;
        let begun = Instant::now();
        while self.child.try_wait().context("failed to wait")?.is_none() {
            if begun.elapsed() > STUBBORN {
                ensure!(self.watcher.program.is_some(), "netobs does not stop");
                self.child.kill().context("failed to stop a watcher")?;
            }
            std::thread::sleep(PAUSE);
        }
        self.output()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Nobody to report to; it is gone afterwards either way.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The sum of the samples of a metric with these labels (`key="value"`), whatever the others.
pub(super) fn sum(metrics: &str, name: &str, labels: &[String]) -> f64 {
    metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (selected, value) = match rest.strip_prefix('{') {
                Some(inside) => inside.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            labels
                .iter()
                .all(|label| selected.contains(label.as_str()))
                .then(|| value.split(' ').next()?.parse::<f64>().ok())?
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_label() {
        let text = "# HELP a_total x\na_total{netns=\"1\",b=\"x\"} 3\na_total{netns=\"2\"} 4\n\
                    a_total_more{netns=\"1\"} 9\nplain 2.5\n";
        let labels = |label: &str| vec![label.to_owned()];
        assert!((sum(text, "a_total", &labels("netns=\"1\"")) - 3.0).abs() < 1e-9);
        assert!((sum(text, "a_total", &[]) - 7.0).abs() < 1e-9);
        assert!((sum(text, "plain", &[]) - 2.5).abs() < 1e-9);
    }
}
