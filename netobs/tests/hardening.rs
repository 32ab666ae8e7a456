//! What the running agent may still do, seen from outside, and that it still does its work. Root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use caps::Capability;
use serde_json::Value;

/// Long enough for a guest under emulation.
const PATIENCE: Duration = Duration::from_secs(60);

/// The agent: `NETOBS_BIN` where the tests run on another machine than the one they were built on.
fn binary() -> PathBuf {
    std::env::var_os("NETOBS_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_netobs")),
        PathBuf::from,
    )
}

/// An agent on a port of its own, killed on drop.
struct Running {
    child: Child,
    port: u16,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts an agent and waits until it serves. `prepare` works on the command.
    fn start(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["run", "--web.listen-address", "127.0.0.1:0"])
            .args(args)
            .env_remove("NOTIFY_SOCKET")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = sender.send(line);
            }
        });
        let mut running = Self {
            child,
            port: 0,
            lines,
        };
        let serving = running.wait_for("serving http");
        let address = serving.split_once("://").unwrap().1;
        let port = address
            .split_once('/')
            .unwrap()
            .0
            .rsplit_once(':')
            .unwrap()
            .1;
        running.port = port.parse().unwrap();
        running.wait_for("gave up what is not needed");
        running
    }

    fn wait_for(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(part);
            if line.contains(part) {
                return line;
            }
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        body.to_owned()
    }

    /// The value of one series.
    fn value(&self, series: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}"))
            .parse()
            .unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status")).unwrap()
    }

    /// The lines of every thread's status file with these names, which must agree.
    fn rights(&self) -> [String; 5] {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut all: Vec<[String; 5]> = fs::read_dir(tasks)
            .unwrap()
            .map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                ["CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"].map(|name| {
                    let line = status
                        .lines()
                        .find(|line| line.starts_with(&format!("{name}:")));
                    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
                })
            })
            .collect();
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Exit code after SIGTERM.
    fn stop(&mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the agent does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next word to the service manager.
fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).expect("a word");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn mask(capabilities: &[Capability]) -> String {
    let bits: u64 = capabilities.iter().map(Capability::bitmask).sum();
    format!("{bits:016x}")
}

/// A command as a user without rights who has just these capabilities, such as `bpf`.
fn as_user(binary: &Path, held: &[&str]) -> Command {
    let set: String = held.iter().map(|name| format!(",+{name}")).collect();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(
            ["--inh-caps", "--ambient-caps", "--bounding-set"]
                .map(|flag| format!("{flag}=-all{set}")),
        )
        .arg(binary);
    command
}

/// What it takes to load programs: kernels before 5.11 count maps as locked memory.
fn loading() -> Vec<&'static str> {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_str().unwrap().to_owned();
    let mut numbers = release
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(5), Some(11)) {
        vec!["bpf", "perfmon", "sys_resource"]
    } else {
        vec!["bpf", "perfmon"]
    }
}

/// The binary where a user without rights can reach it.
fn reachable() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("netobs");
    fs::copy(self::binary(), &binary).unwrap();
    (folder, binary)
}

fn check(held: &[&str]) -> (Option<i32>, Value) {
    let (_folder, binary) = reachable();
    let output = as_user(&binary, held)
        .args(["check", "--json"])
        .output()
        .unwrap();
    let survey = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    (output.status.code(), survey)
}

const FOLLOWING: &[Capability] = &[Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_ADMIN];

#[test]
fn only_what_following_namespaces_needs_is_kept() {
    testbed::require!(testbed::require::root());
    let mut agent = Running::start(&[], |_| {});
    agent.get("/metrics");
    let kept = mask(FOLLOWING);
    let rights = [kept.as_str(), kept.as_str(), kept.as_str(), "1", "2"];
    assert_eq!(agent.rights(), rights);
    let hardening = &agent.status()["hardening"];
    assert_eq!(hardening["no_new_privs"], true);
    assert_eq!(hardening["seccomp"], "filter");
    assert_eq!(hardening["uncovered_threads"], 0);
    assert_eq!(hardening["refused"], serde_json::json!([]));
    assert_eq!(agent.stop(), Some(0));
}

