//! The binary from outside: what it prints and how it exits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

fn netobs(args: &[&str]) -> Output {
    netobs_in(&[], args)
}

/// With these variables in its environment.
fn netobs_in(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netobs"));
    // What steers these tests is no setting of the agent's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NETOBS_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .envs(variables.iter().copied())
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
    let output = netobs(&["run", "--config.check", "--no-probe", "no_such_probe"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "netobs: error: --no-probe: unknown probe \"no_such_probe\"; ";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn configurations_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let file = path.to_str().unwrap();
    let check = || netobs(&["run", "--config.check", "--config", file]);

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
    assert_eq!(
        stdout(&good),
        format!("{file}: the configuration is valid\n")
    );
}

/// The check reads certificates as a start does, and names what it cannot use.
#[test]
fn certificates_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let web = at("web.yml");
    let text = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";
    fs::write(&web, text).unwrap();
    let refused = |why: &str| {
        let output = netobs(&[
            "run",
            "--config.check",
            "--web.config.file",
            web.to_str().unwrap(),
        ]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert!(said.contains(folder.path().to_str().unwrap()), "{said}");
    };
    refused("cert_file");
    refused("No such file or directory (os error 2)");
    fs::create_dir(at("server.crt")).unwrap();
    refused("Is a directory (os error 21)");
    fs::remove_dir(at("server.crt")).unwrap();
    let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (one, other) = (pair("one.example"), pair("other.example"));
    fs::write(at("server.crt"), "no certificate\n").unwrap();
    refused("cert_file");
    fs::write(at("server.crt"), one.cert.pem()).unwrap();
    refused("key_file");
    fs::write(at("server.key"), other.signing_key.serialize_pem()).unwrap();
    refused("tls_server_config cannot be used");
    fs::write(at("server.key"), one.signing_key.serialize_pem()).unwrap();
    let good = netobs(&[
        "run",
        "--config.check",
        "--web.config.file",
        web.to_str().unwrap(),
    ]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
}

/// A variable stands for a flag, is read as its flag is, and loses to it.
#[test]
fn variables_are_read_like_flags() {
    let check = |variables: &[(&str, &str)], args: &[&str]| {
        let mut all = vec!["run", "--config.check"];
        all.extend(args);
        let output = netobs_in(variables, &all);
        (output.status.code(), stderr(&output).to_owned())
    };
    let good: [(&str, &str); 9] = [
        ("NETOBS_WEB_LISTEN_ADDRESS", ":1,127.0.0.1:2"),
        ("NETOBS_WEB_TELEMETRY_PATH", "/m"),
        ("NETOBS_LOG_LEVEL", "debug"),
        ("NETOBS_LOG_FORMAT", "json"),
        ("NETOBS_NO_PROBE", "kfree_skb,tcp_destroy_sock"),
        ("NETOBS_MAX_LABEL_SETS", "10"),
        ("NETOBS_NO_SECCOMP", "yes"),
        ("NETOBS_CAPABILITIES_KEEP", "none"),
        // As good as unset, and a question is no setting.
        ("NETOBS_CONFIG", ""),
    ];
    assert_eq!(check(&good, &[]), (Some(0), String::new()));
    let bad = [
        (
            ("NETOBS_MAX_LABEL_SETS", "0"),
            "NETOBS_MAX_LABEL_SETS: \"0\": expected a number from 1 to 1000000",
        ),
        (
            ("NETOBS_LOG_LEVEL", "loud"),
            "NETOBS_LOG_LEVEL: \"loud\" is none of: error, warn, info, debug, trace",
        ),
        (
            ("NETOBS_WEB_LISTEN_ADDRESS", ":1,localhost:2"),
            "NETOBS_WEB_LISTEN_ADDRESS: \"localhost:2\": \
             host names are not resolved; write 127.0.0.1:2 or [::1]:2",
        ),
        (
            ("NETOBS_NO_SECCOMP", "maybe"),
            "NETOBS_NO_SECCOMP: \"maybe\": ",
        ),
        (
            ("NETOBS_NO_PROBE", "kfree_sbk"),
            "NETOBS_NO_PROBE: unknown probe \"kfree_sbk\"; did you mean \"kfree_skb\"?",
        ),
        (
            ("NETOBS_CONFIG", "/nonexistent/netobs.toml"),
            "failed to read the configuration file /nonexistent/netobs.toml: ",
        ),
    ];
    for (variable, message) in bad {
        let (code, said) = check(&[variable], &[]);
        assert_eq!(code, Some(2), "{variable:?}: {said}");
        let message = format!("netobs: error: {message}");
        assert!(said.starts_with(&message), "{said}");
    }
    let (code, said) = check(&[("NETOBS_LOG_LEVL", "debug")], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("NETOBS_LOG_LEVL has no effect"), "{said}");
    assert!(said.contains("did you mean NETOBS_LOG_LEVEL?"), "{said}");
}

/// A flag wins over its variable: of two files, the flag's is the one that is complained about.
#[test]
fn a_flag_wins_over_its_variable() {
    let variable = [("NETOBS_CONFIG", "/nonexistent/variable.toml")];
    let args = [
        "run",
        "--config.check",
        "--config",
        "/nonexistent/flag.toml",
    ];
    let output = netobs_in(&variable, &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("flag.toml"), "{}", stderr(&output));
}

#[test]
fn an_optional_file_may_be_missing_but_not_be_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let file = path.to_str().unwrap();
    let args = [
        "run",
        "--config.check",
        "--config.optional",
        "--config",
        file,
    ];
    let missing = netobs(&args);
    assert_eq!(missing.status.code(), Some(0), "{}", stderr(&missing));
    assert_eq!(
        stdout(&missing),
        "the configuration is valid; it names no file\n"
    );
    fs::write(&path, "[log]\nlevel = \"loud\"\n").unwrap();
    let wrong = netobs(&args);
    assert_eq!(wrong.status.code(), Some(2));
    let expected = format!("netobs: error: {file}:2:9: log.level: unknown variant `loud`");
    assert!(stderr(&wrong).starts_with(&expected), "{}", stderr(&wrong));
}

/// The package's file: as it comes it is the defaults, and it has a line for every key.
#[test]
fn the_packaged_file_has_every_key_and_is_the_defaults() {
    let kept = include_str!("../../deploy/debian/netobs.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let uncommented: Vec<&str> = kept
        .lines()
        // A key behind its `#`; words stand behind `# `.
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    let mut table = "";
    let mut keys = Vec::new();
    for line in &uncommented {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            keys.push((format!("{table}.{key}"), value.to_owned()));
        }
    }
    let known: Vec<_> = netobs::config::KEYS
        .iter()
        .filter(|key| !key.default.is_empty())
        .map(|key| (key.name.to_owned(), key.default.to_owned()))
        .collect();
    // Those without a default show an example.
    keys.retain(|(name, _)| known.iter().any(|(known, _)| known == name));
    assert_eq!(keys, known);
    for text in [kept.to_owned(), uncommented.join("\n")] {
        // The web configuration that the comments name is not there.
        let text = text.replace("config_file = \"/etc/netobs/web.yml\"", "");
        fs::write(&path, text).unwrap();
        let output = netobs(&["run", "--config.check", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
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
    let output = netobs(&["run", "--config.check", "--config", path.to_str().unwrap()]);
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

/// Without a terminal there is nothing to draw on, and what else there is is said.
#[test]
fn a_view_needs_a_terminal() {
    let output = netobs(&["top"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "netobs: error: stdout is no terminal to draw on\n\
         hint: netobs trace and netobs diagnose write to files and pipes, as does netobs top --json\n"
    );
    let usage: [(&[&str], &str); 3] = [
        (&["--interval", "10ms"], "at least 200ms"),
        (&["--count", "3"], "--json"),
        (&["--json", "--filter", "x"], "--filter"),
    ];
    for (args, part) in usage {
        let args: Vec<&str> = ["top"].iter().chain(args).copied().collect();
        let output = netobs(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
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

/// What cannot be written is an error, said where it can be.
#[test]
fn a_full_disk_is_an_error() {
    let commands: [&[&str]; 5] = [
        &["completions", "zsh"],
        &["man"],
        &["audit", "list"],
        &["audit", "explain", "NETOBS-TCP-001"],
        &["run", "--config.check"],
    ];
    for args in commands {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_netobs"))
            .args(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn();
        let output = child.unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = stderr(&output);
        assert!(said.contains("No space left on device"), "{args:?}: {said}");
    }
}
