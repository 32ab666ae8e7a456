//! [`Config`]: what the agent shall do, as plain checked data.
//!
//! Four layers, later ones win: the defaults, the TOML file, the environment, the flags (both
//! [`Overrides`]). Every flag has a key in the file ([`KEYS`]) and a [`variable`]. A list of a later
//! layer replaces the list of an earlier one. What is wrong is an [`Error`] that says where it stands
//! and what would be right; nothing is ignored.
//!
//! ```toml
//! [web]
//! listen_address = ["127.0.0.1:10977"]  # ":10977" means all addresses
//! telemetry_path = "/metrics"
//! # config_file = "/etc/netobs/web.yml"  # TLS, users, headers, request rate; see docs/web-config.md
//!
//! [log]
//! level = "info"                        # error, warn, info, debug, trace
//! format = "text"                       # text, json
//!
//! [probes]
//! enable = []                           # on top of those that are on by default
//! disable = []
//! # btf = "none"                        # or a file; without the key, the running kernel's own
//!
//! [limits]
//! max_label_sets = 1000                 # per metric family
//!
//! [recorder]
//! # path = "/var/lib/netobs/events"     # without it, events are kept in memory only
//! size = "64MiB"                        # an eighth of it memory, the rest files; 0 switches it off
//! age = "24h"                           # what is older goes
//!
//! [hardening]
//! keep_capabilities = "auto"            # after attaching: auto, none, all; see docs/privileges.md
//! seccomp = true                        # refuse system calls that are not needed any more
//!
//! [kubernetes]
//! # cri_socket = "/run/containerd/containerd.sock"  # names of pods from the container runtime
//! pods = false                          # names of pods from the Kubernetes API
//! # node = "worker-1"                   # whose pods; without the key, $NODE_NAME
//! [audit]
//! ignore = []                           # rules whose findings are no metrics; see `netobs audit`
//! ```
//!
//! What the agent measures from here has no flags: see [`targets`].

mod error;
mod file;
mod keys;
mod nearest;
pub mod targets;
mod value;
mod variable;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    error::{Error, Origin},
    keys::{KEYS, Key, changes},
    targets::{MAX_TARGETS, PathProbes, ProbeTarget},
    value::{
        BtfSource, DEFAULT_LISTEN_ADDRESS, DEFAULT_RECORDER_AGE, DEFAULT_RECORDER_SIZE,
        KeepCapabilities, LogFormat, LogLevel, MAX_LABEL_SETS, ValueError, parse_age, parse_btf,
        parse_duration, parse_label_sets, parse_listen_address, parse_size, parse_telemetry_path,
    },
    variable::{Stray, strays, variable},
};

use crate::{audit, recorder::Plan};

/// Everything the agent needs to be told. Plain data: checked, and without behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The HTTP surface.
    pub web: Web,
    /// Messages on stderr.
    pub log: Log,
    /// What to attach, and how.
    pub probes: Probes,
    /// Bounds on what netobs itself may grow to.
    pub limits: Limits,
    /// The flight recorder; `None` when it is switched off.
    pub recorder: Option<Plan>,
    /// What is given up once everything is attached.
    pub hardening: Hardening,
    /// Where names of pods and containers come from.
    pub kubernetes: Kubernetes,
    /// The sysctl auditor inside the agent.
    pub audit: Audit,
    /// What is measured from here.
    pub path_probes: PathProbes,
}

/// Where names of pods and containers come from. By default from nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// Socket of the container runtime.
    pub cri_socket: Option<PathBuf>,
    /// Whether the Kubernetes API is asked for the pods of this node.
    pub pods: bool,
    /// The name of the node in the API.
    pub node: Option<String>,
}

/// The sysctl auditor inside the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Ids of rules whose findings are not exposed, such as `NETOBS-TCP-001`.
    pub ignore: Vec<String>,
}

/// The HTTP surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Addresses to listen on; at least one, none twice.
    pub listen_addresses: Vec<SocketAddr>,
    /// Path of the metrics, starting with `/`.
    pub telemetry_path: String,
    /// File with TLS, users, headers and request rate, in the form of the exporter-toolkit.
    pub config_file: Option<PathBuf>,
}

