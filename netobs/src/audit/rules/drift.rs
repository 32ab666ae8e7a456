//! Namespaces against each other: what the host was tuned to and the pods were not.

use std::collections::BTreeMap;

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::keys::{KEYS, Reach};
use crate::audit::snapshot::{Namespace, State};
use crate::audit::subject::Subject;
use crate::audit::value::{Kind, Reading};

const CONTROL: &str = "net.ipv4.tcp_congestion_control";

/// Values shown of one setting.
const MAX_GROUPS: usize = 8;

/// Settings whose difference matters; those that follow from load or memory are left out.
static COMPARED: &[&str] = &[
    "net.core.somaxconn",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.ip_local_port_range",
];

pub(super) static RULES: &[&Rule] = &[&NOT_INHERITED, &BORN_DIFFERENT, &DIFFERENT];

static NOT_INHERITED: Rule = Rule {
    id: "NETOBS-TCP-110",
    title: "The host was tuned, this namespace was not",
    applies: Applies::OtherNamespace,
    severity: Severity::Info,
    keys: COMPARED,
    doc: Doc {
        checks: "The host's value differs from the kernel's default, and this namespace still has the default.",
        why: "A new network namespace starts from the kernel's compiled defaults, not from the host's values. Tuning the node does not reach the pods on it.",
        evidence: "The two values. Always advice.",
        suggestion: "Set it in the pod's securityContext where the program needs it; safe settings need nothing else, others the kubelet's allow-list.",
        ignore: "The tuning was meant for the host alone.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/tcp_ipv4.c: tcp_sk_init()",
            "https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/",
        ],
    },
    check: not_inherited,
};

fn not_inherited(s: &Subject<'_>) -> Verdict {
    let host = &s.machine.host.settings;
    let mut problems = Vec::new();
    for key in KEYS.iter().filter(|k| {
        COMPARED.contains(&k.name) && k.reach == Reach::Namespace && k.kind != Kind::Secret
    }) {
        let (Some(there), Some(here)) = (
            host.get(key.name).and_then(Reading::value),
            s.reading(key.name).value(),
        ) else {
            continue;
        };
        let Some(default) = s.default_of(key.name) else {
            continue;
        };
        if there == here || here != default.value {
            continue;
        }
        problems.push(
            Problem::new(
                Severity::Info,
                key.name,
                format!(
                    "the host has {there}, and this namespace the default, which it did not inherit"
                ),
            )
            .wanted(format!(
                "{there}, if the host's tuning was meant for this program as well"
            ))
            .set(there.clone())
            .with([Evidence::context("host", format!("{} = {there}", key.name))]),
        );
    }
    Ok(problems)
}

static BORN_DIFFERENT: Rule = Rule {
    id: "NETOBS-TCP-111",
    title: "Congestion control differs from the host's",
    applies: Applies::OtherNamespace,
    severity: Severity::Info,
    keys: &[CONTROL],
    doc: Doc {
        checks: "tcp_congestion_control of this namespace is not the host's.",
        why: "It is one of the few settings a namespace copies from the host, at birth. When the host changes later, old namespaces keep the old algorithm: two pods of one node then behave differently.",
        evidence: "The two names. Always advice.",
        suggestion: "Restart what was made before the change, or set it in the pod.",
        ignore: "It was chosen for this namespace.",
        sources: &[IP_SYSCTL, "6670e1524477 (4.15: inherited at birth)"],
    },
    check: born_different,
};

fn born_different(s: &Subject<'_>) -> Verdict {
    let here = s.text(CONTROL)?;
    let Some(Reading::Text(there)) = s.machine.host.settings.get(CONTROL) else {
        return Ok(vec![]);
    };
    if here == there {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            CONTROL,
            format!("this namespace has {here}, the host {there}"),
        )
        .wanted("the host's, which a namespace takes over when it is made")
        .set(there.clone())
        .with([Evidence::context("host", format!("{CONTROL} = {there}"))]),
    ])
}

static DIFFERENT: Rule = Rule {
    id: "NETOBS-TCP-112",
    title: "Namespaces of this node differ from each other",
    applies: Applies::Node,
    severity: Severity::Info,
    keys: COMPARED,
    doc: Doc {
        checks: "Two or more namespaces other than the host's have different values of a setting.",
        why: "Pods of one node then behave differently under the same load. It is often meant; when it is not, it explains why only some replicas time out.",
        evidence: "The values, and how many namespaces have each. Always advice.",
        suggestion: "Compare the securityContext of the pods, and the images and init containers that write settings.",
        ignore: "The pods are different programs and each was tuned for itself.",
        sources: &[IP_SYSCTL],
    },
    check: different,
};

fn different(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in COMPARED.iter().copied() {
        let mut groups: BTreeMap<String, Vec<&Namespace>> = BTreeMap::new();
        for ns in s
            .machine
            .others
            .iter()
            .filter(|ns| ns.selected && ns.state == State::Audited)
        {
            if let Some(value) = ns.settings.get(key).and_then(Reading::value) {
                groups.entry(value).or_default().push(ns);
            }
        }
        if groups.len() < 2 {
            continue;
        }
        let count: usize = groups.values().map(Vec::len).sum();
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
        let facts = groups.iter().take(MAX_GROUPS).map(|(value, members)| {
            let names: Vec<String> = members.iter().take(3).map(|ns| ns.name()).collect();
            let more = if members.len() > 3 { ", ..." } else { "" };
            let text = format!("{} namespaces: {}{more}", members.len(), names.join(", "));
            Evidence::context(format!("{key} = {value}"), text)
        });
        problems.push(
            Problem::new(
                Severity::Info,
                key,
                format!("{count} namespaces have {} different values", groups.len()),
            )
            .wanted("one value, unless the programs are different")
            .advise("compare the pods that should be alike")
            .with(facts),
        );
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::CONTROL;
    use crate::audit::finding::Basis::Advice;
    use crate::audit::finding::Severity::Info;
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn tuning_that_did_not_arrive() {
        let cap = "net.core.somaxconn";
        let with = |host, here| Fixture::new(&[(cap, host)]).other(&[(cap, here)]);
        assert_eq!(with("65535", "4096").ask("110"), found(Info, Advice));
        assert_eq!(with("65535", "1024").ask("110"), Said::Pass);
        assert_eq!(with("4096", "4096").ask("110"), Said::Pass);
        let control = |host, here| Fixture::new(&[(CONTROL, host)]).other(&[(CONTROL, here)]);
        assert_eq!(control("bbr", "cubic").ask("111"), found(Info, Advice));
        assert_eq!(control("bbr", "bbr").ask("111"), Said::Pass);
        assert_eq!(Fixture::new(&[]).other(&[]).ask("111"), Said::NotApplicable);
        let three = |a, b, c| {
            Fixture::new(&[])
                .other(&[(cap, a)])
                .other(&[(cap, b)])
                .other(&[(cap, c)])
        };
        assert_eq!(three("1", "1", "1").ask("112"), Said::Pass);
        assert_eq!(three("1", "2", "1").ask("112"), found(Info, Advice));
    }
}
