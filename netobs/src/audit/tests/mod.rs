//! The auditor as a whole: golden reports over fixture trees, the published schema, the
//! generated page, and real namespaces.

mod fixture;
mod live;
pub(crate) mod schema;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::metrics::AuditMetrics;
use super::{
    AuditError, Outcome, Report, ScopeState, Selection, Severity, Status, Style, audit, docs,
    explain, select_keys, write_junit, write_sarif, write_text,
};

const FIXTURES: [&str; 3] = ["4.9-recycle", "5.10-fastopen", "6.18-clean"];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/audit/tests")
        .join(path)
}

/// Compares with a checked-in file, or rewrites it when `NETOBS_BLESS=1`.
fn golden(path: &Path, now: &str) {
    if std::env::var_os("NETOBS_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(path, now).unwrap();
    }
    let want = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        want == now,
        "{} differs; look at the change and run again with NETOBS_BLESS=1\n{now}",
        path.display()
    );
}

fn fixture_text(name: &str) -> String {
    std::fs::read_to_string(here(&format!("fixtures/{name}.txt"))).unwrap()
}

fn report(name: &str) -> Report {
    let mut report = audit(
        &fixture::machine(&fixture_text(name)),
        &Selection::default(),
    );
    report.netobs_version = "0.0.0".to_owned();
    report
}

fn text(report: &Report, style: Style) -> String {
    let mut out = Vec::new();
    write_text(report, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn reports_are_as_they_were() {
    for name in FIXTURES {
        let report = report(name);
        golden(
            &here(&format!("golden/{name}.txt")),
            &text(&report, Style::default()),
        );
        golden(
            &here(&format!("golden/{name}.json")),
            &report.to_json().unwrap(),
        );
    }
    let report = report("5.10-fastopen");
    golden(
        &here("golden/5.10-fastopen.xml"),
        &write_junit(&report, Severity::Critical),
    );
    golden(
        &here("golden/5.10-fastopen.sarif"),
        &write_sarif(&report).unwrap(),
    );
}

#[test]
fn no_form_of_the_report_shows_a_secret() {
    let report = report("5.10-fastopen");
    let all = Style {
        all: true,
        colour: true,
    };
    for form in [
        text(&report, all),
        report.to_json().unwrap(),
        write_junit(&report, Severity::Info),
        write_sarif(&report).unwrap(),
        format!("{report:?}"),
    ] {
        assert!(!form.contains("c0de"));
    }
}

#[test]
fn reports_follow_the_published_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-report.schema.json");
    let schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for name in FIXTURES {
        let value = serde_json::to_value(report(name)).unwrap();
        assert_eq!(
            schema::violations(&schema, &value),
            Vec::<String>::new(),
            "{name}"
        );
    }
    let mut broken = serde_json::to_value(report(FIXTURES[0])).unwrap();
    broken["findings"][0]["severity"] = "fatal".into();
    broken["partial"] = 1.into();
    assert_eq!(schema::violations(&schema, &broken).len(), 2);
}

#[test]
fn the_page_is_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sysctl-rules.md");
    golden(&path, &docs::page());
}

#[test]
fn outcomes_follow_threshold_and_partiality() {
    assert_eq!(report("6.18-clean").outcome(Severity::Info), Outcome::Fine);
    let bad = report("5.10-fastopen");
    assert!(bad.partial);
    assert_eq!(bad.outcome(Severity::Critical), Outcome::Findings);
    let mut quiet = bad.clone();
    quiet.findings.retain(|f| f.status != Status::Finding);
    assert_eq!(quiet.outcome(Severity::Info), Outcome::Partial);
}

#[test]
fn a_selection_of_keys_keeps_only_them() {
    let keys = select_keys("tcp_timestamps").unwrap();
    assert_eq!(keys, ["net.ipv4.tcp_timestamps"]);
    assert!(select_keys("net.ipv4.tcp_fastopen*").unwrap().len() > 2);
    assert_eq!(
        select_keys("net/core/somaxconn").unwrap(),
        ["net.core.somaxconn"]
    );
    for unknown in ["", "tcp_nothing", "[", "\u{1b}"] {
        assert!(
            matches!(select_keys(unknown), Err(AuditError::UnknownKey { .. })),
            "{unknown:?}"
        );
    }
    let text = fixture_text("5.10-fastopen");
    let report = audit(&fixture::machine(&text), &Selection { keys });
    let about: BTreeSet<&str> = report.problems().map(|f| f.key).collect();
    assert_eq!(about, BTreeSet::from(["net.ipv4.tcp_timestamps"]));
}

#[test]
fn every_rule_can_be_explained_and_an_unknown_one_cannot() {
    for rule in super::rules::all() {
        let text = explain(rule.id).unwrap();
        for heading in [
            "What it checks",
            "Why it matters",
            "Evidence",
            "When to ignore",
        ] {
            assert!(text.contains(heading), "{}", rule.id);
        }
        assert!(
            text.lines().all(|l| l.chars().count() <= 110),
            "{}",
            rule.id
        );
    }
    assert!(matches!(
        explain("NETOBS-TCP-999"),
        Err(AuditError::UnknownRule { .. })
    ));
}

