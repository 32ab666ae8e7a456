//! Runs the payloads on one kernel of the catalog, and gathers what the guest says.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use vm_init::{Frame, FrameError, Stream};

use super::content::Content;
use super::image;
use super::package::Kernel;
use super::paths::Paths;
use super::qemu::{End, Machine};
use super::report::{KernelReport, Outcome, PayloadReport, Todo};
use super::{Payload, VmOptions};

/// Lines of the console that are shown when a guest came to a bad end.
const TAIL: usize = 40;
/// Bytes of files that are taken from a guest.
const FILES_LIMIT: usize = 16 << 20;

/// Boots `kernel`, runs the payloads, and reports. What [`KernelReport::left`] finds undone has a second
/// boot.
///
/// # Errors
/// When the image cannot be made or qemu cannot be run.
pub(crate) fn run(
    paths: &Paths,
    kernel: &Kernel,
    content: &Content,
    options: &VmOptions,
) -> anyhow::Result<KernelReport> {
    let folder = paths.run(kernel.name());
    if folder.exists() {
        fs::remove_dir_all(&folder).context("failed to remove what the last run left")?;
    }
    let all = |payload: &Payload| match &payload.guest_tests {
        None => Todo::All,
        Some(tests) if tests.is_empty() => Todo::Nothing,
        Some(tests) => Todo::Tests(tests.clone()),
    };
    let todo: Vec<Todo> = options.payloads.iter().map(all).collect();
    let one = |folder: &Path, todo: &[Todo]| boot(folder, kernel, content, options, todo);
    let first = one(&folder, &todo)?;
    let report = match first.left(&todo) {
        None => first,
        Some(left) => {
            let why = first.why_again(&left);
            eprintln!("   {} is booted again: {why}", kernel.name());
            first.and_again(one(&folder.join("again"), &left)?, why)
        }
    };
    let last = if report.passed() { "passed" } else { "FAILED" };
    eprintln!(
        "   {} {last} after {:.1} s",
        kernel.name(),
        report.wall_seconds
    );
    Ok(report)
}

/// One boot, whose files go to `folder`.
fn boot(
    folder: &Path,
    kernel: &Kernel,
    content: &Content,
    options: &VmOptions,
    todo: &[Todo],
) -> anyhow::Result<KernelReport> {
    fs::create_dir_all(folder.join("out")).context("failed to create the run's folder")?;
    let (initrd, console) = (folder.join("initrd.cpio"), folder.join("console.log"));
    let selection = image::write(&initrd, kernel, content, options, todo)?;
    let machine = Machine {
        kernel: &kernel.image,
        initrd: &initrd,
        console: &console,
        cpus: options.cpus,
        memory_mib: options.memory_mib,
        timeout: options.timeout,
        silence: options.silence,
    };
    eprintln!(
        "   boot {} ({} {})",
        kernel.name(),
        kernel.release,
        kernel.version()
    );
    let started = Instant::now();
    let mut log = Log::new(folder, kernel.name(), options, todo)?;
    let end = machine.run(|line| log.line(line, started))?;
    let mut report = log.report;
    report.wall_seconds = started.elapsed().as_secs_f64();
    report.package_version = kernel.version().to_owned();
    report.missing_modules = selection
        .missing
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    let text = fs::read(&console).context("failed to read the console")?;
    let text = String::from_utf8_lossy(&text);
    report.judge_console(&text);
    report.outcome = match (end, log.done) {
        _ if report.oops => Outcome::Panicked,
        (End::Off, true) if report.lost_lines == 0 => Outcome::Completed,
        (End::Off, true) => Outcome::Garbled,
        (End::Off, false) => Outcome::Stopped,
        (End::TimedOut, _) => Outcome::TimedOut,
    };
    if report.outcome != Outcome::Completed {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        report.console_tail = tail.iter().map(|line| (*line).to_owned()).collect();
    }
    report.console = console;
    report.forgive_the_end(&log.places);
    // It is large, and made anew for every run.
    fs::remove_file(&initrd).context("failed to remove the initial file system")?;
    Ok(report)
}

