//! The files that a reboot applies: do they say what is in force, and can they be read?

use super::{Applies, Doc, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::keys::{DEAD_KEYS, KEYS, Reach};
use crate::audit::persistent::normalize;
use crate::audit::subject::Subject;
use crate::audit::value::{Kind, Reading};

/// What a problem is about when it is about a file and not about one setting.
const NO_KEY: &str = "";
const COUNT: &str = "net.netfilter.nf_conntrack_count";
const MAN: &str = "https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html";
const MAX_NAMED: usize = 50;

pub(super) static RULES: &[&Rule] = &[
    &REBOOT_CHANGES,
    &NOT_PERSISTENT,
    &BAD_FILES,
    &DEAD_SETTINGS,
    &OVERRIDDEN,
    &PROCPS_ONLY,
    &ABSENT,
];

/// Every key may be what a rule about files is about.
static EVERY_KEY: [&str; KEYS.len()] = {
    let mut names = [""; KEYS.len()];
    let mut i = 0;
    while i < KEYS.len() {
        names[i] = KEYS[i].name;
        i += 1;
    }
    names
};

static REBOOT_CHANGES: Rule = Rule {
    id: "NETOBS-TCP-100",
    title: "A reboot will change a setting",
    applies: Applies::Persistent,
    severity: Severity::Warning,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "The value in force on the host differs from what the sysctl.d files set, by the precedence of systemd-sysctl.",
        why: "Somebody changed the running kernel or the file, and not the other. The machine works differently after its next reboot, and so does each new one that is built from the same files.",
        evidence: "The file and line that wins, and those it overrides. A contradiction of two facts, so always advice.",
        suggestion: "Decide which value is meant, and bring the other in line: `sysctl -p FILE` applies a file.",
        ignore: "tuned, the kubelet or another service sets the value after boot.",
        sources: &[MAN, "systemd: src/sysctl/sysctl.c"],
    },
    check: reboot_changes,
};

fn reboot_changes(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in KEYS {
        let Some(persisted) = s.machine.persistent.value(key.name) else {
            continue;
        };
        let Some(now) = s.reading(key.name).value() else {
            continue;
        };
        // A secret cannot be compared without being read.
        if key.kind == Kind::Secret || key.name == COUNT || now == persisted.value {
            continue;
        }
        let will = Reading::parse(key.kind, &persisted.value);
        if number_of(&persisted.value).is_some_and(|n| Some(n) == number_of(&now))
            || will.value().as_ref() == Some(&now)
        {
            continue;
        }
        problems.push(
            Problem::new(
                Severity::Warning,
                key.name,
                format!("a reboot will set it to {}", persisted.value),
            )
            .wanted(format!("{}, as {} says", persisted.value, persisted.source))
            .set(persisted.value.clone())
            .advise("or change the file, if the value in force is the one that is meant")
            .with([Evidence::context(
                persisted.source,
                format!("{} = {}", key.name, persisted.value),
            )]),
        );
    }
    Ok(problems)
}

/// The kernel takes numbers in hexadecimal and octal as well.
fn number_of(text: &str) -> Option<i64> {
    let digits = text.trim();
    if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        return i64::from_str_radix(hex, 16).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return i64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

static NOT_PERSISTENT: Rule = Rule {
    id: "NETOBS-TCP-101",
    title: "A tuned setting is in no file",
    applies: Applies::Persistent,
    severity: Severity::Info,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "A setting of the host differs from what this kernel gives a fresh namespace, and no sysctl.d file sets it.",
        why: "It was set by hand or by a service after boot. If by hand, a reboot takes it back.",
        evidence: "The absence of a line in the files. Always advice.",
        suggestion: "Write it to a file of /etc/sysctl.d, or take it back.",
        ignore: "tuned, the kubelet, a container runtime or cloud tools set it at every start.",
        sources: &[MAN],
    },
    check: not_persistent,
};

fn not_persistent(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in KEYS
        .iter()
        .filter(|k| k.reach == Reach::Namespace && k.kind != Kind::Secret)
    {
        if key.name == COUNT || s.machine.persistent.value(key.name).is_some() {
            continue;
        }
        let (Some(now), Some(default)) = (s.reading(key.name).value(), s.default_of(key.name))
        else {
            continue;
        };
        // Only what the kernel itself showed: the documentation knows no vendor's patches.
        if default.source != "fresh_namespace" || now == default.value {
            continue;
        }
        problems.push(
            Problem::new(
                Severity::Info,
                key.name,
                "set since boot, and in no file: a reboot may take it back",
            )
            .wanted(format!(
                "{}, the kernel's default, or a line in /etc/sysctl.d",
                default.value
            ))
            .set(now),
        );
    }
    Ok(problems)
}

static BAD_FILES: Rule = Rule {
    id: "NETOBS-TCP-102",
    title: "A sysctl.d file cannot be read as it was meant",
    applies: Applies::Persistent,
    severity: Severity::Warning,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "A file has lines that are no assignment, is no regular file, or is larger than 4 MiB.",
        why: "systemd-sysctl skips such a line with a message in the journal, and the setting that was meant is not made. netobs does not show the line: it may hold a secret.",
        evidence: "File and line numbers. Always advice.",
        suggestion: "Mend or remove the lines.",
        ignore: "Never; the line does nothing.",
        sources: &[MAN],
    },
    check: bad_files,
};

