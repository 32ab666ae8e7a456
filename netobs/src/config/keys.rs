//! The keys of the file, each with its flag, its default and when a change takes effect.

use super::Config;

/// A key of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted, as messages name it.
    pub name: &'static str,
    /// The flag of `netobs run` that says the same; empty where there is none.
    pub flag: &'static str,
    /// As the file would have it; empty where there is none.
    pub default: &'static str,
    /// Whether SIGHUP brings a change into force; otherwise it takes a restart.
    pub live: bool,
}

const fn key(name: &'static str, flag: &'static str, default: &'static str, live: bool) -> Key {
    Key {
        name,
        flag,
        default,
        live,
    }
}

/// All of them, in the order of the file that the help shows.
pub const KEYS: [Key; 17] = [
    key(
        "web.listen_address",
        "--web.listen-address",
        "[\"127.0.0.1:10977\"]",
        false,
    ),
    key(
        "web.telemetry_path",
        "--web.telemetry-path",
        "\"/metrics\"",
        false,
    ),
    key("web.config_file", "--web.config.file", "", false),
    key("log.level", "--log-level", "\"info\"", true),
    key("log.format", "--log-format", "\"text\"", false),
    key("probes.enable", "--probe", "[]", false),
    key("probes.disable", "--no-probe", "[]", false),
    key("probes.btf", "--btf", "", false),
    key("limits.max_label_sets", "--max-label-sets", "1000", true),
    key(
        "hardening.keep_capabilities",
        "--capabilities.keep",
        "\"auto\"",
        false,
    ),
    key("hardening.seccomp", "--no-seccomp", "true", false),
    key(
        "kubernetes.cri_socket",
        "--kubernetes.cri-socket",
        "",
        false,
    ),
    key("kubernetes.pods", "--kubernetes.pods", "false", false),
    key("kubernetes.node", "--kubernetes.node", "", false),
    key("audit.ignore", "--audit.ignore", "[]", true),
    key("probe.max_concurrent", "", "32", true),
    key("probe.target", "", "[]", true),
];

/// The keys by which two configurations differ.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Key> {
    // Without `..`: a new field that is not compared does not compile.
    let Config {
        web,
        log,
        probes,
        limits,
        hardening,
        kubernetes,
        audit,
        path_probes,
    } = old;
    let differs: [bool; KEYS.len()] = [
        web.listen_addresses != new.web.listen_addresses,
        web.telemetry_path != new.web.telemetry_path,
        web.config_file != new.web.config_file,
        log.level != new.log.level,
        log.format != new.log.format,
        probes.enable != new.probes.enable,
        probes.disable != new.probes.disable,
        probes.btf != new.probes.btf,
        limits.max_label_sets != new.limits.max_label_sets,
        hardening.keep_capabilities != new.hardening.keep_capabilities,
        hardening.seccomp != new.hardening.seccomp,
        kubernetes.cri_socket != new.kubernetes.cri_socket,
        kubernetes.pods != new.kubernetes.pods,
        kubernetes.node != new.kubernetes.node,
        audit.ignore != new.audit.ignore,
        path_probes.max_concurrent != new.path_probes.max_concurrent,
        path_probes.targets != new.path_probes.targets,
    ];
    let pairs = KEYS.into_iter().zip(differs);
    pairs
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, file};

    #[test]
    fn they_are_those_that_the_file_may_have() {
        let in_file = file::KEYS
            .iter()
            .flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}")));
        assert_eq!(in_file.collect::<Vec<_>>(), KEYS.map(|key| key.name));
    }

    #[test]
    fn a_change_is_named() {
        let old = Config::default();
        assert_eq!(changes(&old, &old), []);
        let mut new = old.clone();
        new.log.level = LogLevel::Debug;
        new.web.telemetry_path = "/m".to_owned();
        let named = changes(&old, &new);
        let named: Vec<_> = named.iter().map(|key| (key.name, key.live)).collect();
        assert_eq!(named, [("web.telemetry_path", false), ("log.level", true)]);
    }
}