/// What was heard so far.
struct Log<'a> {
    report: KernelReport,
    /// The places of the payloads that this boot runs, among all.
    places: Vec<usize>,
    output: fs::File,
    files: PathBuf,
    files_left: usize,
    next: u64,
    done: bool,
    kernel: &'a str,
    verbose: bool,
}

impl<'a> Log<'a> {
    fn new(
        folder: &Path,
        kernel: &'a str,
        options: &VmOptions,
        todo: &[Todo],
    ) -> anyhow::Result<Self> {
        let payloads = options
            .payloads
            .iter()
            .map(|payload| PayloadReport::new(&payload.path));
        Ok(Self {
            report: KernelReport::new(kernel, payloads.collect()),
            places: (0..)
                .zip(todo)
                .filter_map(|(place, todo)| (*todo != Todo::Nothing).then_some(place))
                .collect(),
            output: fs::File::create(folder.join("output.log"))
                .context("failed to create the output's file")?,
            files: folder.join("out"),
            files_left: FILES_LIMIT,
            next: 0,
            done: false,
            kernel,
            verbose: options.verbose,
        })
    }

    fn line(&mut self, line: &str, started: Instant) {
        match Frame::decode(line) {
            Ok((sequence, frame)) => {
                self.report.lost_lines += sequence.abs_diff(self.next);
                self.next = sequence.saturating_add(1);
                self.frame(frame, started);
            }
            Err(FrameError::Broken) => self.report.lost_lines += 1,
            // Firmware may greet on all ports.
            Err(FrameError::NotAFrame) => {}
        }
    }

    fn frame(&mut self, frame: Frame, started: Instant) {
        match frame {
            Frame::Boot { release } => {
                self.report.release = release;
                self.report.boot_seconds = started.elapsed().as_secs_f64();
            }
            Frame::Fault { text } => self.report.faults.push(text),
            Frame::Start { payload } => {
                if let Some(payload) = self.payload(payload) {
                    payload.start(started.elapsed().as_secs_f64());
                }
            }
            Frame::Line {
                payload,
                stream,
                text,
            } => self.output(payload, stream, &text, started),
            Frame::Exit {
                payload,
                cause,
                millis,
            } => {
                if let Some(payload) = self.payload(payload) {
                    payload.end(cause, millis);
                }
            }
            Frame::File { name, bytes } => {
                if let Err(error) = self.file(&name, &bytes) {
                    self.report.faults.push(format!("{error:#}"));
                }
            }
            Frame::Done => self.done = true,
        }
    }

    fn output(&mut self, payload: usize, stream: Stream, text: &str, started: Instant) {
        // Since power on: what took long is found without running it again.
        let seconds = started.elapsed().as_secs_f64();
        if let Err(error) = writeln!(self.output, "{seconds:7.1} {text}") {
            self.report
                .faults
                .push(format!("failed to write the output: {error}"));
        }
        if self.verbose {
            eprintln!("{:>6} | {text}", self.kernel);
        }
        if let Some(payload) = self.payload(payload) {
            payload.line(stream, text, seconds);
        }
    }

    /// What is heard of the payload that the guest knows by this number.
    fn payload(&mut self, number: usize) -> Option<&mut PayloadReport> {
        self.report.payloads.get_mut(*self.places.get(number)?)
    }

    /// Appends to a file of the guest's. Its name is not trusted.
    fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut parts = Path::new(name).components();
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            anyhow::bail!("the guest sent a file named {name:?}");
        };
        self.files_left = self
            .files_left
            .checked_sub(bytes.len())
            .context("the guest sent too many bytes")?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.files.join(name))
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| format!("failed to write the guest's file {}", name.display()))
    }
}
