//! What this machine can show: everything is attached for real, looked at, and let go of.

use std::path::Path;

use serde::Serialize;

use super::start::{Attached, attach};
use crate::{
    config::Config,
    probes::{self, ProbeStatus, SignalInfo},
    sys::{
        privilege::{MissingCapability, Privileges},
        tracefs,
    },
};

/// Facts about the machine and about what this process may do on it.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// As `uname -r` has it.
    pub kernel_release: Option<String>,
    /// Such as `x86_64`.
    pub architecture: &'static str,
    /// The capabilities in force.
    pub capabilities: Vec<String>,
    /// Those that netobs has a use for and does not have.
    pub missing_capabilities: Vec<MissingCapability>,
    /// The kernel's lockdown mode: `none`, `integrity`, `confidentiality` or `unknown`.
    pub lockdown: Option<String>,
    /// The sysctl of that name.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// Whether the process lives in a user namespace of its own, where no capability counts for BPF.
    pub in_user_namespace: Option<bool>,
    /// Whether the kernel shows its type information.
    pub btf: bool,
    /// Where tracefs is mounted.
    pub tracefs: Option<String>,
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Of this form; it changes when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Of netobs.
    pub version: &'static str,
    /// Whether every wanted probe could be attached.
    pub complete: bool,
    /// Why nothing could be tried at all.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The machine.
    pub facts: Facts,
    /// How far each number can be believed here.
    pub signals: Vec<SignalInfo>,
    /// What became of each probe.
    pub probes: Vec<ProbeStatus>,
}

/// Tries everything that `config` wants.
#[must_use]
pub fn survey(config: &Config) -> Survey {
    let proc_root = Path::new("/proc");
    let privileges = Privileges::read(proc_root, Path::new("/sys")).ok();
    let (probes, signals, failure) = match attach(config, proc_root, privileges.as_ref()) {
        Ok(Attached {
            probes, signals, ..
        }) => (probes, signals, None),
        Err(failure) => (Vec::new(), Vec::new(), Some(failure)),
    };
    let lost = probes.iter().any(|probe| probe.wanted && !probe.attached);
    let (error, hint) = failure.map_or((None, None), |failure| {
        (Some(probes::chain(&failure.error)), failure.hint)
    });
    Survey {
        schema_version: 1,
        version: crate::cli::version(),
        complete: error.is_none() && !lost,
        error,
        hint,
        facts: facts(privileges.as_ref()),
        signals,
        probes,
    }
}

fn facts(privileges: Option<&Privileges>) -> Facts {
    Facts {
        kernel_release: privileges.and_then(|it| it.kernel_release.clone()),
        architecture: std::env::consts::ARCH,
        capabilities: privileges.map_or_else(Vec::new, Privileges::held),
        missing_capabilities: privileges.map_or_else(Vec::new, Privileges::missing),
        lockdown: privileges.map(|it| it.lockdown.to_string()),
        unprivileged_bpf_disabled: privileges.and_then(|it| it.unprivileged_bpf_disabled),
        in_user_namespace: privileges.and_then(|it| it.in_user_namespace),
        btf: std::fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
        tracefs: tracefs::mount_point()
            .ok()
            .map(|path| path.display().to_string()),
    }
}