#[test]
fn metrics_follow_the_report() {
    let text = fixture_text("5.10-fastopen");
    let machine = fixture::machine(&text);
    let report = audit(&machine, &Selection::default());
    let metrics = AuditMetrics::default();
    let mut registry = Registry::with_prefix("netobs");
    metrics.register(&mut registry);
    let folded = metrics.fill(&machine, &report);
    assert_eq!((folded.values, folded.findings), (0, 0));
    let mut out = String::new();
    encode(&mut out, &registry).unwrap();
    for line in [
        "netobs_sysctl_value{netns=\"4026531840\",key=\"net.ipv4.tcp_timestamps\",index=\"\"} 0",
        "netobs_sysctl_value{netns=\"4026531840\",key=\"net.ipv4.tcp_rmem\",index=\"2\"} 6291456",
        "netobs_sysctl_finding{netns=\"4026531840\",id=\"NETOBS-TCP-020\",severity=\"warning\"} 1",
        &format!(
            "netobs_sysctl_findings{{netns=\"4026531840\",severity=\"critical\"}} {}",
            report.totals.critical
        ),
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}");
    }
    assert!(!out.contains("fastopen_key\""));
    // The next report has nothing to say: what was there goes.
    let clean = fixture_text("6.18-clean");
    let machine = fixture::machine(&clean);
    metrics.fill(&machine, &audit(&machine, &Selection::default()));
    out.clear();
    encode(&mut out, &registry).unwrap();
    assert!(!out.contains("netobs_sysctl_finding{"), "{out}");
    assert!(out.contains("severity=\"critical\"} 0"));
}

#[test]
fn a_namespace_that_vanished_is_said_and_is_not_partial() {
    let text = fixture_text("6.18-clean");
    let mut machine = fixture::machine(&text);
    let mut gone = super::snapshot::Namespace::empty(4_026_532_001, false);
    gone.state = super::snapshot::State::Gone;
    machine.others.push(gone.clone());
    let report = audit(&machine, &Selection::default());
    assert!(!report.partial);
    assert_eq!(report.scopes[1].state, ScopeState::Gone);
    gone.state = super::snapshot::State::Unreadable("not allowed".to_owned());
    machine.others.push(gone);
    let report = audit(&machine, &Selection::default());
    assert!(report.partial);
    assert_eq!(report.outcome(Severity::Info), Outcome::Partial);
    machine.others.clear();
    assert!(!audit(&machine, &Selection::default()).partial);
    machine.hidden_processes = 3;
    assert!(audit(&machine, &Selection::default()).partial);
}

mod extremes {
    use proptest::prelude::*;

    use super::super::{KEYS, Kind, Reading, Selection, audit, snapshot};
    use super::fixture;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(i64::MIN),
            Just(i64::MAX),
            Just(-1),
            -3_i64..8,
            0_i64..100_000,
            any::<i64>()
        ]
    }

    fn reading(kind: Kind) -> BoxedStrategy<Reading> {
        let value = match kind {
            Kind::Int => number().prop_map(Reading::Int).boxed(),
            Kind::Vector(n) => proptest::collection::vec(number(), n)
                .prop_map(Reading::Vector)
                .boxed(),
            Kind::Text => "[a-z0-9,-]{0,20}".prop_map(Reading::Text).boxed(),
            Kind::Secret => "[01-]{0,9}"
                .prop_map(|raw| Reading::parse(Kind::Secret, &raw))
                .boxed(),
        };
        prop_oneof![
            8 => value,
            1 => Just(Reading::Missing),
            1 => Just(Reading::Malformed),
        ]
        .boxed()
    }

    fn settings() -> impl Strategy<Value = snapshot::Settings> {
        let each: Vec<_> = KEYS.iter().map(|key| reading(key.kind)).collect();
        each.prop_map(|all| KEYS.iter().map(|key| key.name).zip(all).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_the_kernel_says_is_judged(host in settings(), pod in settings(), ports in any::<u32>()) {
            let mut machine = fixture::machine(&super::fixture_text("5.10-fastopen"));
            let mut other = snapshot::Namespace::empty(1, false);
            other.sockets = machine.host.sockets.clone();
            if let Some(sockets) = &mut other.sockets {
                sockets.port_use.push(snapshot::PortUse {
                    source: "::1".parse().unwrap(),
                    destination: "[::1]:1".parse().unwrap(),
                    ports,
                    time_wait: ports,
                });
                sockets.established.largest_bdp_bytes = u64::from(ports) << 31;
            }
            other.sockstat = Some(snapshot::Sockstat {
                orphans: u64::MAX,
                time_wait: u64::MAX,
                mem_pages: u64::MAX,
            });
            machine.host.sockstat = other.sockstat;
            machine.host.neighbours = Some(u64::MAX / 2);
            machine.host.settings = host;
            other.settings = pod;
            machine.others.push(other);
            let report = audit(&machine, &Selection::default());
            prop_assert!(report.to_json().is_ok());
        }
    }
}
