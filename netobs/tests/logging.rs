//! Set-up of logging in a process of its own, because a process can do it only once.

use std::process::Command;

use netobs::{
    config::{Log, LogFormat, LogLevel},
    logging,
};

const CHILD: &str = "NETOBS_TEST_LOGGING_CHILD";

#[test]
fn records_of_both_kinds_reach_stderr() {
    if std::env::var_os(CHILD).is_some() {
        logging::init(Log {
            level: LogLevel::Info,
            format: LogFormat::Json,
        })
        .unwrap();
        tracing::info!("from tracing");
        log::warn!("from log");
        log::debug!("below the level");
        assert!(logging::init(Log::default()).is_err());
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "records_of_both_kinds_reach_stderr",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(child.status.success());
    let stderr = String::from_utf8(child.stderr).unwrap();
    let messages: Vec<String> = stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|object| object["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(messages, ["from tracing", "from log"], "{stderr}");
}
