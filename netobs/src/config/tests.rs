//! Good and bad configurations, with the exact texts that a user sees.

use std::{fs, path::Path};

use super::*;

const PROBES: [&str; 3] = ["tcp_retransmit", "listen_drop", "tcp_reset"];

fn resolve(text: &str, flags: Overrides) -> Result<Config, Error> {
    layered(text, Overrides::default(), flags)
}

fn layered(text: &str, environment: Overrides, flags: Overrides) -> Result<Config, Error> {
    let environment = Layer::of(environment, Origin::Variable);
    let flags = Layer::of(flags, Origin::Flag);
    merge([file::parse(text)?, environment, flags], &PROBES)
}

fn complaint(text: &str) -> String {
    resolve(text, Overrides::default()).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "[web]\n[log]\n[probes]\n[limits]\n"] {
        assert_eq!(
            resolve(text, Overrides::default()).unwrap(),
            Config::default()
        );
    }
}

#[test]
fn by_default_only_this_machine_is_answered() {
    let config = resolve("", Overrides::default()).unwrap();
    let mut addresses = config.web.listen_addresses.iter();
    assert!(addresses.all(|address| address.ip().is_loopback()));
    assert!(!config.web.listen_addresses.is_empty());
}

const EVERY_KEY: &str = r#"
[web]
listen_address = [":9100", "127.0.0.1:9101"]
telemetry_path = "/m"
config_file = "web.yml"
[log]
level = "debug"
format = "json"
[probes]
enable = ["tcp_reset", "tcp_reset"]
disable = ["listen_drop"]
btf = "none"
[limits]
max_label_sets = 7
[recorder]
path = "events"
size = "8MiB"
age = "30m"
[hardening]
keep_capabilities = "none"
seccomp = false
[kubernetes]
cri_socket = "cri.sock"
pods = true
node = "worker-1"
[audit]
ignore = ["NETOBS-TCP-001"]
"#;

#[test]
fn every_key_is_read() {
    let expected = Config {
        web: Web {
            listen_addresses: vec![
                "[::]:9100".parse().unwrap(),
                "127.0.0.1:9101".parse().unwrap(),
            ],
            telemetry_path: "/m".to_owned(),
            config_file: Some("web.yml".into()),
        },
        log: Log {
            level: LogLevel::Debug,
            format: LogFormat::Json,
        },
        probes: Probes {
            enable: vec!["tcp_reset".to_owned()],
            disable: vec!["listen_drop".to_owned()],
            btf: BtfSource::None,
        },
        limits: Limits { max_label_sets: 7 },
        recorder: Some(Plan {
            path: Some("events".into()),
            size_bytes: 8 << 20,
            age: Duration::from_secs(1_800),
        }),
        hardening: Hardening {
            keep_capabilities: KeepCapabilities::None,
            seccomp: false,
        },
        kubernetes: Kubernetes {
            cri_socket: Some("cri.sock".into()),
            pods: true,
            node: Some("worker-1".to_owned()),
        },
        audit: Audit {
            ignore: vec!["NETOBS-TCP-001".to_owned()],
        },
        path_probes: PathProbes::default(),
    };
    assert_eq!(resolve(EVERY_KEY, Overrides::default()).unwrap(), expected);
}