/// Messages on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is still written.
    pub level: LogLevel,
    /// How a message is written.
    pub format: LogFormat,
}

/// What to attach, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Names of probes to attach on top of those that are on by default.
    pub enable: Vec<String>,
    /// Names of probes not to attach. No name is in both lists.
    pub disable: Vec<String>,
    /// Where the kernel's type information comes from.
    pub btf: BtfSource,
}

/// Bounds on what netobs itself may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Label sets per metric family before new ones are folded into `other`; never 0.
    pub max_label_sets: usize,
}

/// What is given up once everything is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardening {
    /// Which capabilities stay.
    pub keep_capabilities: KeepCapabilities,
    /// Whether system calls that are not needed any more are refused.
    pub seccomp: bool,
}

impl Default for Hardening {
    fn default() -> Self {
        Self {
            keep_capabilities: KeepCapabilities::default(),
            seccomp: true,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            web: Web {
                listen_addresses: vec![DEFAULT_LISTEN_ADDRESS],
                telemetry_path: "/metrics".to_owned(),
                config_file: None,
            },
            log: Log::default(),
            probes: Probes::default(),
            limits: Limits {
                max_label_sets: 1000,
            },
            recorder: Some(Plan {
                path: None,
                size_bytes: DEFAULT_RECORDER_SIZE,
                age: DEFAULT_RECORDER_AGE,
            }),
            hardening: Hardening::default(),
            kubernetes: Kubernetes::default(),
            audit: Audit::default(),
            path_probes: PathProbes::default(),
        }
    }
}

/// What the flags or the variables say. An empty list or `None` leaves the matter to the layer below.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "each field is the key of the same name, see `Config`"
)]
pub struct Overrides {
    pub listen_addresses: Vec<SocketAddr>,
    pub telemetry_path: Option<String>,
    pub web_config_file: Option<PathBuf>,
    pub log_level: Option<LogLevel>,
    pub log_format: Option<LogFormat>,
    pub enable: Vec<String>,
    pub disable: Vec<String>,
    pub btf: Option<BtfSource>,
    pub max_label_sets: Option<usize>,
    pub recorder_path: Option<PathBuf>,
    pub recorder_size: Option<u64>,
    pub recorder_age: Option<Duration>,
    pub keep_capabilities: Option<KeepCapabilities>,
    pub seccomp: Option<bool>,
    pub cri_socket: Option<PathBuf>,
    pub pods: Option<bool>,
    pub node: Option<String>,
    pub audit_ignore: Vec<String>,
}

/// A value and where it was given, for messages.
#[derive(Clone, Debug)]
struct Given<T> {
    value: T,
    origin: Origin,
}

/// One layer over the defaults.
#[derive(Debug, Default)]
struct Layer {
    listen_addresses: Option<Vec<Given<SocketAddr>>>,
    telemetry_path: Option<String>,
    web_config_file: Option<PathBuf>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    enable: Option<Vec<Given<String>>>,
    disable: Option<Vec<Given<String>>>,
    btf: Option<BtfSource>,
    max_label_sets: Option<usize>,
    recorder_path: Option<PathBuf>,
    recorder_size: Option<u64>,
    recorder_age: Option<Duration>,
    keep_capabilities: Option<KeepCapabilities>,
    seccomp: Option<bool>,
    cri_socket: Option<PathBuf>,
    pods: Option<bool>,
    node: Option<String>,
    audit_ignore: Option<Vec<Given<String>>>,
    path_probes: Option<PathProbes>,
}

