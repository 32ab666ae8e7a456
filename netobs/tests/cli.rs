//! The binary from outside: what it prints and how it exits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

fn netobs(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netobs"))
        .args(args)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Compares with a file under `tests/golden`, or writes it when `NETOBS_BLESS=1`.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("NETOBS_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, expected,
        "{name} differs; accept it with NETOBS_BLESS=1"
    );
}

#[test]
fn help_is_as_agreed() {
    let output = netobs(&["run", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    golden("help-run.txt", stdout(&output));
}

#[test]
fn version_is_one_line() {
    let output = netobs(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("netobs ", env!("CARGO_PKG_VERSION"));
    assert!(stdout(&output).starts_with(version), "{}", stdout(&output));
    assert_eq!(stdout(&output).lines().count(), 1);
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    let table: [(&[&str], &str); 8] = [
        (&[], "Usage: netobs"),
        (&["runn"], "'run'"),
        (
            &["run", "--web.listen-adress", ":1"],
            "'--web.listen-address'",
        ),
        (
            &["run", "--web.listen-address", "localhost:1"],
            "write 127.0.0.1:1 or [::1]:1",
        ),
        (
            &["run", "--web.telemetry-path", "metrics"],
            "the path must start with /",
        ),
        (
            &["run", "--max-label-sets", "0"],
            "expected a number from 1 to 1000000",
        ),
        (
            &["run", "--log-level", "loud"],
            "error, warn, info, debug, trace",
        ),
        (&["completions", "tcsh"], "bash"),
    ];
    for (args, part) in table {
        let output = netobs(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains(part),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn an_unknown_probe_is_a_usage_error() {
    let output = netobs(&["run", "--check-config", "--no-probe", "no_such_probe"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "netobs: error: --no-probe: unknown probe \"no_such_probe\"; ";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn configurations_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let file = path.to_str().unwrap();
    let check = || netobs(&["run", "--check-config", "--config", file]);

    let missing = check();
    assert_eq!(missing.status.code(), Some(2));
    assert_eq!(
        stderr(&missing),
        format!(
            "netobs: error: failed to read the configuration file {file}: \
             No such file or directory (os error 2)\n"
        )
    );

    fs::write(&path, "[web]\nlisten_adress = [\":1\"]\n").unwrap();
    let unknown = check();
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(
        stderr(&unknown),
        format!(
            "netobs: error: {file}:2:1: unknown key \"listen_adress\"; \
             did you mean \"listen_address\"?\n"
        )
    );

    fs::write(&path, "[web]\nlisten_address = [\":1\"]\n").unwrap();
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert_eq!(stdout(&good), "the configuration is valid\n");
}

/// The file that `run --help` shows is a valid one.
#[test]
fn the_configuration_in_the_help_is_valid() {
    let help = netobs(&["run", "--help"]);
    let (_, rest) = stdout(&help).split_once("A configuration file:\n").unwrap();
    let (text, _) = rest.split_once("\n\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    fs::write(&path, text).unwrap();
    let output = netobs(&["run", "--check-config", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn completions_for_the_usual_shells() {
    for (shell, part) in [
        ("bash", "_netobs()"),
        ("zsh", "#compdef netobs"),
        ("fish", "complete -c netobs"),
    ] {
        let output = netobs(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains(part), "{shell}");
        assert!(stdout(&output).contains("web.listen-address"), "{shell}");
    }
}

#[test]
fn manual_pages() {
    let table: [(&[&str], &str); 2] = [(&["man"], "netobs"), (&["man", "run"], "web.listen")];
    for (args, part) in table {
        let output = netobs(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let page = stdout(&output);
        assert!(
            page.starts_with(".ie") || page.starts_with(".TH"),
            "{args:?}: {page}"
        );
        assert!(page.replace("\\-", "-").contains(part), "{args:?}: {page}");
    }
    let unknown = netobs(&["man", "fly"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("there is no subcommand \"fly\""),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_netobs"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
