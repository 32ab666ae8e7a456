//! The table of settings that are read: how, from where, and what the kernel's default is.
//!
//! Defaults are from `Documentation/networking/ip-sysctl.rst` and `tcp_sk_init()` of the
//! versions named; they are used only where a fresh namespace could not be asked. A
//! default that depends on memory, on the kernel's configuration or on a vendor's patch
//! has no row.

use crate::audit::finding::FixPlace;
use crate::audit::kernel::Version;
use crate::audit::value::Kind;

/// Where a setting lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every network namespace has its own; it starts from the compiled default.
    Namespace,
    /// Every namespace has its own, but it starts as a copy of the initial namespace's.
    Inherited,
    /// One for the node, whether or not other namespaces can see it.
    Node,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name with dots, such as `net.ipv4.tcp_timestamps`.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// Where it lives.
    pub reach: Reach,
    /// Where it can be changed for a pod.
    pub place: FixPlace,
    /// (first version, default), oldest first; empty where no single default exists.
    pub defaults: &'static [(Version, &'static str)],
}

impl Key {
    /// The path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> String {
        self.name.replace('.', "/")
    }
}

/// Looks a setting up by its dotted name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const ALWAYS: Version = Version(0, 0);

/// A setting of every namespace that only the kubelet's allow-list opens to pods.
const fn ns(name: &'static str, kind: Kind, defaults: &'static [(Version, &'static str)]) -> Key {
    Key {
        name,
        kind,
        reach: Reach::Namespace,
        place: FixPlace::KubeletAllowList,
        defaults,
    }
}

/// A setting of every namespace that Kubernetes calls safe.
const fn safe(name: &'static str, kind: Kind, defaults: &'static [(Version, &'static str)]) -> Key {
    Key {
        name,
        kind,
        reach: Reach::Namespace,
        place: FixPlace::PodSafe,
        defaults,
    }
}

/// A setting of the node.
const fn node(name: &'static str, kind: Kind, defaults: &'static [(Version, &'static str)]) -> Key {
    Key {
        name,
        kind,
        reach: Reach::Node,
        place: FixPlace::NodeOnly,
        defaults,
    }
}

/// Every setting the auditor reads, in the order it reports them.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    ns("net.ipv4.tcp_timestamps", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_fastopen", Kind::Int, &[(Version(3, 13), "1")]),
    ns("net.ipv4.tcp_fastopen_key", Kind::Secret, &[]),
    ns("net.ipv4.tcp_fastopen_blackhole_timeout_sec", Kind::Int, &[(Version(4, 12), "3600"), (Version(5, 14), "0")]),
    ns("net.ipv4.tcp_tw_reuse", Kind::Int, &[(ALWAYS, "0"), (Version(4, 19), "2")]),
    ns("net.ipv4.tcp_tw_reuse_delay", Kind::Int, &[(ALWAYS, "1000")]),
    ns("net.ipv4.tcp_tw_recycle", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_max_tw_buckets", Kind::Int, &[]),
    safe("net.ipv4.tcp_fin_timeout", Kind::Int, &[(ALWAYS, "60")]),
    safe("net.ipv4.tcp_syncookies", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_max_syn_backlog", Kind::Int, &[]),
    ns("net.core.somaxconn", Kind::Int, &[(ALWAYS, "128"), (Version(5, 4), "4096")]),
    ns("net.ipv4.tcp_abort_on_overflow", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_migrate_req", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_syn_retries", Kind::Int, &[(Version(3, 7), "6")]),
    ns("net.ipv4.tcp_syn_linear_timeouts", Kind::Int, &[(ALWAYS, "4")]),
    ns("net.ipv4.tcp_synack_retries", Kind::Int, &[(ALWAYS, "5")]),
    ns("net.ipv4.tcp_retries1", Kind::Int, &[(ALWAYS, "3")]),
    ns("net.ipv4.tcp_retries2", Kind::Int, &[(ALWAYS, "15")]),
    ns("net.ipv4.tcp_orphan_retries", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_rto_min_us", Kind::Int, &[(ALWAYS, "200000")]),
    ns("net.ipv4.tcp_rto_max_ms", Kind::Int, &[(ALWAYS, "120000")]),
    ns("net.ipv4.tcp_sack", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_dsack", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_window_scaling", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_moderate_rcvbuf", Kind::Int, &[(ALWAYS, "1")]),
    Key { name: "net.ipv4.tcp_rmem", kind: Kind::Vector(3), reach: Reach::Inherited, place: FixPlace::PodSafe, defaults: &[] },
    Key { name: "net.ipv4.tcp_wmem", kind: Kind::Vector(3), reach: Reach::Inherited, place: FixPlace::PodSafe, defaults: &[] },
    ns("net.ipv4.tcp_notsent_lowat", Kind::Int, &[(ALWAYS, "4294967295")]),
    ns("net.ipv4.tcp_limit_output_bytes", Kind::Int, &[(Version(4, 20), "1048576"), (Version(6, 16), "4194304")]),
    ns("net.ipv4.tcp_shrink_window", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_challenge_ack_limit", Kind::Int, &[(ALWAYS, "100"), (Version(4, 7), "1000"), (Version(6, 1), "2147483647")]),
    ns("net.ipv4.tcp_l3mdev_accept", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_slow_start_after_idle", Kind::Int, &[(ALWAYS, "1")]),
    ns("net.ipv4.tcp_mtu_probing", Kind::Int, &[(ALWAYS, "0")]),
    ns("net.ipv4.tcp_ecn", Kind::Int, &[(ALWAYS, "2")]),
    ns("net.ipv4.tcp_ecn_fallback", Kind::Int, &[(ALWAYS, "1")]),
    Key { name: "net.ipv4.tcp_congestion_control", kind: Kind::Text, reach: Reach::Inherited, place: FixPlace::KubeletAllowList, defaults: &[] },
    safe("net.ipv4.tcp_keepalive_time", Kind::Int, &[(ALWAYS, "7200")]),
    safe("net.ipv4.tcp_keepalive_intvl", Kind::Int, &[(ALWAYS, "75")]),
    safe("net.ipv4.tcp_keepalive_probes", Kind::Int, &[(ALWAYS, "9")]),
    safe("net.ipv4.ip_local_port_range", Kind::Vector(2), &[(ALWAYS, "32768 60999")]),
    safe("net.ipv4.ip_local_reserved_ports", Kind::Text, &[(ALWAYS, "")]),
    node("net.ipv4.tcp_mem", Kind::Vector(3), &[]),
    node("net.ipv4.tcp_max_orphans", Kind::Int, &[]),
    node("net.core.netdev_max_backlog", Kind::Int, &[(ALWAYS, "1000")]),
    node("net.core.netdev_budget", Kind::Int, &[(ALWAYS, "300")]),
    node("net.core.default_qdisc", Kind::Text, &[]),
    node("net.core.rmem_max", Kind::Int, &[]),
    node("net.core.wmem_max", Kind::Int, &[]),
    node("net.ipv4.neigh.default.gc_thresh1", Kind::Int, &[(ALWAYS, "128")]),
    node("net.ipv4.neigh.default.gc_thresh3", Kind::Int, &[(ALWAYS, "1024")]),
    node("net.netfilter.nf_conntrack_max", Kind::Int, &[]),
    ns("net.netfilter.nf_conntrack_count", Kind::Int, &[]),
    ns("net.netfilter.nf_conntrack_tcp_timeout_established", Kind::Int, &[(ALWAYS, "432000")]),
    ns("net.netfilter.nf_conntrack_tcp_be_liberal", Kind::Int, &[(ALWAYS, "0")]),
];

/// Settings that kernels once had. A file that still sets one does nothing.
pub static DEAD_KEYS: &[(&str, &str)] = &[
    (
        "net.ipv4.tcp_tw_recycle",
        "removed in 4.12, after it had silently dropped clients behind NAT",
    ),
    ("net.ipv4.tcp_fack", "without effect since 4.15"),
    ("net.ipv4.tcp_low_latency", "without effect since 4.14"),
    ("net.ipv4.tcp_max_ssthresh", "removed in 3.9"),
    ("net.ipv4.tcp_cookie_size", "removed in 3.10"),
    ("net.ipv4.tcp_abc", "removed in 3.9"),
    ("net.ipv4.tcp_frto_response", "removed in 3.10"),
    ("net.ipv4.tcp_thin_dupack", "removed in 4.11"),
    ("net.ipv4.tcp_dma_copybreak", "removed in 3.18"),
    (
        "net.ipv4.route.max_size",
        "without effect for IPv4 since 3.6",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::KEYS;
    use crate::audit::value::{Kind, Reading};

    #[test]
    fn names_are_unique_and_defaults_parse() {
        let mut seen = BTreeSet::new();
        for key in KEYS {
            assert!(seen.insert(key.name), "{} twice", key.name);
            assert!(key.name.starts_with("net."));
            for (_, default) in key.defaults {
                assert_ne!(
                    Reading::parse(key.kind, default),
                    Reading::Malformed,
                    "{}",
                    key.name
                );
            }
            assert!(
                key.defaults.windows(2).all(|w| w[0].0 < w[1].0),
                "{}",
                key.name
            );
            assert!(key.kind != Kind::Secret || key.defaults.is_empty());
        }
    }
}
