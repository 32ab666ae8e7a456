//! The same payloads on this machine's own kernel: one more column.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use vm_init::{ExitCause, OUT_VARIABLE, REPORT_VARIABLE, Stream};

use crate::{command, workspace};

use super::report::{KernelReport, Outcome, PayloadReport};
use super::{Payload, VmOptions};

/// The column's name.
const NAME: &str = "host";

/// A payload that has ended, and whose output was silent for so long, has nothing more to say.
const IDLE: Duration = Duration::from_millis(200);

/// Runs the payloads as they are, one after another.
///
/// # Errors
/// When a temporary folder cannot be made, or a payload cannot be watched.
pub(crate) fn run(options: &VmOptions) -> anyhow::Result<KernelReport> {
    let started = Instant::now();
    let payloads = options
        .payloads
        .iter()
        .map(|payload| PayloadReport::new(&payload.path));
    let mut report = KernelReport::new(NAME, payloads.collect());
    report.release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("failed to read the kernel's release")?
        .trim()
        .to_owned();
    eprintln!("   run on this machine ({})", report.release);
    for (payload, result) in options.payloads.iter().zip(&mut report.payloads) {
        run_one(payload, result, options)
            .with_context(|| format!("failed to run {} on this machine", payload.path.display()))?;
    }
    report.outcome = Outcome::Completed;
    report.wall_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn run_one(
    payload: &Payload,
    result: &mut PayloadReport,
    options: &VmOptions,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("failed to create a folder")?;
    let report = folder.path().join("report");
    let started = Instant::now();
    let variable = |name: &str, value: &OsStr| {
        let mut text = OsString::from(name);
        text.push("=");
        text.push(value);
        text
    };
    // `timeout` ends the whole group of processes, and kills what does not listen.
    let mut child = command::as_root("env")?
        .arg(variable(REPORT_VARIABLE, report.as_os_str()))
        .arg(variable(OUT_VARIABLE, folder.path().as_os_str()))
        .arg(variable("PATH", &workspace::path()))
        .args(
            payload
                .env
                .iter()
                .map(|(name, value)| variable(name, value.as_ref())),
        )
        .args(["timeout", "--kill-after=5"])
        .arg(options.timeout.as_secs().max(1).to_string())
        .arg(&payload.path)
        .args(&payload.args)
        .args(&payload.host_args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run timeout")?;
    let (sender, receiver) = mpsc::channel();
    let read = |source: Option<Box<dyn Read + Send>>, stream: Stream| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let lines = source
                .into_iter()
                .flat_map(|source| BufReader::new(source).lines());
            // A line that is no text ends it, as the end does.
            for line in lines.map_while(Result::ok) {
                if sender.send((stream, line)).is_err() {
                    return;
                }
            }
        })
    };
    read(
        child
            .stdout
            .take()
            .map(|out| Box::new(out) as Box<dyn Read + Send>),
        Stream::Out,
    );
    read(
        child
            .stderr
            .take()
            .map(|err| Box::new(err) as Box<dyn Read + Send>),
        Stream::Err,
    );
    drop(sender);
    let status = loop {
        match receiver.recv_timeout(IDLE) {
            Ok((stream, line)) => {
                // It takes long, and nothing else runs that would mix with it.
                println!("{line}");
                result.line(stream, &line, started.elapsed().as_secs_f64());
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                break child.wait().context("failed to wait for the payload")?;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // What it left running keeps the pipes open, and is not waited for.
        if let Some(status) = child.try_wait().context("failed to wait for the payload")? {
            break status;
        }
    };
    for line in std::fs::read_to_string(&report).unwrap_or_default().lines() {
        result.line(Stream::Report, line, 0.0);
    }
    let cause = match status.code() {
        Some(124 | 137) => ExitCause::TimedOut,
        Some(126 | 127) => ExitCause::NotStarted,
        Some(code) => ExitCause::Code(code),
        None => ExitCause::Signal(status.signal().unwrap_or(0)),
    };
    result.end(
        cause,
        u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    );
    Ok(())
}
