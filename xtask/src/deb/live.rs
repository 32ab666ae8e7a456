//! The unit under a running systemd: started, reloaded, watched, stopped.
//!
//! systemd is process 1 of a container (systemd-nspawn) on this machine's kernel, with every
//! capability, so that what is refused is refused by the unit.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::system::{CONFIGURATION, System};
use super::{Args, package};
use crate::{command, setup, workspace};

const PATIENCE: Duration = Duration::from_secs(60);
/// Capabilities that stay: CAP_SYS_PTRACE and CAP_SYS_ADMIN.
const KEPT: &str = "0000000000280000";
/// What `systemd-analyze security` may say at most; docs/privileges.md has the figure.
const MOST_EXPOSED: f32 = 3.0;
const DEFAULTS: &str = "etc/default/netobs";

/// Builds the package, boots a system with it, and goes through the service's life. The last line
/// printed is `N passed, N failed`.
pub(crate) fn test() -> Result<()> {
    setup::demand(setup::Scope::Systemd)?;
    let output = workspace::target_dir().join("tools/package-1");
    let args = Args {
        target: None,
        revision: "1".to_owned(),
    };
    let package = package(&args, &output)?;
    let system = System::make("debian-systemd", &["systemd", "systemd-sysv", "dbus"])?;
    system.dpkg(&["--install"], Some(&package))?;
    // The network is the machine's: a port that is free here.
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .context("failed to find a free port")?;
    let variables = format!("NETOBS_WEB_LISTEN_ADDRESS={address}\n");
    system.write(DEFAULTS, &variables)?;
    let unit = Unit {
        booted: Booted::boot(&system)?,
        address,
    };

    unit.until("active", || Ok(unit.property("ActiveState")? == "active"))?;
    unit.hardened()?;
    unit.reloads(&system)?;
    unit.refuses_mistakes(&system)?;
    unit.watched(&system)?;
    unit.ctl(&["stop", "netobs"])?;
    let (state, result) = (unit.property("ActiveState")?, unit.property("Result")?);
    ensure!(
        state == "inactive" && result == "success",
        "after the stop it is {state}, {result}"
    );
    println!("systemd: stopped, {state}, {result}");
    println!("1 passed, 0 failed");
    Ok(())
}

/// The service in the booted system.
struct Unit {
    booted: Booted,
    address: SocketAddr,
}

impl Unit {
    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["systemctl"];
        all.extend(arguments);
        self.booted.run(&all)
    }

    fn property(&self, name: &str) -> Result<String> {
        let value = self.ctl(&["show", "netobs", "--value", "-p", name])?;
        Ok(value.trim().to_owned())
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            // While it boots, systemctl itself may fail.
            if condition().unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > end {
                let log = self.log().unwrap_or_default();
                bail!("the service is not {what}; its log:\n{log}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn log(&self) -> Result<String> {
        self.booted
            .run(&["journalctl", "-u", "netobs", "--no-pager", "-o", "cat"])
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).context("failed to reach netobs")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.contains(" 200 "), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// Whether the latest reading of the configuration could be used, as the metric has it.
    fn reloaded(&self) -> Result<bool> {
        let text = self.get("/metrics")?;
        Ok(text.contains("\nnetobs_config_last_reload_successful 1\n"))
    }

    /// No root, two capabilities, both filters, and nothing refused that matters.
    fn hardened(&self) -> Result<()> {
        let main = self.property("MainPID")?;
        let status = self.booted.run(&["cat", &format!("/proc/{main}/status")])?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start_matches(':').trim()
        };
        for (name, wanted) in [
            ("CapEff", KEPT),
            ("CapPrm", KEPT),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let found = field(name);
            ensure!(found == wanted, "{name} is {found}, not {wanted}");
            println!("systemd: {name} {found}");
        }
        let user = field("Uid").split_whitespace().next().unwrap_or_default();
        ensure!(user != "0", "it runs as root");
        println!("systemd: user {user}");
        let status: Value = serde_json::from_str(&self.get("/status")?)?;
        let refused = status["hardening"]["refused"].as_array();
        for step in refused.into_iter().flatten() {
            ensure!(step["harmless"] == true, "refused: {step:#}");
        }
        let said = self
            .booted
            .run(&["systemd-analyze", "security", "netobs"])?;
        let verdict = said.lines().last().unwrap_or_default();
        println!("systemd: {verdict}");
        let exposure: f32 = verdict
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .context("systemd-analyze gives no figure")?;
        ensure!(exposure <= MOST_EXPOSED, "more exposed than documented");
        Ok(())
    }

    /// A good file comes into force, a bad one does not, a missing one means the defaults.
    fn reloads(&self, system: &System) -> Result<()> {
        let before = system.read(CONFIGURATION)?;
        let main = self.property("MainPID")?;
        system.write(CONFIGURATION, "[log]\nlevle = \"debug\"\n")?;
        ensure!(
            self.ctl(&["reload", "netobs"]).is_err(),
            "a file with a mistake was reloaded"
        );
        let log = self.log()?;
        ensure!(
            log.contains("/etc/netobs/netobs.toml:2:1: unknown key"),
            "the mistake is not in the log:\n{log}"
        );
        ensure!(self.reloaded()?, "the old configuration is not in force");
        println!("systemd: a reload with a mistake fails, and the old file stays in force");
        system.write(CONFIGURATION, "[limits]\nmax_label_sets = 7\n")?;
        self.ctl(&["reload", "netobs"])?;
        let read = "read the configuration again";
        self.until("reloaded", || Ok(self.log()?.contains(read)))?;
        ensure!(self.reloaded()?, "the reload is not counted as good");
        ensure!(
            self.property("MainPID")? == main,
            "the reload was a restart"
        );
        println!("systemd: a reload with a good file takes it over");
        self.booted
            .run(&["mv", "/etc/netobs/netobs.toml", "/etc/netobs/away"])?;
        self.ctl(&["restart", "netobs"])?;
        self.get("/-/ready")?;
        println!("systemd: without the file it starts with the defaults");
        system.write(CONFIGURATION, &before)
    }

    /// A start with a mistake fails once, and is not tried again.
    fn refuses_mistakes(&self, system: &System) -> Result<()> {
        let before = system.read(CONFIGURATION)?;
        system.write(CONFIGURATION, "nonsense = 1\n")?;
        ensure!(
            self.ctl(&["restart", "netobs"]).is_err(),
            "it starts with a mistake in the file"
        );
        let code = self.property("ExecMainStatus")?;
        let restarts = self.property("NRestarts")?;
        ensure!(
            code == "2" && restarts == "0",
            "exit code {code}, {restarts} restarts"
        );
        println!("systemd: a start with a mistake ends with exit code {code}, and no restarts");
        system.write(CONFIGURATION, &before)?;
        self.ctl(&["reset-failed", "netobs"])?;
        self.ctl(&["start", "netobs"]).map(drop)
    }

    /// One that hangs is started anew.
    fn watched(&self, system: &System) -> Result<()> {
        let folder = "/run/systemd/system/netobs.service.d";
        self.booted.run(&["mkdir", "-p", folder])?;
        let part = "etc/default/netobs-watchdog";
        system.write(part, "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")?;
        let from = format!("/{part}");
        self.booted
            .run(&["mv", &from, &format!("{folder}/watchdog.conf")])?;
        self.ctl(&["daemon-reload"])?;
        self.ctl(&["restart", "netobs"])?;
        self.ctl(&["kill", "--signal=STOP", "netobs"])?;
        self.until("restarted by the watchdog", || {
            Ok(self.property("NRestarts")? == "1" && self.property("ActiveState")? == "active")
        })?;
        let log = self.log()?;
        let line = log.lines().rfind(|line| line.contains("atchdog"));
        println!("systemd: {}", line.unwrap_or("restarted by the watchdog"));
        Ok(())
    }
}