#[test]
fn flags_win_over_the_file() {
    let flags = Overrides {
        listen_addresses: vec!["[::1]:1".parse().unwrap()],
        telemetry_path: Some("/f".to_owned()),
        web_config_file: Some("flag.yml".into()),
        log_level: Some(LogLevel::Trace),
        log_format: Some(LogFormat::Text),
        enable: vec!["tcp_retransmit".to_owned()],
        disable: vec!["tcp_reset".to_owned()],
        btf: Some(BtfSource::File("vmlinux.btf".into())),
        max_label_sets: Some(8),
        recorder_path: Some("flag".into()),
        recorder_size: Some(16 << 20),
        recorder_age: Some(Duration::from_secs(60)),
        keep_capabilities: Some(KeepCapabilities::All),
        seccomp: Some(true),
        cri_socket: Some("flag.sock".into()),
        pods: Some(true),
        node: Some("worker-2".to_owned()),
        audit_ignore: vec!["NETOBS-TCP-011".to_owned()],
    };
    let config = resolve(EVERY_KEY, flags).unwrap();
    assert_eq!(config.web.listen_addresses, ["[::1]:1".parse().unwrap()]);
    assert_eq!(config.web.telemetry_path, "/f");
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Trace,
            format: LogFormat::Text
        }
    );
    assert_eq!(config.probes.enable, ["tcp_retransmit"]);
    assert_eq!(config.probes.disable, ["tcp_reset"]);
    assert_eq!(config.probes.btf, BtfSource::File("vmlinux.btf".into()));
    assert_eq!(config.limits.max_label_sets, 8);
    let recorder = config.recorder.unwrap();
    assert_eq!(recorder.path, Some("flag".into()));
    assert_eq!(recorder.size_bytes, 16 << 20);
    assert_eq!(recorder.age, Duration::from_secs(60));
    assert_eq!(config.web.config_file, Some("flag.yml".into()));
    assert_eq!(config.hardening.keep_capabilities, KeepCapabilities::All);
    assert!(config.hardening.seccomp);
    let kubernetes = config.kubernetes;
    assert_eq!(kubernetes.cri_socket, Some("flag.sock".into()));
    assert!(kubernetes.pods);
    assert_eq!(kubernetes.node.unwrap(), "worker-2");
    assert_eq!(config.audit.ignore, ["NETOBS-TCP-011"]);
}

/// Flag over environment over file over default, key by key, and list by list.
#[test]
fn each_layer_wins_over_those_below() {
    let address = |text: &str| vec![text.parse().unwrap()];
    let environment = || Overrides {
        listen_addresses: address("[::1]:2"),
        log_level: Some(LogLevel::Warn),
        max_label_sets: Some(9),
        enable: vec!["tcp_retransmit".to_owned()],
        disable: vec!["tcp_reset".to_owned()],
        ..Overrides::default()
    };
    let flags = Overrides {
        listen_addresses: address("[::1]:3"),
        log_level: Some(LogLevel::Error),
        disable: vec!["tcp_retransmit".to_owned()],
        ..Overrides::default()
    };
    let none = Overrides::default;
    let levels = [
        (layered("", none(), none()), LogLevel::Info),
        (layered(EVERY_KEY, none(), none()), LogLevel::Debug),
        (layered(EVERY_KEY, environment(), none()), LogLevel::Warn),
        (
            layered(EVERY_KEY, environment(), flags.clone()),
            LogLevel::Error,
        ),
    ];
    for (config, level) in levels {
        assert_eq!(config.unwrap().log.level, level);
    }
    let config = layered(EVERY_KEY, environment(), flags).unwrap();
    assert_eq!(config.web.listen_addresses, address("[::1]:3"));
    assert_eq!(config.limits.max_label_sets, 9);
    assert_eq!(config.web.telemetry_path, "/m");
    assert_eq!(config.hardening.keep_capabilities, KeepCapabilities::None);
    // The flag's list is the whole list of what is off, and takes the probe out of what is on.
    assert_eq!(config.probes.disable, ["tcp_retransmit"]);
    assert_eq!(config.probes.enable, Vec::<String>::new());
}

