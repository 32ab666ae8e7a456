//! What this process may do, and what each missing right costs.
//!
//! Since 5.8 loading tracing programs takes CAP_BPF and CAP_PERFMON; CAP_SYS_ADMIN implies both.
//! They count only in the first user namespace. Kernel lockdown (`kernel_lockdown(7)`) can forbid
//! programs to read kernel memory whatever the capabilities.
//!
//! kernel: kernel/bpf/syscall.c, security/lockdown/lockdown.c

mod hint;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use caps::Capability;
use serde::Serialize;
use thiserror::Error;

pub use self::hint::bpf_syscall_error_hint;
use super::hardening::Set;

/// All files read here have less than 2 KiB.
const FILE_LIMIT: u64 = 64 << 10;

/// Why the rights could not be found out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// `/proc/self/status` cannot be read.
    #[error("failed to read capabilities from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It can, but says nothing about capabilities.
    #[error("no effective capabilities in {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The kernel's lockdown mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Off, or not built in.
    None,
    /// Changing the kernel is forbidden; BPF programs may read it.
    Integrity,
    /// Reading the kernel is forbidden too: no tracing program works.
    Confidentiality,
    /// securityfs is not mounted, or may not be read.
    Unknown,
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
            Self::Unknown => "unknown",
        })
    }
}

/// What this process may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Bit `n`: capability `n` is in the effective set of the process' first thread.
    effective: u64,
    /// The lockdown mode.
    pub lockdown: Lockdown,
    /// The sysctl `kernel.unprivileged_bpf_disabled`: 0 unprivileged programs are allowed, 1 and 2
    /// they are not (1: until reboot). `None` when the kernel does not have it.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// As `uname -r` has it; `None` when it cannot be read.
    pub kernel_release: Option<String>,
    /// Whether the process lives in a user namespace of its own, where capabilities do not count
    /// for BPF. `None` when that cannot be read.
    pub in_user_namespace: Option<bool>,
}

/// A capability that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MissingCapability {
    /// Such as `CAP_SYSLOG`.
    pub name: &'static str,
    /// What does not work without it.
    pub costs: &'static str,
    /// Whether nothing works without it.
    pub fatal: bool,
}

/// The capabilities that netobs has a use for: which, what it costs to miss it.
const USES: [(Capability, &str, &str); 8] = [
    (
        Capability::CAP_BPF,
        "CAP_BPF",
        "eBPF programs cannot be loaded: no probe works",
    ),
    (
        Capability::CAP_PERFMON,
        "CAP_PERFMON",
        "tracing programs and reads of kernel memory are refused: no probe works",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "other network namespaces cannot be entered: their sockets and settings stay unknown",
    ),
    (
        Capability::CAP_NET_ADMIN,
        "CAP_NET_ADMIN",
        "the probe dns cannot be attached, and socket diagnostics are incomplete",
    ),
    (
        Capability::CAP_SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "processes of other users hide their sockets and namespaces: owners may be unknown",
    ),
    (
        Capability::CAP_SYSLOG,
        "CAP_SYSLOG",
        "kernel addresses are hidden: the place of a drop cannot be told",
    ),
    (
        Capability::CAP_SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
        "the locked-memory limit cannot be raised: maps may be refused on kernels before 5.11",
    ),
    (
        Capability::CAP_DAC_READ_SEARCH,
        "CAP_DAC_READ_SEARCH",
        "files of other users cannot be read: owners and persistent settings may be unknown, and \
         tracefs is closed to all but root: no classic tracepoint, so no sys_exit_accept",
    ),
];

impl Privileges {
    /// Reads the rights of this process from `/proc` and `/sys`.
    ///
    /// # Errors
    /// [`PrivilegeError`] when the capabilities cannot be read; everything else may be unknown.
    pub fn read(proc_root: &Path, sys_root: &Path) -> Result<Self, PrivilegeError> {
        let path = proc_root.join("self/status");
        let status = match read_text(&path) {
            Ok(text) => text,
            Err(source) => return Err(PrivilegeError::Read { path, source }),
        };
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .ok_or(PrivilegeError::Malformed { path })?;
        let sysctl = |name| read_text(&proc_root.join("sys/kernel").join(name)).ok();
        Ok(Self {
            effective,
            lockdown: read_lockdown(&sys_root.join("kernel/security")),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled")
                .and_then(|text| text.trim().parse().ok()),
            kernel_release: sysctl("osrelease").map(|text| text.trim().to_owned()),
            in_user_namespace: read_text(&proc_root.join("self/uid_map"))
                .ok()
                .map(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])),
        })
    }

    /// Whether a capability is in the effective set, by itself or because another implies it.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        let implied = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
            && self.effective & Capability::CAP_SYS_ADMIN.bitmask() != 0;
        implied || self.effective & capability.bitmask() != 0
    }

    /// The names of the capabilities in the effective set, in the kernel's order.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        Set::of_mask(self.effective).names()
    }

    /// Whether the capabilities suffice to load tracing programs.
    #[must_use]
    pub fn can_trace(&self) -> bool {
        self.has(Capability::CAP_BPF) && self.has(Capability::CAP_PERFMON)
    }

    /// The capabilities that netobs has a use for and does not have, the fatal ones first.
    #[must_use]
    pub fn missing(&self) -> Vec<MissingCapability> {
        let absent = |&&(capability, ..): &&(Capability, _, _)| !self.has(capability);
        let missing = |&(capability, name, costs)| MissingCapability {
            name,
            costs,
            fatal: matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON),
        };
        USES.iter().filter(absent).map(missing).collect()
    }
}