impl Layer {
    /// What was given by flags or variables; `origin` makes the place of a flag's value.
    fn of(flags: Overrides, origin: fn(&'static str) -> Origin) -> Self {
        let list = |values, flag| list(values, &origin(flag));
        Self {
            listen_addresses: crate::config::list(
                flags.listen_addresses,
                &origin("--web.listen-address"),
            ),
            telemetry_path: flags.telemetry_path,
            web_config_file: flags.web_config_file,
            log_level: flags.log_level,
            log_format: flags.log_format,
            enable: list(flags.enable, "--probe"),
            disable: list(flags.disable, "--no-probe"),
            btf: flags.btf,
            max_label_sets: flags.max_label_sets,
            recorder_path: flags.recorder_path,
            recorder_size: flags.recorder_size,
            recorder_age: flags.recorder_age,
            keep_capabilities: flags.keep_capabilities,
            seccomp: flags.seccomp,
            cri_socket: flags.cri_socket,
            pods: flags.pods,
            node: flags.node,
            audit_ignore: list(flags.audit_ignore, "--audit.ignore"),
            path_probes: None,
        }
    }

    /// This layer on top of another. A probe that this one names is taken out of the opposite list
    /// of the one below.
    fn over(self, below: Self) -> Self {
        let enable = pick(self.enable.as_ref(), below.enable, self.disable.as_ref());
        let disable = pick(self.disable.as_ref(), below.disable, self.enable.as_ref());
        Self {
            listen_addresses: self.listen_addresses.or(below.listen_addresses),
            telemetry_path: self.telemetry_path.or(below.telemetry_path),
            web_config_file: self.web_config_file.or(below.web_config_file),
            log_level: self.log_level.or(below.log_level),
            log_format: self.log_format.or(below.log_format),
            enable,
            disable,
            btf: self.btf.or(below.btf),
            max_label_sets: self.max_label_sets.or(below.max_label_sets),
            recorder_path: self.recorder_path.or(below.recorder_path),
            recorder_size: self.recorder_size.or(below.recorder_size),
            recorder_age: self.recorder_age.or(below.recorder_age),
            keep_capabilities: self.keep_capabilities.or(below.keep_capabilities),
            seccomp: self.seccomp.or(below.seccomp),
            cri_socket: self.cri_socket.or(below.cri_socket),
            pods: self.pods.or(below.pods),
            node: self.node.or(below.node),
            audit_ignore: self.audit_ignore.or(below.audit_ignore),
            path_probes: self.path_probes.or(below.path_probes),
        }
    }

    fn check(&self, known_probes: &[&str]) -> Result<(), Error> {
        check_probes(self, known_probes)?;
        check_addresses(self)?;
        let rules: Vec<&str> = audit::rules::all().map(|rule| rule.id).collect();
        for Given { value, origin } in self.audit_ignore.iter().flatten() {
            if !rules.contains(&value.as_str()) {
                return Err(Error::unknown_rule(origin.clone(), value, &rules));
            }
        }
        Ok(())
    }
}

fn list<T>(values: Vec<T>, origin: &Origin) -> Option<Vec<Given<T>>> {
    let given = |value| Given {
        value,
        origin: origin.clone(),
    };
    (!values.is_empty()).then(|| values.into_iter().map(given).collect())
}

/// A layer's own list, or the one below without what the layer's opposite list names.
fn pick(
    own: Option<&Vec<Given<String>>>,
    below: Option<Vec<Given<String>>>,
    opposite: Option<&Vec<Given<String>>>,
) -> Option<Vec<Given<String>>> {
    if let Some(own) = own {
        return Some(own.clone());
    }
    let opposed = |name: &String| opposite.into_iter().flatten().any(|it| it.value == *name);
    let mut below = below?;
    below.retain(|given| !opposed(&given.value));
    Some(below)
}

impl Config {
    /// Merges defaults, file and flags, and checks the whole: [`Config::resolve_all`] without an
    /// environment.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it or in the flags is wrong.
    pub fn resolve(
        file: Option<&Path>,
        flags: Overrides,
        known_probes: &[&str],
    ) -> Result<Self, Error> {
        Self::resolve_all(file, Overrides::default(), flags, known_probes)
    }