fn bad_files(s: &Subject<'_>) -> Verdict {
    let files = &s.machine.persistent.files;
    let problems = files
        .iter()
        .filter(|f| f.bad_lines > 0)
        .take(MAX_NAMED)
        .map(|f| {
            let shown = f
                .complaints
                .iter()
                .map(|c| Evidence::context(format!("{}:{}", f.path, c.line), c.what));
            Problem::new(
                Severity::Warning,
                NO_KEY,
                format!("{}: {} lines are no assignment", f.path, f.bad_lines),
            )
            .wanted("lines of the form key = value")
            .advise("mend or remove these lines")
            .with(shown)
        });
    Ok(problems.collect())
}

static DEAD_SETTINGS: Rule = Rule {
    id: "NETOBS-TCP-103",
    title: "A file sets what kernels no longer have",
    applies: Applies::Persistent,
    severity: Severity::Info,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "A sysctl.d file sets a key that was removed from the kernel or has no effect any more, such as tcp_tw_recycle.",
        why: "It does nothing here, but tells that the file is old, and on an old kernel it may do harm: tcp_tw_recycle dropped clients behind NAT.",
        evidence: "File and line. Always advice.",
        suggestion: "Remove the line, and read the rest of the file with the same eyes.",
        ignore: "The file is shared with machines that run such a kernel, and means it.",
        sources: &["4396e46187ca (4.12: tcp_tw_recycle removed)", MAN],
    },
    check: dead_settings,
};

fn dead_settings(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for file in &s.machine.persistent.files {
        for assignment in &file.assignments {
            let dead = DEAD_KEYS
                .iter()
                .find(|(name, _)| normalize(name) == assignment.key);
            let Some((name, what)) = dead else { continue };
            if *name == "net.ipv4.tcp_tw_recycle" && s.int("net.ipv4.tcp_tw_recycle").is_ok() {
                continue;
            }
            let key = if *name == "net.ipv4.tcp_tw_recycle" {
                "net.ipv4.tcp_tw_recycle"
            } else {
                NO_KEY
            };
            let source = format!("{}:{}", file.path, assignment.line);
            problems.push(
                Problem::new(Severity::Info, key, format!("{source} sets {name}, {what}"))
                    .wanted("no such line")
                    .advise("remove the line")
                    .with([Evidence::context(source, *what)]),
            );
            if problems.len() == MAX_NAMED {
                return Ok(problems);
            }
        }
    }
    Ok(problems)
}

static OVERRIDDEN: Rule = Rule {
    id: "NETOBS-TCP-104",
    title: "Files contradict each other",
    applies: Applies::Persistent,
    severity: Severity::Info,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "Two assignments give a setting different values.",
        why: "The last one in the order of file names wins, whatever the directory. Who edits the other believes it counts.",
        evidence: "Both places. Always advice.",
        suggestion: "Keep one of them.",
        ignore: "A file of /etc corrects one that a package brings.",
        sources: &[MAN],
    },
    check: overridden,
};

fn overridden(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in KEYS {
        let Some(won) = s.machine.persistent.value(key.name) else {
            continue;
        };
        if won.overridden.is_empty() {
            continue;
        }
        problems.push(
            Problem::new(
                Severity::Info,
                key.name,
                format!("set more than once; {} wins with {}", won.source, won.value),
            )
            .wanted("one assignment")
            .advise("remove the assignments that lose")
            .with(
                won.overridden
                    .into_iter()
                    .take(MAX_NAMED)
                    .map(|(source, value)| {
                        Evidence::context(source, format!("{value}, overridden"))
                    }),
            ),
        );
    }
    Ok(problems)
}

static PROCPS_ONLY: Rule = Rule {
    id: "NETOBS-TCP-105",
    title: "/etc/sysctl.conf is not read at boot",
    applies: Applies::Persistent,
    severity: Severity::Warning,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "/etc/sysctl.conf sets a key, and no file of /etc/sysctl.d leads to it.",
        why: "systemd-sysctl reads the sysctl.d directories only. Debian links /etc/sysctl.d/99-sysctl.conf to /etc/sysctl.conf; without such a link its lines count only when somebody runs `sysctl -p` or `sysctl --system`.",
        evidence: "The lines concerned. Always advice.",
        suggestion: "Move the lines to a file of /etc/sysctl.d.",
        ignore: "The system does not boot with systemd.",
        sources: &[MAN, "https://man7.org/linux/man-pages/man8/sysctl.8.html"],
    },
    check: procps_only,
};

