//! `docs/metrics.md` and `docs/probes.md` are written from the code: a difference is a failure,
//! and `cargo xtask test --bless` (`NETOBS_BLESS=1`) writes them anew.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{fmt::Write as _, fs, path::Path};

use clap::CommandFactory as _;
use netobs::{
    ledger::{listeners, retransmits},
    metrics,
    path::{ErrorType, Phase},
    probes::{self, Method, Probe},
    sys::netstat::Counter,
    trace,
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

#[test]
fn trace_lines() {
    let mut page = String::from(
        "<!-- Written by netobs/tests/docs.rs from the code; do not edit. -->\n\
         # Lines of `netobs trace`\n\n\
         `netobs trace --json` and an agent's `/events` write one JSON object a line, of the form that \
         [trace.schema.json](trace.schema.json) (JSON Schema) describes. `schema_version` is ",
    );
    write!(
        page,
        "{}; within one version fields, kinds of events and words may be added, none is removed and \
         none changes its meaning.\n\n\
         Every line has `time` (wall clock, RFC 3339 with its zone), `ktime_ns` (the kernel's monotonic \
         clock), `event`, `method` (`event` when it was seen happening, `poll` when it was found by \
         looking), `netns` (inode number), `socket` (`id` tells sockets apart within one output; \
         `state`; `role`), `local` and `peer` (`address`, `port`), `owner` (`pid`, `process`, \
         `container_id`, `pod_uid`), `listener` (where the socket's listener listens), and `detail`, which \
         differs by kind. What is not known is null.\n",
        trace::SCHEMA_VERSION
    )
    .unwrap();
    page.push_str(&trace::page());
    holds("trace.md", &page);
    holds("trace.schema.json", &format!("{:#}\n", trace::schema()));
}

#[test]
fn configuration() {
    holds("configuration.md", &configuration_page());
}

/// The causes stand in the middle of a page that people wrote.
#[test]
fn path_probes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/path-probes.md");
    let kept = fs::read_to_string(path).unwrap();
    let begin = "from the code -->\n";
    let (before, rest) = kept.split_once(begin).unwrap();
    let (_, after) = rest.split_once("<!-- end of causes -->").unwrap();
    let mut causes = String::from("| `error_type` | meaning |\n|---|---|\n");
    for (cause, meaning) in ErrorType::ALL {
        writeln!(causes, "| `{}` | {} |", cause.name(), meaning.trim()).unwrap();
    }
    holds(
        "path-probes.md",
        &format!("{before}{begin}{causes}<!-- end of causes -->{after}"),
    );
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
    let mut phases = Phase::ALL.map(Phase::name).to_vec();
    values("phase", "failures of path probes", phases.clone());
    phases.push("total");
    values("phase", "times of path probes", phases);
    let causes = ErrorType::ALL.iter().map(|(cause, _)| cause.name());
    values("error_type", "failures of path probes", causes.collect());
    values(
        "counter",
        "netstat; the ledger holds four of them",
        Counter::ALL.iter().map(|counter| counter.name()).collect(),
    );
    page
}

fn configuration_page() -> String {
    let mut page = String::from(
        "<!-- Written by netobs/tests/docs.rs from the code; do not edit. -->\n\
         # Configuration\n\n\
         Everything that `netobs run` can be told has a flag, a variable of the environment and a key \
         in one TOML file (`--config`). **A flag wins over its variable, that over the file, that \
         over the default**, key by key; a list replaces the whole list below it. A probe that a \
         layer switches on or off is taken out of the opposite list of those below.\n\n\
         The variable of a flag is `NETOBS_` and its name in capitals, with `_` for `.` and `-`. \
         Lists are separated by commas; an empty variable is as good as none. A variable that \
         begins like one and is none is named in a warning.\n\n\
         An unknown key, a wrong type or a value that makes no sense is an error with file, line and \
         key, and exit code 2; nothing is ignored. `netobs run --config.check` finds them without \
         attaching anything, in the web configuration and its certificates too. \
         `--config.optional` lets the file of `--config` be missing; the service and the package use \
         `/etc/netobs/netobs.toml` in this way.\n\n\
         | key | flag | variable | default | SIGHUP |\n|---|---|---|---|---|\n",
    );
    for key in netobs::config::KEYS {
        let (name, flag) = (key.name, key.flag);
        let default = match key.default {
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let sighup = if key.live { "at once" } else { "restart" };
        let given = match flag {
            "" => "only in the file |".to_owned(),
            flag => format!("`{flag}` | `{}`", netobs::config::variable(flag)),
        };
        writeln!(page, "| `{name}` | {given} | {default} | {sighup} |").unwrap();
    }
    page.push_str(
        "\nThe flags `--config` and `--config.optional` have variables, and no key. \
         `--no-seccomp` is the opposite of its key; it takes `=false`.\n\n\
         ## Reading it again\n\n\
         SIGHUP (`systemctl reload netobs`) reads the file and the web configuration again. Keys \
         that say so above and everything in the web configuration take effect at once; probes, \
         counts and series stay as they are. For other keys that have changed the log has a line \
         with their names, and the old values stay in force until a restart. When anything cannot be \
         used, **all** of the old configuration stays: the log says why, \
         `netobs_config_last_reload_successful` is 0, and \
         `netobs_config_last_reload_success_timestamp_seconds` stays where it was. A lower label cap \
         takes no series away; it lets no new ones in.\n\n\
         ## What each is for\n\n",
    );
    let cli = netobs::cli::Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let flags: Vec<_> = run.get_arguments().chain(cli.get_arguments()).collect();
    for key in netobs::config::KEYS {
        if key.flag.is_empty() {
            continue;
        }
        let long = key.flag.trim_start_matches('-');
        let flag = flags.iter().find(|flag| flag.get_long() == Some(long));
        let flag = flag.unwrap_or_else(|| panic!("{} is no flag", key.flag));
        let help = flag.get_help().unwrap().to_string();
        let help = help.split(" [default:").next().unwrap();
        writeln!(page, "- `{}`: {help}.", key.name).unwrap();
    }
    page.push_str("- `probe.*`: see [path-probes.md](path-probes.md).\n");
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
        let mut names: Vec<&str> = method.programs.iter().map(|(name, _)| *name).collect();
        names.dedup(); // one program in two places
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
