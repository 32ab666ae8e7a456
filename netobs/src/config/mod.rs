//! [`Config`]: what the agent shall do, as plain checked data.
//!
//! Three layers, later ones win: the defaults, the TOML file, the flags ([`Overrides`]). Every flag
//! has a key in the file. A list given by flags replaces the list in the file. What is wrong is an
//! [`Error`] that says where it stands and what would be right; nothing is ignored.
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
//! [hardening]
//! keep_capabilities = "auto"            # after attaching: auto, none, all; see docs/privileges.md
//! seccomp = true                        # refuse system calls that are not needed any more
//!
//! [kubernetes]
//! # cri_socket = "/run/containerd/containerd.sock"  # names of pods from the container runtime
//! pods = false                          # names of pods from the Kubernetes API
//! # node = "worker-1"                   # whose pods; without the key, $NODE_NAME
//! ```

mod error;
mod file;
mod nearest;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use self::{
    error::{Error, Origin},
    value::{
        BtfSource, DEFAULT_LISTEN_ADDRESS, KeepCapabilities, LogFormat, LogLevel, MAX_LABEL_SETS,
        ValueError, parse_btf, parse_label_sets, parse_listen_address, parse_telemetry_path,
    },
};

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
    /// What is given up once everything is attached.
    pub hardening: Hardening,
    /// Where names of pods and containers come from.
    pub kubernetes: Kubernetes,
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
            hardening: Hardening::default(),
            kubernetes: Kubernetes::default(),
        }
    }
}

/// What the flags say. An empty list or `None` leaves the matter to the file.
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
    pub keep_capabilities: Option<KeepCapabilities>,
    pub seccomp: Option<bool>,
    pub cri_socket: Option<PathBuf>,
    pub pods: Option<bool>,
    pub node: Option<String>,
}

/// A value and where it was given, for messages.
#[derive(Clone, Debug)]
struct Given<T> {
    value: T,
    origin: Origin,
}

impl<T> Given<T> {
    fn by_flag(value: T, flag: &'static str) -> Self {
        Self {
            value,
            origin: Origin::Flag(flag),
        }
    }
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
    keep_capabilities: Option<KeepCapabilities>,
    seccomp: Option<bool>,
    cri_socket: Option<PathBuf>,
    pods: Option<bool>,
    node: Option<String>,
}

impl From<Overrides> for Layer {
    fn from(flags: Overrides) -> Self {
        fn list<T>(values: Vec<T>, flag: &'static str) -> Option<Vec<Given<T>>> {
            let given = |value| Given::by_flag(value, flag);
            (!values.is_empty()).then(|| values.into_iter().map(given).collect())
        }
        Self {
            listen_addresses: list(flags.listen_addresses, "--web.listen-address"),
            telemetry_path: flags.telemetry_path,
            web_config_file: flags.web_config_file,
            log_level: flags.log_level,
            log_format: flags.log_format,
            enable: list(flags.enable, "--probe"),
            disable: list(flags.disable, "--no-probe"),
            btf: flags.btf,
            max_label_sets: flags.max_label_sets,
            keep_capabilities: flags.keep_capabilities,
            seccomp: flags.seccomp,
            cri_socket: flags.cri_socket,
            pods: flags.pods,
            node: flags.node,
        }
    }
}

impl Config {
    /// Merges defaults, file and flags, and checks the whole. `known_probes` are the names that may
    /// be enabled or disabled.
    ///
    /// A probe that the flags name is taken out of the file's opposite list: flags win.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it or in the flags is wrong.
    pub fn resolve(
        file: Option<&Path>,
        flags: Overrides,
        known_probes: &[&str],
    ) -> Result<Self, Error> {
        let file = file.map(file::read).transpose()?.unwrap_or_default();
        merge(file, flags.into(), known_probes)
    }
}

fn merge(file: Layer, flags: Layer, known_probes: &[&str]) -> Result<Config, Error> {
    let defaults = Config::default();
    for layer in [&file, &flags] {
        check_probes(layer, known_probes)?;
        check_addresses(layer)?;
    }
    let (enable, disable) = merge_probes(&file, &flags);
    let addresses = flags.listen_addresses.or(file.listen_addresses);
    Ok(Config {
        web: Web {
            listen_addresses: addresses.map_or(defaults.web.listen_addresses, values),
            telemetry_path: flags
                .telemetry_path
                .or(file.telemetry_path)
                .unwrap_or(defaults.web.telemetry_path),
            config_file: flags.web_config_file.or(file.web_config_file),
        },
        log: Log {
            level: flags.log_level.or(file.log_level).unwrap_or_default(),
            format: flags.log_format.or(file.log_format).unwrap_or_default(),
        },
        probes: Probes {
            enable,
            disable,
            btf: flags.btf.or(file.btf).unwrap_or_default(),
        },
        limits: Limits {
            max_label_sets: flags
                .max_label_sets
                .or(file.max_label_sets)
                .unwrap_or(defaults.limits.max_label_sets),
        },
        hardening: Hardening {
            keep_capabilities: flags
                .keep_capabilities
                .or(file.keep_capabilities)
                .unwrap_or_default(),
            seccomp: flags
                .seccomp
                .or(file.seccomp)
                .unwrap_or(defaults.hardening.seccomp),
        },
        kubernetes: Kubernetes {
            cri_socket: flags.cri_socket.or(file.cri_socket),
            pods: flags.pods.or(file.pods).unwrap_or_default(),
            // The flag can be the environment's; what the file says is meant.
            node: file.node.or(flags.node),
        },
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

fn merge_probes(file: &Layer, flags: &Layer) -> (Vec<String>, Vec<String>) {
    let (flag_enable, flag_disable) = (names(flags.enable.as_ref()), names(flags.disable.as_ref()));
    let pick = |own: &[String], file: Option<&Vec<Given<String>>>, opposite: &[String]| {
        let mut picked = if own.is_empty() {
            names(file)
        } else {
            own.to_vec()
        };
        picked.retain(|name| !opposite.contains(name));
        picked
    };
    (
        pick(&flag_enable, file.enable.as_ref(), &flag_disable),
        pick(&flag_disable, file.disable.as_ref(), &flag_enable),
    )
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