fn procps_only(s: &Subject<'_>) -> Verdict {
    let Some(file) = &s.machine.persistent.procps_only else {
        return Ok(vec![]);
    };
    let mut problems = Vec::new();
    for key in KEYS {
        let Some(line) = file.assignments.iter().rev().find(|a| a.key == key.name) else {
            continue;
        };
        let Some(value) = &line.value else { continue };
        if s.machine
            .persistent
            .value(key.name)
            .is_some_and(|p| p.value == *value)
        {
            continue;
        }
        let source = format!("{}:{}", file.path, line.line);
        problems.push(
            Problem::new(
                Severity::Warning,
                key.name,
                format!("{source} sets {value}, and systemd does not read that file"),
            )
            .wanted("a line in a file of /etc/sysctl.d")
            .advise("move the line to /etc/sysctl.d")
            .with([Evidence::context(source, "not read at boot")]),
        );
    }
    Ok(problems)
}

static ABSENT: Rule = Rule {
    id: "NETOBS-TCP-106",
    title: "A file sets what this kernel does not have now",
    applies: Applies::Persistent,
    severity: Severity::Info,
    keys: &EVERY_KEY,
    doc: Doc {
        checks: "A file sets a key that exists in some kernels, and this one does not have it now.",
        why: "The kernel is too old, or the module that brings the key is loaded after systemd-sysctl ran: nf_conntrack keys often get lost that way at boot.",
        evidence: "File and line. Always advice.",
        suggestion: "Load the module early (/etc/modules-load.d), or remove the line.",
        ignore: "The file is shared between kernels.",
        sources: &[MAN],
    },
    check: absent,
};

fn absent(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in KEYS {
        if DEAD_KEYS.iter().any(|(dead, _)| *dead == key.name)
            || *s.reading(key.name) != Reading::Missing
        {
            continue;
        }
        let Some(won) = s.machine.persistent.value(key.name) else {
            continue;
        };
        problems.push(
            Problem::new(
                Severity::Info,
                key.name,
                format!(
                    "{} sets it, and this kernel has no such setting now",
                    won.source
                ),
            )
            .wanted("a setting that exists when the file is read")
            .advise("load the module early, with a file in /etc/modules-load.d, or remove the line")
            .with([Evidence::context(won.source, "cannot be set now")]),
        );
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::{EVERY_KEY, number_of};
    use crate::audit::finding::Basis::Advice;
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::keys::KEYS;
    use crate::audit::persistent::Persistent;
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::value::Reading;

    const CAP: &str = "net.core.somaxconn";

    fn with(value: &str, files: &[(&str, &str)]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let mut f = Fixture::new(&[(CAP, value), ("net.ipv4.tcp_fastopen", "1539")]);
        f.0.persistent = Persistent::load(dir.path());
        f.0.defaults.fresh = Some([(CAP, Reading::Int(4096))].into_iter().collect());
        f
    }

    #[test]
    fn every_key_is_named() {
        assert_eq!(EVERY_KEY.len(), KEYS.len());
        assert!(!EVERY_KEY.contains(&""));
    }

    #[test]
    fn a_reboot_and_the_running_kernel() {
        let file = |text| [("etc/sysctl.d/10.conf", text)];
        assert_eq!(
            with("128", &file("net.core.somaxconn=128")).ask("100"),
            Said::Pass
        );
        assert_eq!(
            with("128", &file("net.core.somaxconn=0x80")).ask("100"),
            Said::Pass
        );
        assert_eq!(
            with("128", &file("net.core.somaxconn=512")).ask("100"),
            found(Warning, Advice)
        );
        assert_eq!(
            with("128", &file("net.ipv4.tcp_fastopen=0x603")).ask("100"),
            Said::Pass
        );
        assert_eq!(
            with("128", &file("net.ipv4.tcp_sack=0")).ask("100"),
            Said::Pass
        );
        assert_eq!(
            with("128", &file("net.ipv4.tcp_sack=0")).ask("106"),
            found(Info, Advice)
        );
        assert_eq!(with("128", &[]).ask("101"), found(Info, Advice));
        assert_eq!(with("4096", &[]).ask("101"), Said::Pass);
        assert_eq!(
            with("128", &file("net.core.somaxconn=9")).ask("101"),
            Said::Pass
        );
    }

    #[test]
    fn files_with_faults() {
        let bad = with(
            "1",
            &[("etc/sysctl.d/10.conf", "what\nnet.ipv4.tcp_tw_recycle=1\n")],
        );
        assert_eq!(bad.ask("102"), found(Warning, Advice));
        assert_eq!(bad.ask("103"), found(Info, Advice));
        let twice = with(
            "2",
            &[
                ("etc/sysctl.d/10.conf", "net.core.somaxconn=1"),
                ("usr/lib/sysctl.d/20.conf", "net.core.somaxconn=2"),
            ],
        );
        assert_eq!(twice.ask("104"), found(Info, Advice));
        let unread = with("2", &[("etc/sysctl.conf", "net.core.somaxconn=1")]);
        assert_eq!(unread.ask("105"), found(Warning, Advice));
        let good = with("2", &[("etc/sysctl.d/10.conf", "net.core.somaxconn=2")]);
        for id in ["102", "103", "104", "105", "106"] {
            assert_eq!(good.ask(id), Said::Pass, "{id}");
        }
    }

    #[test]
    fn numbers_as_the_kernel_takes_them() {
        for (text, want) in [
            ("0x603", Some(1539)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("x", None),
            ("09", None),
        ] {
            assert_eq!(number_of(text), want, "{text}");
        }
    }
}
