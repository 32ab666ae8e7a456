//! `netobs run`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, builder::BoolishValueParser};

use super::{GlobalArgs, environment::Environment};
use crate::config::{
    BtfSource, Config, Error, KeepCapabilities, Overrides, parse_btf, parse_label_sets,
    parse_listen_address, parse_telemetry_path,
};

/// Observe TCP in the kernel and serve metrics for Prometheus
///
/// Attaches its probes, serves metrics until SIGTERM or SIGINT, then detaches and exits. It only
/// reads: nothing on this machine is changed. A probe that cannot attach is reported and the others
/// go on.
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RunArgs {
    /// Address to serve HTTP on; :PORT means all addresses. May be repeated [default:
    /// 127.0.0.1:10977]
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS:PORT",
        value_parser = parse_listen_address
    )]
    listen_addresses: Vec<SocketAddr>,
    /// Path of the metrics [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH", value_parser = parse_telemetry_path)]
    telemetry_path: Option<String>,
    /// File with TLS, users, headers and request rate, in the form of the Prometheus
    /// exporter-toolkit. It is read again when it, or a certificate in it, has changed
    #[arg(long = "web.config.file", value_name = "FILE")]
    web_config_file: Option<PathBuf>,
    /// TOML file with a key for every flag; flags and variables win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the defaults when the file of --config is not there
    #[arg(long = "config.optional")]
    config_optional: bool,
    /// Check flags, variables, the file of --config and the files that it names, say what is wrong
    /// and where, and exit; nothing is attached
    #[arg(long = "config.check")]
    pub config_check: bool,
    /// Probe to attach on top of those that are on by default. May be repeated
    #[arg(long = "probe", value_name = "NAME")]
    enable: Vec<String>,
    /// Probe not to attach. May be repeated
    #[arg(long = "no-probe", value_name = "NAME")]
    disable: Vec<String>,
    /// File with the kernel's type information (BTF) in place of the running kernel's own; `none`
    /// uses only methods that need none
    #[arg(long, value_name = "FILE|none", value_parser = parse_btf)]
    btf: Option<BtfSource>,
    /// Label sets per metric family before new ones are folded into `other` [default: 1000]
    #[arg(long, value_name = "NUMBER", value_parser = parse_label_sets)]
    max_label_sets: Option<usize>,
    /// Which capabilities to keep once everything is attached [default: auto]
    #[arg(long = "capabilities.keep", value_name = "WHICH")]
    keep_capabilities: Option<KeepCapabilities>,
    /// Do not refuse system calls that are not needed any more once everything is attached
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        value_parser = BoolishValueParser::new()
    )]
    no_seccomp: Option<bool>,
    /// Socket of the container runtime, to ask for the names of pods and containers, such as
    /// /run/containerd/containerd.sock
    #[arg(long = "kubernetes.cri-socket", value_name = "PATH")]
    cri_socket: Option<PathBuf>,
    /// Ask the Kubernetes API for the names of this node's pods, with the rights of the pod's
    /// service account: to list and watch pods
    #[arg(
        long = "kubernetes.pods",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        value_parser = BoolishValueParser::new()
    )]
    pods: Option<bool>,
    /// Name of this node in the Kubernetes API [default: $NODE_NAME]
    #[arg(long = "kubernetes.node", value_name = "NAME")]
    node: Option<String>,
    /// Rule of the sysctl auditor whose findings are not exposed as metrics, such as
    /// NETOBS-TCP-001. May be repeated
    #[arg(long = "audit.ignore", value_name = "ID")]
    audit_ignore: Vec<String>,
}

const AFTER_HELP: &str = "\
Needs root, or the capabilities CAP_BPF and CAP_PERFMON; `netobs check` says what others are for.

Every flag can also be given by a variable of the environment: NETOBS_ and its name in capitals,
with _ for . and -, such as NETOBS_WEB_LISTEN_ADDRESS or NETOBS_LOG_LEVEL; lists with commas. A
flag wins over its variable, that over the file, that over the default.

SIGHUP reads the file and the web configuration again. The log level, the label cap, ignored rules,
the path probes' targets and the web configuration take effect at once, and no count is lost; of other keys
that have changed the log says that they need a restart. A file that cannot be used changes nothing.

Examples:
  netobs run
      Metrics at http://127.0.0.1:10977/metrics, state at http://127.0.0.1:10977/status.
  netobs run --web.listen-address :10977
      The same on all addresses, for a Prometheus server elsewhere.
  netobs run --config /etc/netobs/netobs.toml --config.check
      Say what is wrong with a file before the agent is restarted with it.

A configuration file:
  [web]
  listen_address = [\"127.0.0.1:10977\"]
  telemetry_path = \"/metrics\"
  # config_file = \"/etc/netobs/web.yml\"
  [log]
  level = \"info\"
  format = \"text\"
  [probes]
  enable = []
  disable = []
  # btf = \"none\"
  [limits]
  max_label_sets = 1000
  [hardening]
  keep_capabilities = \"auto\"
  seccomp = true
  [kubernetes]
  # cri_socket = \"/run/containerd/containerd.sock\"
  pods = false
  # node = \"worker-1\"
  [audit]
  ignore = []
  [probe]
  max_concurrent = 32
  [[probe.target]]
  name = \"orders\"
  target = \"https://orders.example/health\"
  interval = \"30s\"

Exit codes:
  0  stopped by SIGTERM or SIGINT, or the configuration is valid
  1  the agent could not run
  2  the command line or the configuration is wrong";

/// The file to read: none when none is named, or when it may be missing and is.
#[must_use]
pub fn config_file(
    flag: Option<&Path>,
    optional: bool,
    environment: &Environment,
) -> Option<PathBuf> {
    let named = flag.or(environment.run.config.as_deref())?;
    let optional = optional || environment.run.config_optional;
    let missing = || std::fs::symlink_metadata(named).is_err_and(|error| is_missing(&error));
    (!(optional && missing())).then(|| named.to_owned())
}

impl RunArgs {
    /// [`config_file`] of these flags.
    #[must_use]
    pub fn config_file(&self, environment: &Environment) -> Option<PathBuf> {
        config_file(self.config.as_deref(), self.config_optional, environment)
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// What the user typed and what the environment says, the file read and everything checked.
/// `known_probes` are the names that may be enabled or disabled.
///
/// # Errors
/// When the file, the flags or the variables are wrong.
pub fn configure(
    args: &RunArgs,
    globals: &GlobalArgs,
    environment: &Environment,
    known_probes: &[&str],
) -> Result<Config, Error> {
    Config::resolve_all(
        args.config_file(environment).as_deref(),
        overrides(&environment.run, &environment.globals),
        overrides(args, globals),
        known_probes,
    )
}

/// One layer, of flags or of variables.
pub(super) fn overrides(args: &RunArgs, globals: &GlobalArgs) -> Overrides {
    Overrides {
        listen_addresses: args.listen_addresses.clone(),
        telemetry_path: args.telemetry_path.clone(),
        web_config_file: args.web_config_file.clone(),
        log_level: globals.log_level,
        log_format: globals.log_format,
        enable: args.enable.clone(),
        disable: args.disable.clone(),
        btf: args.btf.clone(),
        max_label_sets: args.max_label_sets,
        keep_capabilities: args.keep_capabilities,
        seccomp: args.no_seccomp.map(|no| !no),
        cri_socket: args.cri_socket.clone(),
        pods: args.pods,
        node: args.node.clone(),
        audit_ignore: args.audit_ignore.clone(),
    }
}