/// The file marks the mode in force: `none [integrity] confidentiality`.
fn read_lockdown(securityfs: &Path) -> Lockdown {
    match read_text(&securityfs.join("lockdown")) {
        Ok(text) => text
            .split_ascii_whitespace()
            .find_map(|word| match word {
                "[none]" => Some(Lockdown::None),
                "[integrity]" => Some(Lockdown::Integrity),
                "[confidentiality]" => Some(Lockdown::Confidentiality),
                _ => None,
            })
            .unwrap_or(Lockdown::Unknown),
        // securityfs always has the list of security modules: mounted, and no lockdown in it.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && securityfs.join("lsm").exists() =>
        {
            Lockdown::None
        }
        Err(_) => Lockdown::Unknown,
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_LIMIT)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine whose process has these capabilities.
    fn machine(mask: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "self/status",
            &format!("Name:\tx\nCapPrm:\t{:016x}\nCapEff:\t{mask:016x}\n", 0),
        );
        write("self/uid_map", "         0          0 4294967295\n");
        write("sys/kernel/unprivileged_bpf_disabled", "2\n");
        write("sys/kernel/osrelease", "6.1.0-49-cloud-amd64\n");
        dir
    }

    fn mask(capabilities: &[Capability]) -> u64 {
        capabilities.iter().map(Capability::bitmask).sum()
    }

    fn read(dir: &tempfile::TempDir) -> Privileges {
        Privileges::read(dir.path(), dir.path()).unwrap()
    }

    #[test]
    fn missing_capabilities_are_named_with_their_cost() {
        let none = read(&machine(0));
        assert_eq!(none.missing().len(), USES.len());
        assert!(!none.can_trace());
        let fatal: Vec<_> = none
            .missing()
            .iter()
            .filter(|it| it.fatal)
            .map(|missing| missing.name)
            .collect();
        assert_eq!(fatal, ["CAP_BPF", "CAP_PERFMON"]);

        let admin = read(&machine(mask(&[Capability::CAP_SYS_ADMIN])));
        assert!(admin.can_trace() && admin.missing().iter().all(|missing| !missing.fatal));

        let pair = read(&machine(mask(&[
            Capability::CAP_BPF,
            Capability::CAP_PERFMON,
        ])));
        assert!(pair.can_trace());
        assert!(
            pair.missing()
                .iter()
                .any(|missing| missing.name == "CAP_SYSLOG")
        );
        assert!(read(&machine(u64::MAX)).missing().is_empty());
    }

    #[test]
    fn facts_are_read_or_unknown() {
        let dir = machine(0);
        let privileges = read(&dir);
        assert_eq!(privileges.unprivileged_bpf_disabled, Some(2));
        assert_eq!(
            privileges.kernel_release.as_deref(),
            Some("6.1.0-49-cloud-amd64")
        );
        assert_eq!(privileges.in_user_namespace, Some(false));
        assert_eq!(privileges.lockdown, Lockdown::Unknown);
        let security = dir.path().join("kernel/security");
        fs::create_dir_all(&security).unwrap();
        fs::write(security.join("lsm"), "capability").unwrap();
        assert_eq!(read(&dir).lockdown, Lockdown::None);
        fs::write(
            security.join("lockdown"),
            "none [integrity] confidentiality\n",
        )
        .unwrap();
        assert_eq!(read(&dir).lockdown, Lockdown::Integrity);

        fs::write(dir.path().join("self/status"), "Name:\tx\n").unwrap();
        let error = Privileges::read(dir.path(), dir.path()).unwrap_err();
        assert!(matches!(error, PrivilegeError::Malformed { .. }));
        fs::remove_file(dir.path().join("self/status")).unwrap();
        let error = Privileges::read(dir.path(), dir.path()).unwrap_err();
        assert!(matches!(error, PrivilegeError::Read { .. }));
    }

    #[test]
    fn this_process_agrees_with_the_system_call() {
        let privileges = Privileges::read(Path::new("/proc"), Path::new("/sys")).unwrap();
        let effective = caps::read(None, caps::CapSet::Effective).unwrap();
        for (capability, ..) in USES {
            assert!(privileges.has(capability) || !effective.contains(&capability));
        }
        assert!(privileges.kernel_release.is_some());
    }
}