/// A namespace that turns up later is found, entered and counted, all with the filter on.
#[test]
fn a_new_namespace_is_followed_after_hardening() {
    testbed::require!(testbed::require::root());
    let mut agent = Running::start(&[], |_| {});
    let netns = testbed::NetNs::new("hardening").unwrap();
    let inode = netns.inode();
    let until = Instant::now() + PATIENCE;
    let series = format!("netobs_netstat_total{{netns=\"{inode}\"");
    while !agent.get("/metrics").contains(&series) {
        assert!(Instant::now() < until, "{series} does not turn up");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The thread that visited it has no more than the others.
    agent.rights();
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn with_none_kept_it_still_counts() {
    testbed::require!(testbed::require::root());
    let mut agent = Running::start(&["--capabilities.keep", "none"], |_| {});
    let rights = agent.rights();
    // Kernels before 6.0 ask for CAP_BPF to read maps where unprivileged BPF is off.
    let bpf = mask(&[Capability::CAP_BPF]);
    assert!([mask(&[]), bpf].contains(&rights[0]), "{rights:?}");
    assert!(agent.get("/metrics").contains("netobs_probe_attached"));
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn hardening_can_be_left_out() {
    testbed::require!(testbed::require::root());
    let args = ["--capabilities.keep", "all", "--no-seccomp"];
    let agent = Running::start(&args, |_| {});
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let rights = agent.rights();
    assert!(
        own.contains(&format!("CapEff:\t{}\n", rights[0])),
        "{rights:?}"
    );
    assert_eq!(rights[4], "0");
    assert_eq!(agent.status()["hardening"]["seccomp"], "off");
}

#[test]
fn a_user_who_may_only_load_attaches_and_keeps_next_to_nothing() {
    testbed::require!(
        testbed::require::root(),
        testbed::require::command("setpriv")
    );
    let (_folder, binary) = reachable();
    let mut agent = Running::start(&[], |prepared| {
        let mut own = as_user(&binary, &loading());
        own.args(prepared.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        *prepared = own;
    });
    // Kernels before 6.0 may ask for CAP_BPF to read maps.
    let bpf = mask(&[Capability::CAP_BPF]);
    assert!(
        [mask(&[]), bpf].contains(&agent.rights()[0]),
        "{:?}",
        agent.rights()
    );
    let status = agent.status();
    let probes = status["probes"].as_array().unwrap();
    let attached = |name: &str| {
        probes
            .iter()
            .any(|probe| probe["probe"] == name && probe["attached"] == true)
    };
    assert!(
        attached("tcp_retransmit_skb") && attached("listener_readings"),
        "{status:#}"
    );
    agent.get("/metrics");
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn check_names_each_missing_capability() {
    testbed::require!(
        testbed::require::root(),
        testbed::require::command("setpriv")
    );
    let (code, survey) = check(&[]);
    assert_eq!(code, Some(1));
    assert_eq!(survey["complete"], false);
    assert!(
        survey["error"]
            .as_str()
            .unwrap()
            .contains("CAP_BPF and CAP_PERFMON missing")
    );
    assert!(survey["hint"].is_string());

    let (_, survey) = check(&loading());
    assert!(survey["error"].is_null(), "{survey:#}");
    let missing: Vec<&str> = survey["facts"]["missing_capabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|missing| missing["name"].as_str().unwrap())
        .collect();
    assert!(
        missing.contains(&"CAP_SYS_ADMIN") && missing.contains(&"CAP_SYSLOG"),
        "{missing:?}"
    );
    let probes = survey["probes"].as_array().unwrap();
    let lost = |probe: &&Value| probe["attached"] == false && probe["wanted"] == true;
    for probe in probes.iter().filter(lost) {
        let reasons = probe["reasons"].as_array().unwrap();
        assert!(
            !reasons.is_empty() && probe["without"].is_string(),
            "{probe:#}"
        );
    }
}

/// As a user with the DaemonSet's capabilities, who may mount a tracefs and may not look into it.
#[test]
fn check_says_what_opens_tracefs() {
    testbed::require!(
        testbed::require::root(),
        testbed::require::command("setpriv")
    );
    let mut held = loading();
    held.extend(["sys_admin", "sys_ptrace", "syslog"]);
    let (_folder, binary) = reachable();
    let ask = |held: &[&str]| {
        let output = as_user(&binary, held)
            .args(["check", "--btf", "none"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let text = ask(&held);
    assert!(text.contains("is closed to this user"), "{text}");
    assert!(text.contains("do: grant CAP_DAC_READ_SEARCH"), "{text}");
    held.push("dac_read_search");
    let text = ask(&held);
    assert!(!text.contains("is closed to this user"), "{text}");
}

#[test]
fn check_attaches_and_leaves_nothing_behind() {
    testbed::require!(testbed::require::root());
    let output = Command::new(binary())
        .args(["check", "--json", "--no-probe", "kfree_skb"])
        .output()
        .unwrap();
    let survey: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(survey["schema_version"], 1);
    let complete = survey["complete"] == true;
    assert_eq!(output.status.code(), Some(i32::from(!complete)));
    let text = Command::new(binary()).arg("check").output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for part in ["Signals", "EXACTNESS", "Probes", "capabilities"] {
        assert!(text.contains(part), "{text}");
    }
}

/// The service manager is told when it is ready, alive, reloading and stopping.
#[test]
fn the_service_manager_is_told() {
    testbed::require!(testbed::require::root());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = |word: &str| while !heard(&manager).starts_with(word) {};
    let mut agent = Running::start(&[], |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "900000");
    });
    assert_eq!(heard(&manager), "READY=1");
    next("WATCHDOG=1");
    next("WATCHDOG=1");
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    next("RELOADING=1\nMONOTONIC_USEC=");
    next("READY=1");
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    next("STOPPING=1");
    assert_eq!(agent.stop(), Some(0));
}

/// SIGHUP takes over what can be taken over and no count is lost; a file that went bad changes
/// nothing, and both are metrics.
#[test]
fn sighup_reads_the_configuration_again() {
    testbed::require!(testbed::require::root());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    write("[log]\nlevel = \"info\"\n");
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let ready = || while heard(&manager) != "READY=1" {};
    let mut agent = Running::start(&["--config", path.to_str().unwrap()], |command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    let hangup = nix::sys::signal::Signal::SIGHUP;
    ready();
    assert_eq!(agent.value("netobs_config_last_reload_successful"), 1.0);
    let started = agent.value("netobs_config_last_reload_success_timestamp_seconds");
    assert!(started > 1_600_000_000.0, "{started}");
    let events = agent.value("netobs_events_total{probe=\"listener_readings\"}");

    write("[log]\nlevle = \"warn\"\n");
    agent.signal(hangup);
    let complaint = agent.wait_for("the old one stays");
    assert!(complaint.contains("netobs.toml:2:1"), "{complaint}");
    ready();
    assert_eq!(agent.value("netobs_config_last_reload_successful"), 0.0);
    let at = agent.value("netobs_config_last_reload_success_timestamp_seconds");
    assert_eq!(at, started);

    write(
        "[web]\ntelemetry_path = \"/other\"\n[limits]\nmax_label_sets = 3\n\
         [audit]\nignore = [\"NETOBS-TCP-001\"]\n",
    );
    agent.signal(hangup);
    let changed = agent.wait_for("read the configuration again");
    assert!(
        changed.contains("limits.max_label_sets audit.ignore"),
        "{changed}"
    );
    let waiting = agent.wait_for("take effect at the next start");
    assert!(waiting.contains("web.telemetry_path"), "{waiting}");
    ready();
    assert_eq!(agent.value("netobs_config_last_reload_successful"), 1.0);
    let counted = agent.value("netobs_events_total{probe=\"listener_readings\"}");
    assert!(counted >= events, "{counted} < {events}");

    fs::remove_file(&path).unwrap();
    agent.signal(hangup);
    agent.wait_for("failed to read the configuration file");
    ready();
    write("[log]\nlevel = \"warn\"\n");
    agent.signal(hangup);
    ready();
    // Not a word below the new level from now on.
    while agent.lines.try_recv().is_ok() {}
    assert_eq!(agent.stop(), Some(0));
    let rest: Vec<String> = agent.lines.try_iter().collect();
    assert!(
        rest.iter().all(|line| !line.contains("SIGTERM")),
        "{rest:?}"
    );
}