    /// Merges defaults, file, environment and flags, and checks the whole. `known_probes` are the
    /// names that may be enabled or disabled.
    ///
    /// A probe that a layer names is taken out of the opposite list of the layers below it.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it, in a variable or in the flags is wrong.
    pub fn resolve_all(
        file: Option<&Path>,
        environment: Overrides,
        flags: Overrides,
        known_probes: &[&str],
    ) -> Result<Self, Error> {
        let file = file.map(file::read).transpose()?.unwrap_or_default();
        let environment = Layer::of(environment, Origin::Variable);
        merge(
            [file, environment, Layer::of(flags, Origin::Flag)],
            known_probes,
        )
    }
}

/// The lowest layer first.
fn merge(layers: [Layer; 3], known_probes: &[&str]) -> Result<Config, Error> {
    for layer in &layers {
        layer.check(known_probes)?;
    }
    let merged = layers
        .into_iter()
        .fold(Layer::default(), |below, layer| layer.over(below));
    let defaults = Config::default();
    Ok(Config {
        web: Web {
            listen_addresses: merged
                .listen_addresses
                .map_or(defaults.web.listen_addresses, values),
            telemetry_path: merged.telemetry_path.unwrap_or(defaults.web.telemetry_path),
            config_file: merged.web_config_file,
        },
        log: Log {
            level: merged.log_level.unwrap_or_default(),
            format: merged.log_format.unwrap_or_default(),
        },
        probes: Probes {
            enable: names(merged.enable.as_ref()),
            disable: names(merged.disable.as_ref()),
            btf: merged.btf.unwrap_or_default(),
        },
        limits: Limits {
            max_label_sets: merged
                .max_label_sets
                .unwrap_or(defaults.limits.max_label_sets),
        },
        recorder: recorder(
            merged.recorder_path,
            merged.recorder_size,
            merged.recorder_age,
        ),
        hardening: Hardening {
            keep_capabilities: merged.keep_capabilities.unwrap_or_default(),
            seccomp: merged.seccomp.unwrap_or(defaults.hardening.seccomp),
        },
        audit: Audit {
            ignore: names(merged.audit_ignore.as_ref()),
        },
        kubernetes: Kubernetes {
            cri_socket: merged.cri_socket,
            pods: merged.pods.unwrap_or_default(),
            node: merged.node,
        },
        path_probes: merged.path_probes.unwrap_or_default(),
    })
}

/// A size of 0 switches it off.
fn recorder(path: Option<PathBuf>, size: Option<u64>, age: Option<Duration>) -> Option<Plan> {
    let size_bytes = size.unwrap_or(DEFAULT_RECORDER_SIZE);
    (size_bytes > 0).then(|| Plan {
        path,
        size_bytes,
        age: age.unwrap_or(DEFAULT_RECORDER_AGE),
    })
}

fn values<T>(given: Vec<Given<T>>) -> Vec<T> {
    given.into_iter().map(|given| given.value).collect()
}

fn names(given: Option<&Vec<Given<String>>>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for Given { value, .. } in given.into_iter().flatten() {
        if !names.contains(value) {
            names.push(value.clone());
        }
    }
    names
}

fn check_probes(layer: &Layer, known: &[&str]) -> Result<(), Error> {
    let (enable, disable) = (layer.enable.as_deref(), layer.disable.as_deref());
    let (enable, disable) = (enable.unwrap_or_default(), disable.unwrap_or_default());
    for Given { value, origin } in enable.iter().chain(disable) {
        if !known.contains(&value.as_str()) {
            return Err(Error::unknown(origin.clone(), "probe", value, known));
        }
    }
    match disable
        .iter()
        .find(|off| enable.iter().any(|on| on.value == off.value))
    {
        Some(Given { value, origin }) => Err(Error::Contradiction {
            origin: origin.clone(),
            name: value.clone(),
        }),
        None => Ok(()),
    }
}

fn check_addresses(layer: &Layer) -> Result<(), Error> {
    let mut seen = Vec::new();
    for Given { value, origin } in layer.listen_addresses.iter().flatten() {
        // Port 0 asks the kernel for any free port, each time another one.
        if value.port() != 0 && seen.contains(value) {
            return Err(Error::AddressTwice {
                origin: origin.clone(),
                address: *value,
            });
        }
        seen.push(*value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
