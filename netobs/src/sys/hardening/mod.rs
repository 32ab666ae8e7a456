//! Giving up what was needed to attach and is not needed to observe.
//!
//! Three steps, each on its own: capabilities, `no_new_privs`, a system call filter. A step that the
//! kernel refuses is reported with what it means, and the others are taken all the same.
//!
//! Landlock is not among them. A task in any Landlock domain may not look at `/proc/PID/ns`,
//! `/proc/PID/fd` or `/proc/PID/root` of tasks outside it, whatever its capabilities
//! (security/landlock/task.c, `hook_ptrace_access_check`), and that is how namespaces and owners are
//! found. The filter makes files read-only instead: it refuses to open any for writing, but new
//! ones through the descriptor of the flight recorder's folder.

mod capabilities;
mod seccomp;

use std::{fs, io, os::fd::RawFd, path::Path, thread, time::Duration};

use caps::Capability;
use serde::Serialize;
use tracing::{debug, info, warn};

pub use self::capabilities::{Set, lower_this_thread};

/// The capabilities of which those that are held stay by default: with them, and only
/// with them, network namespaces that turn up later are found and entered.
pub const FOLLOWING: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The capabilities to keep; `None` leaves them all.
    pub capabilities: Option<Set>,
    /// Whether to filter system calls.
    pub seccomp: bool,
    /// What may still be connected to under the filter.
    pub outgoing: Outgoing,
    /// The descriptor of a folder in which files may be made and removed in spite of the filter.
    pub writes_in: Option<RawFd>,
}

/// Connections that the process makes of its own accord. None by default: it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// To sockets in the file system.
    pub unix: bool,
    /// To addresses, and the name servers that tell them.
    pub internet: bool,
}

/// A step that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub reason: String,
    /// What it means.
    pub meaning: &'static str,
    /// Whether it makes no difference, given the other steps.
    pub harmless: bool,
}

/// What the process may still do, as the kernel tells it afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Names of the capabilities in force.
    pub capabilities: Vec<String>,
    /// Whether a program that it starts could gain rights.
    pub no_new_privs: bool,
    /// `filter` when system calls are filtered, else `off`.
    pub seccomp: &'static str,
    /// Threads that were running already and kept what they had; 0 is as it should be.
    pub uncovered_threads: usize,
    /// Steps that were not taken.
    pub refused: Vec<Refused>,
}

/// Does `work` on a thread of its own, for which there are no files, where the kernel filters system calls;
/// elsewhere it sees them. `None` when there is no thread to be had, or `work` has panicked.
pub fn without_files<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            if let Err(error) = seccomp::hide_files() {
                debug!(%error, "files are seen");
            }
            work()
        });
        thread.ok()?.join().ok()
    })
}

/// Carries out `plan` for the whole process. To be called while no other thread runs that is not
/// to keep its rights: capabilities belong to threads, and new ones inherit them.
#[must_use]
pub fn apply(plan: &Plan) -> Report {
    let mut refused = Vec::new();
    if let Some(keep) = plan.capabilities {
        refused.extend(capabilities::lower(keep));
    }
    if let Err(error) = set_no_new_privs() {
        refused.push(Refused {
            step: "no_new_privs",
            reason: error.to_string(),
            meaning: "a set-user-id program started by the process would gain rights",
            harmless: false,
        });
    }
    if plan.seccomp
        && let Err(error) = seccomp::install(plan.outgoing, plan.writes_in)
    {
        refused.push(Refused {
            step: "seccomp",
            reason: error.to_string(),
            meaning: "system calls that are not needed stay possible",
            harmless: false,
        });
    }
    for Refused {
        step,
        reason,
        meaning,
        harmless,
    } in &refused
    {
        if *harmless {
            info!(step, reason, meaning, "a right could not be given up");
        } else {
            warn!(step, reason, meaning, "a right could not be given up");
        }
    }
    let report = Report {
        refused,
        ..settled(Path::new("/proc"))
    };
    info!(
        capabilities = report.capabilities.join(" "),
        no_new_privs = report.no_new_privs,
        seccomp = report.seccomp,
        "gave up what is not needed any more"
    );
    report
}

fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: takes no pointers, and affects this thread and its future children only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The state, once threads that have ended are gone from `/proc`, which takes the kernel a moment.
fn settled(proc_root: &Path) -> Report {
    for _ in 0..20 {
        let report = read_back(proc_root);
        if report.uncovered_threads == 0 {
            return report;
        }
        thread::sleep(Duration::from_millis(1));
    }
    read_back(proc_root)
}

/// The state of every thread, from `/proc/self`.
fn read_back(proc_root: &Path) -> Report {
    let own = fs::read_to_string(proc_root.join("thread-self/status")).unwrap_or_default();
    let field = |status: &str, name: &str| -> Option<String> {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim_start_matches(':').trim().to_owned())
    };
    let rights = |status: &str| {
        ["CapEff", "CapPrm", "NoNewPrivs", "Seccomp"].map(|name| field(status, name))
    };
    let wanted = rights(&own);
    let others = fs::read_dir(proc_root.join("self/task"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let mask = field(&own, "CapEff").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    Report {
        capabilities: mask.map_or_else(Vec::new, |mask| Set::of_mask(mask).names()),
        no_new_privs: field(&own, "NoNewPrivs").as_deref() == Some("1"),
        seccomp: if field(&own, "Seccomp").as_deref() == Some("2") {
            "filter"
        } else {
            "off"
        },
        uncovered_threads: others.filter(|status| rights(status) != wanted).count(),
        refused: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_no_files_none_is_opened_and_elsewhere_they_are() {
        let own = || fs::File::open("/proc/self/stat").is_ok();
        let filtered = thread::spawn(|| seccomp::hide_files().is_ok()).join();
        if !filtered.unwrap() {
            eprintln!("skipped: this kernel filters no system calls");
            return;
        }
        assert_eq!(without_files(own), Some(false));
        assert!(own());
        assert_eq!(without_files(|| panic!("as an example")), None::<()>);
    }

    /// Why Landlock is not used: a task in any domain is not shown the namespaces of others.
    #[test]
    fn landlock_would_hide_namespaces() {
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let link = format!("/proc/{}/ns/net", other.id());
        let seen = fs::read_link(&link).is_ok();
        let in_domain = thread::spawn(move || {
            // LANDLOCK_ACCESS_FS_WRITE_FILE, as harmless as they come.
            let handled: u64 = 2;
            // SAFETY: the first argument points to an attribute of the size given; the other calls
            // take numbers. They confine this thread, which ends right after.
            let restricted = unsafe {
                let rules =
                    libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, 8, 0);
                rules >= 0
                    && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) == 0
            };
            restricted.then(|| fs::read_link(&link).is_ok())
        });
        let in_domain = in_domain.join().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(seen);
        match in_domain {
            None => eprintln!("skipped: this kernel has no Landlock"),
            Some(seen) => assert!(!seen, "Landlock could be used after all"),
        }
    }

    #[test]
    fn a_process_tells_its_own_state() {
        let report = read_back(Path::new("/proc"));
        assert_eq!(report.seccomp, "off");
        assert_eq!(report.capabilities, Set::of_mask(effective()).names());
        assert_eq!(
            read_back(Path::new("/nonexistent")),
            Report {
                seccomp: "off",
                ..Report::default()
            }
        );
    }

    fn effective() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }
}