#[test]
fn bad_variables_name_the_variable() {
    let typo = Overrides {
        disable: vec!["listen_drops".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(
        layered("", typo, Overrides::default())
            .unwrap_err()
            .to_string(),
        "NETOBS_NO_PROBE: unknown probe \"listen_drops\"; did you mean \"listen_drop\"?"
    );
}

#[test]
fn a_recorder_of_no_size_is_none() {
    for size in ["0", "\"0\""] {
        let config = resolve(
            &format!("[recorder]\nsize = {size}\n"),
            Overrides::default(),
        );
        assert_eq!(config.unwrap().recorder, None);
    }
    for wrong in [
        "size = 5",
        "size = \"8 MiB\"",
        "age = \"1w\"",
        "path = \"\"",
    ] {
        let text = format!("[recorder]\n{wrong}\n");
        assert!(resolve(&text, Overrides::default()).is_err(), "{wrong}");
    }
}

#[test]
fn a_probe_flag_beats_the_files_opposite() {
    let off = Overrides {
        disable: vec!["tcp_reset".to_owned()],
        ..Overrides::default()
    };
    let config = resolve("[probes]\nenable = [\"tcp_reset\", \"listen_drop\"]", off).unwrap();
    assert_eq!(config.probes.enable, ["listen_drop"]);
    assert_eq!(config.probes.disable, ["tcp_reset"]);
    let on = Overrides {
        enable: vec!["tcp_reset".to_owned()],
        ..Overrides::default()
    };
    let config = resolve("[probes]\ndisable = [\"tcp_reset\"]", on).unwrap();
    assert_eq!(config.probes.enable, ["tcp_reset"]);
    assert_eq!(config.probes.disable, Vec::<String>::new());
}

#[test]
fn bad_files_say_where_and_what() {
    let table = [
        (
            "[web]\nlisten_adress = []\n",
            "netobs.toml:2:1: unknown key \"listen_adress\"; did you mean \"listen_address\"?",
        ),
        (
            "[web]\n  port = 1\n",
            "netobs.toml:2:3: unknown key \"port\"; known are: listen_address, telemetry_path, config_file",
        ),
        (
            "[proves]\n",
            "netobs.toml:1:2: unknown table \"proves\"; did you mean \"probes\"?",
        ),
        (
            "[metrics]\n",
            "netobs.toml:1:2: unknown table \"metrics\"; known are: web, log, probes, limits, recorder, hardening, kubernetes, audit, probe",
        ),
        (
            "listen_address = []\n",
            "netobs.toml:1:1: unknown key \"listen_address\"; known are: web, log, probes, limits, recorder, hardening, kubernetes, audit, probe",
        ),
        (
            "# \u{e9}\n\"\\u001b[31m\" = 1\n",
            "netobs.toml:2:1: unknown key \"\\u{1b}[31m\"; known are: web, log, probes, limits, recorder, hardening, kubernetes, audit, probe",
        ),
        (
            "web = 1\n",
            "netobs.toml:1:7: web: invalid type: integer `1`, expected a table",
        ),
        (
            "[web]\nlisten_address = \":1\"\n",
            "netobs.toml:2:18: web.listen_address: invalid type: string \":1\", expected a sequence",
        ),
        (
            "[web]\nlisten_address = []\n",
            "netobs.toml:2:18: web.listen_address: the list is empty; \
             leave the key out for the default",
        ),
        (
            "[web]\nlisten_address = [\":1\", \"localhost:1\"]\n",
            "netobs.toml:2:25: web.listen_address: host names are not resolved; \
             write 127.0.0.1:1 or [::1]:1",
        ),
        (
            "[web]\nlisten_address = [\":1\", \"[::]:1\"]\n",
            "netobs.toml:2:25: [::]:1 is named twice",
        ),
        (
            "[web]\ntelemetry_path = \"metrics\"\n",
            "netobs.toml:2:18: web.telemetry_path: the path must start with /",
        ),
        (
            "[log]\nlevel = \"loud\"\n",
            "netobs.toml:2:9: log.level: unknown variant `loud`, \
             expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
        (
            "[probes]\nenable = [\n  \"tcp_reset\",\n  \"tcp_retransmits\",\n]\n",
            "netobs.toml:4:3: unknown probe \"tcp_retransmits\"; did you mean \"tcp_retransmit\"?",
        ),
        (
            "[probes]\ndisable = [\"dns\"]\n",
            "netobs.toml:2:12: unknown probe \"dns\"; \
             known are: tcp_retransmit, listen_drop, tcp_reset",
        ),
        (
            "[probes]\nenable = [\"tcp_reset\"]\ndisable = [\"tcp_reset\"]\n",
            "netobs.toml:3:12: probe \"tcp_reset\" is both enabled and disabled; decide for one",
        ),
        (
            "[probes]\nbtf = \"\"\n",
            "netobs.toml:2:7: probes.btf: expected a file name or \"none\"",
        ),
        (
            "[limits]\nmax_label_sets = 0\n",
            "netobs.toml:2:18: limits.max_label_sets: expected a number from 1 to 1000000",
        ),
        (
            "[limits]\nmax_label_sets = -9223372036854775808\n",
            "netobs.toml:2:18: limits.max_label_sets: expected a number from 1 to 1000000",
        ),
        (
            "[audit]\nignore = [\"NETOBS-TCP-0001\"]\n",
            "netobs.toml:2:11: unknown rule \"NETOBS-TCP-0001\"; did you mean \"NETOBS-TCP-001\"?",
        ),
        (
            "[audit]\nignore = [\"x\"]\n",
            "netobs.toml:2:11: unknown rule \"x\"; \
             `netobs audit` shows their ids, such as NETOBS-TCP-001",
        ),
        (
            "[audit]\nignore = [\"NETOBS-TCP-001\", 7]\n",
            "netobs.toml:2:29: audit.ignore: invalid type: integer `7`, expected a string",
        ),
        ("[web\n", "netobs.toml:1:5: unclosed table, expected `]`"),
        (
            "[log]\nlevel = \"info\"\nlevel = \"warn\"\n",
            "netobs.toml:3:1: duplicate key",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected, "in:\n{text}");
    }
}

#[test]
fn bad_flags_name_the_flag() {
    let typo = Overrides {
        enable: vec!["listen_drops".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(
        resolve("", typo).unwrap_err().to_string(),
        "--probe: unknown probe \"listen_drops\"; did you mean \"listen_drop\"?"
    );
    let both = Overrides {
        enable: vec!["tcp_reset".to_owned()],
        disable: vec!["tcp_reset".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(
        resolve("", both).unwrap_err().to_string(),
        "--no-probe: probe \"tcp_reset\" is both enabled and disabled; decide for one"
    );
}

#[test]
fn files_that_are_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    let complaint = |path: &Path| {
        let error = Config::resolve(Some(path), Overrides::default(), &PROBES).unwrap_err();
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "")
    };
    assert_eq!(
        complaint(&path),
        "failed to read the configuration file /netobs.toml"
    );
    assert_eq!(
        complaint(folder.path()),
        "failed to read the configuration file "
    );
    fs::write(&path, b"[web]\n# \xff\n").unwrap();
    assert_eq!(
        complaint(&path),
        "/netobs.toml:2:3: the file is not UTF-8 text"
    );
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(
        complaint(&path),
        "/netobs.toml is larger than 1048576 bytes, the most a configuration file may have"
    );
    fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
    assert!(Config::resolve(Some(&path), Overrides::default(), &PROBES).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "([\\[\\]a-z_=.\"' \n0-9{},#]|\\[web\\]\n|listen_address)*") {
        let _ = resolve(&text, Overrides::default());
    }
}

mod targets {
    use std::time::Duration;

    use super::*;
    use crate::path::IpVersion;

    fn read(text: &str) -> Result<PathProbes, String> {
        let layer = file::parse(text).map_err(|error| error.to_string())?;
        Ok(layer.path_probes.unwrap())
    }

    #[test]
    fn every_key_is_read() {
        let probes = read(
            "[probe]\nmax_concurrent = 4\n[[probe.target]]\nname = 'a'\ntarget = 'https://a.example/'\n\
             interval = '5s'\ntimeout = '2s'\njitter = '0'\nip_version = '6'\n\
             expect_status = ['2xx', '404']\nmethod = 'head'\nheaders = { x-a = 'b' }\n\
             max_redirects = 0\nbody_limit = 10\ninsecure = true\nservers = ['1.1.1.1']\n\
             resolve = { 'a.example' = '::1' }\nphase_timeout = { tls = '1s' }\n\
             slow = { dns = '200ms', total = '1s' }\n[[probe.target]]\ntarget = 'dns:b.example'\n\
             expect_code = 'nxdomain'\n",
        )
        .unwrap();
        assert_eq!(probes.max_concurrent, 4);
        let [a, b] = probes.targets.as_slice() else {
            panic!("{probes:?}");
        };
        assert_eq!(a.interval, Duration::from_secs(5));
        assert_eq!(a.jitter, Duration::ZERO);
        assert_eq!(a.plan.ip_version, IpVersion::V6);
        assert_eq!(a.plan.timeouts.phases[2], Some(Duration::from_secs(1)));
        assert_eq!(a.slow.phases[0], Some(Duration::from_millis(200)));
        assert_eq!(a.slow.total, Some(Duration::from_secs(1)));
        assert!(a.plan.http.expect[1].contains(404));
        assert_eq!(b.plan.name, "dns:b.example");
        assert_eq!(b.plan.dns.expect, Some("NXDOMAIN"));
        assert_eq!(b.jitter, Duration::from_secs(3));
    }

    #[test]
    fn what_is_wrong_says_where() {
        let target = |lines: &str| format!("[[probe.target]]\ntarget = 'a:1'\n{lines}\n");
        let table = [
            (
                target("intervall = '1s'"),
                "netobs.toml:3:1: unknown key \"intervall\"; did you mean \"interval\"?",
            ),
            (
                target("interval = '1ms'"),
                "netobs.toml:3:12: probe.target.interval: expected 1s to 1h",
            ),
            (target("interval = 5"), "netobs.toml:3:12: invalid type"),
            (target("timeout = '11m'"), "expected at most 600s"),
            (target("jitter = '31s'"), "no more than the interval"),
            (target("ip_version = '5'"), "expected 4, 6 or any"),
            (
                target("expect_status = ['2x']"),
                "netobs.toml:3:18: probe.target.expect_status: expected a status",
            ),
            (
                target("headers = { 'a b' = 'c' }"),
                "no name of a header field",
            ),
            (target("max_redirects = 21"), "from 0 to 20"),
            (
                target("slow = { dsn = '1s' }"),
                "is none of dns, connect, tls, first_byte, transfer, total",
            ),
            (target("name = ''"), "expected 1 to 100 characters"),
            (target("name = \"a\\nb\""), "control characters"),
            (target("") + &target(""), "\"a:1\" is named twice"),
            (
                "[[probe.target]]\nname = 'a'".to_owned(),
                "missing field `target`",
            ),
            (
                "[[probe.target]]\ntarget = 'a'".to_owned(),
                "netobs.toml:2:10: probe.target.target: expected http",
            ),
            ("[probe]\nmax_concurrent = 0".to_owned(), "from 1 to 256"),
            ("[probe]\ntarget = 3".to_owned(), "invalid type"),
        ];
        for (text, why) in table {
            let message = read(&text).unwrap_err();
            assert!(message.contains(why), "{text}\n{message}");
        }
        let many = |number: usize| -> String {
            (0..number)
                .map(|port| format!("[[probe.target]]\ntarget = 'a:{}'\n", port + 1))
                .collect()
        };
        assert_eq!(read(&many(500)).unwrap().targets.len(), 500);
        assert!(
            read(&many(501))
                .unwrap_err()
                .contains("more than 500 targets")
        );
    }
}
