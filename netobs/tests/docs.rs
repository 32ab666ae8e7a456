//! `docs/metrics.md` and `docs/probes.md` are written from the code: a difference is a failure,
//! and `cargo xtask test --bless` (`NETOBS_BLESS=1`) writes them anew.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{fmt::Write as _, fs, path::Path};

use netobs::{
    ledger::{listeners, retransmits},
    metrics,
    probes::{self, Method, Probe},
    sys::netstat::Counter,
};
use netobs_common::probe::Loss;

#[test]
fn metrics() {
    holds("metrics.md", &metrics_page());
}

#[test]
fn probes() {
    holds("probes.md", &probes_page());
}

/// Compares a page with what the code says, or writes it.
fn holds(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept
        .lines()
        .zip(page.lines())
        .position(|(kept, page)| kept != page)
        .unwrap_or_else(|| kept.lines().count().min(page.lines().count()));
    assert!(
        kept == page,
        "docs/{name} is not what the code says, from line {}: `cargo xtask test --bless` writes it",
        differs + 1
    );
}

fn metrics_page() -> String {
    let mut page = String::from(
        "<!-- Written by netobs/tests/docs.rs from the code; do not edit. -->\n\
         # Metric families\n\n\
         Names are as exposed. `netns` is the inode number of a network namespace, as `lsns -t net` \
         and `ls -i /run/netns` show it. The label sets of a family are bounded \
         (`--max-label-sets`): what does not fit goes into one series whose labels say `other`. \
         Series of a listener or namespace that is gone stay for two minutes.\n\n\
         | family | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in metrics::descriptions() {
        let labels = code(family.labels);
        let (name, kind, help) = (&family.name, family.kind, family.help);
        writeln!(page, "| `{name}` | {kind} | {labels} | {help}. |").unwrap();
    }
    page.push_str("\n## Values of labels\n\n| label | of | values |\n|---|---|---|\n");
    let mut values = |label: &str, of: &str, values: Vec<&str>| {
        let values = code(&values);
        writeln!(page, "| `{label}` | {of} | {values} |").unwrap();
    };
    let stages = listeners::Stage::ALL.map(listeners::Stage::name);
    let reasons = listeners::Reason::ALL.map(listeners::Reason::name);
    let mut lost = Loss::ALL.map(Loss::name).to_vec();
    lost.push("decode");
    values("stage", "listen drops and overflows", stages.to_vec());
    values("reason", "listen drops", reasons.to_vec());
    values("role", "retransmissions", vec!["server", "client"]);
    values(
        "type",
        "retransmitted segments",
        retransmits::TYPES.map(|kind| kind.name()).to_vec(),
    );
    values("reason", "lost events", lost);
    values("probe", "probes attached", probes::names());
    values(
        "counter",
        "netstat; the ledger holds four of them",
        Counter::ALL.iter().map(|counter| counter.name()).collect(),
    );
    page
}

fn probes_page() -> String {
    let mut page = String::from(
        "<!-- Written by netobs/tests/docs.rs from the code; do not edit. -->\n\
         # Probes\n\n\
         In the order in which they are attached. Of a probe's methods, the first that this kernel \
         can carry out is used; `/status` and the log say why a better one is not. Every probe can \
         be switched off with `--no-probe NAME`. Fields are looked up in the running kernel's type \
         information (BTF) at start; a method of which one is missing is not used.\n",
    );
    for probe in probes::PROBES {
        section(&mut page, probe);
    }
    page
}

fn section(page: &mut String, probe: &Probe) {
    let Probe {
        name,
        observes,
        cost,
        without,
        requires,
        unless,
        optional: _,
        methods,
    } = probe;
    write!(
        page,
        "\n## {name}\n\n\
         - **Observes**: {observes}.\n\
         - **Cost**: {cost}.\n\
         - **Without it**: {without}.\n"
    )
    .unwrap();
    if let Some(required) = requires {
        writeln!(page, "- **Only with**: `{required}`.").unwrap();
    }
    if let Some(better) = unless {
        writeln!(page, "- **Not beside**: `{better}`, which sees more.").unwrap();
    }
    page.push_str("\n| | method | program | needs |\n|---|---|---|---|\n");
    for (index, method) in methods.iter().enumerate() {
        let kind = method.name();
        let names: Vec<&str> = method.programs.iter().map(|(name, _)| *name).collect();
        let program = names.join("`, `");
        let needs = needs(method);
        writeln!(page, "| {} | `{kind}` | `{program}` | {needs} |", index + 1).unwrap();
    }
}

fn needs(method: &Method) -> String {
    let paths: Vec<&str> = method.offsets.iter().map(|offset| offset.path()).collect();
    let fields = match paths.as_slice() {
        [] => String::new(),
        paths => format!("BTF with {}", code(paths)),
    };
    match (fields.as_str(), method.also.what) {
        (fields, "") => fields.to_owned(),
        ("", what) => what.to_owned(),
        (fields, what) => format!("{what}; {fields}"),
    }
}

fn code(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(" ")
}