/// A system with systemd at work; powered off when dropped.
struct Booted {
    nspawn: Child,
    leader: String,
}

impl Booted {
    fn boot(system: &System) -> Result<Self> {
        // There is no hardware, and no terminal.
        for unit in [
            "systemd-udevd",
            "systemd-networkd",
            "systemd-timesyncd",
            "console-getty",
        ] {
            let link = format!("etc/systemd/system/{unit}.service");
            let mut mask = command::as_root("ln")?;
            command::run_quietly(mask.args(["-sf", "/dev/null"]).arg(system.path(&link)))?;
        }
        let mut nspawn = command::as_root("systemd-nspawn")?;
        nspawn
            .args(["--boot", "--register=no", "--keep-unit", "--console=pipe"])
            .args(["--capability=all", "--quiet"])
            .arg("--system-call-filter=bpf perf_event_open setns")
            .arg("--directory")
            .arg(system.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let nspawn = nspawn.spawn().context("failed to start systemd-nspawn")?;
        let mut booted = Self {
            nspawn,
            leader: String::new(),
        };
        let end = Instant::now() + PATIENCE;
        while booted.leader.is_empty() {
            if let Some(status) = booted.nspawn.try_wait()? {
                bail!("systemd-nspawn ended with {status}");
            }
            ensure!(Instant::now() < end, "systemd-nspawn starts no system");
            thread::sleep(Duration::from_millis(100));
            booted.leader = first_child(booted.nspawn.id());
        }
        println!("systemd: booted in a container");
        Ok(booted)
    }

    /// Runs a program in the system; returns what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut enter = command::as_root("nsenter")?;
        enter
            .args(["--all", "--target", &self.leader, "--"])
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        let output = enter.output().context("failed to start nsenter")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!(
                "`{}` failed in the system: {}",
                arguments.join(" "),
                text(&output.stderr).trim_end()
            );
        }
        Ok(text(&output.stdout))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // systemd-nspawn powers the system off on SIGTERM.
        let pid = self.nspawn.id().to_string();
        let off = command::as_root("kill").and_then(|mut kill| command::run_quietly(kill.arg(pid)));
        let end = Instant::now() + PATIENCE;
        while off.is_ok() && Instant::now() < end {
            if matches!(self.nspawn.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// The first child of a process (behind sudo, of its child), which is process 1 of the container;
/// empty while there is none.
fn first_child(pid: u32) -> String {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let Some(child) = children.split_whitespace().next() else {
        return String::new();
    };
    let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    match (name.trim(), child.parse()) {
        ("systemd-nspawn", Ok(child)) => first_child(child),
        _ => child.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_children_has_none() -> Result<()> {
        assert_eq!(first_child(u32::MAX), "");
        let mut child = std::process::Command::new("sleep").arg("5").spawn()?;
        assert_eq!(first_child(child.id()), "");
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}
