//! Runs one payload: streams its output, ends it in time, and clears up what it left behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, mkfifo};
use vm_init::{
    ExitCause, Frame, OUT_PATH, OUT_VARIABLE, Payload, REPORT_PATH, REPORT_VARIABLE, Stream,
};

use crate::channel::Channel;

/// A line is cut here: the serial port is slow, and a payload's output is not to be trusted.
const LINE_LIMIT: u64 = 8 << 10;
/// Lines of one output that are sent; the rest is read and counted.
const LINES_LIMIT: usize = 20_000;
/// Bytes of all files that are sent.
const FILES_LIMIT: u64 = 4 << 20;
/// Bytes of a file in one frame.
const FILE_CHUNK: usize = 2048;

/// Runs `payload` to its end, and sends all there is to say about it.
pub(crate) fn payload(channel: &Channel, index: usize, payload: &Payload) {
    channel.send(&Frame::Start { payload: index });
    let started = Instant::now();
    let cause = match spawn_and_wait(channel, index, payload) {
        Ok(cause) => cause,
        Err(error) => {
            let text = format!("failed to start {}: {error}", payload.path);
            channel.send(&Frame::Line {
                payload: index,
                stream: Stream::Init,
                text,
            });
            ExitCause::NotStarted
        }
    };
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    channel.send(&Frame::Exit {
        payload: index,
        cause,
        millis,
    });
}

fn spawn_and_wait(
    channel: &Channel,
    index: usize,
    payload: &Payload,
) -> std::io::Result<ExitCause> {
    fs::create_dir_all(OUT_PATH)?;
    let reports = Reports::open()?;
    let mut child = Command::new(&payload.path)
        .args(&payload.args)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env(REPORT_VARIABLE, REPORT_PATH)
        .env(OUT_VARIABLE, OUT_PATH)
        .envs(payload.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id())
        .map(Pid::from_raw)
        .unwrap_or(Pid::from_raw(-1));
    let timed_out = Arc::new(AtomicBool::new(false));
    let (stop_watch, watch) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let Reports { source, writer } = reports;
        scope.spawn(move || stream_lines(channel, index, Stream::Report, source));
        if let Some(out) = child.stdout.take() {
            scope.spawn(move || stream_lines(channel, index, Stream::Out, out));
        }
        if let Some(err) = child.stderr.take() {
            scope.spawn(move || stream_lines(channel, index, Stream::Err, err));
        }
        let flag = Arc::clone(&timed_out);
        scope.spawn(move || {
            if watch.recv_timeout(payload.timeout) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::Relaxed);
                send_stacks(channel, index);
                kill_everything();
            }
        });
        let status = wait_for(pid);
        drop(stop_watch);
        // A process that the payload left behind would keep its pipes open, and disturb the next.
        kill_everything();
        drop(writer);
        Ok(match status {
            _ if timed_out.load(Ordering::Relaxed) => ExitCause::TimedOut,
            WaitStatus::Signaled(_, signal, _) => ExitCause::Signal(signal as i32),
            WaitStatus::Exited(_, code) => ExitCause::Code(code),
            _ => ExitCause::Code(-1),
        })
    })
}

/// What payloads take for a file to append to. A pipe, so that a guest that dies has said what it knew.
struct Reports {
    source: File,
    /// As long as one is open, the source has no end.
    writer: File,
}

impl Reports {
    fn open() -> std::io::Result<Self> {
        // The payload before this one had one as well.
        let _ = fs::remove_file(REPORT_PATH);
        mkfifo(REPORT_PATH, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // To read and write does not wait for anybody; to read does, for a writer.
        let writer = File::options().read(true).write(true).open(REPORT_PATH)?;
        let source = File::open(REPORT_PATH)?;
        Ok(Self { source, writer })
    }
}

/// Reaps whatever ends, as the first process must, until it is `pid`.
fn wait_for(pid: Pid) -> WaitStatus {
    loop {
        match waitpid(None, None) {
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
                if status.pid() == Some(pid) =>
            {
                return status;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return WaitStatus::StillAlive,
        }
    }
}

/// Ends every process but this one. The kernel leaves process 1 out of it.
fn kill_everything() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// Sends name and kernel stack of every thread that runs a program: what a hung test waits for.
fn send_stacks(channel: &Channel, index: usize) {
    let say = |text: String| {
        let stream = Stream::Init;
        channel.send(&Frame::Line {
            payload: index,
            stream,
            text,
        });
    };
    say("time is over; tasks and their kernel stacks:".to_owned());
    for process in entries(Path::new("/proc")) {
        let pid = process
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        // Kernel threads have no program.
        if pid.is_none_or(|pid| pid == 1) || fs::read_link(process.join("exe")).is_err() {
            continue;
        }
        for task in entries(&process.join("task")) {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            say(format!("{} {}", task.display(), name.trim()));
            let stack = fs::read_to_string(task.join("stack")).unwrap_or_default();
            stack.lines().for_each(|line| say(format!("    {line}")));
        }
    }
}

/// What a folder holds, sorted; nothing when it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn stream_lines(channel: &Channel, index: usize, stream: Stream, source: impl Read) {
    let mut source = BufReader::new(source);
    let mut sent = 0_usize;
    let mut unsent = 0_usize;
    let mut line = Vec::new();
    loop {
        line.clear();
        match source
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => break,
            Ok(_) if sent >= LINES_LIMIT => unsent += 1,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                channel.send(&Frame::Line {
                    payload: index,
                    stream,
                    text,
                });
                sent += 1;
            }
        }
    }
    if unsent > 0 {
        let text = format!("{unsent} more lines were not sent");
        channel.send(&Frame::Line {
            payload: index,
            stream: Stream::Init,
            text,
        });
    }
}

/// Sends the regular files that payloads left in the output folder, names sorted.
pub(crate) fn send_files(channel: &Channel) {
    let root = Path::new(OUT_PATH);
    let mut left = FILES_LIMIT;
    for path in entries(root) {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        if metadata.len() > left {
            let text = format!("file {name} was not sent: {} bytes", metadata.len());
            channel.send(&Frame::Fault { text });
            continue;
        }
        left -= metadata.len();
        let bytes = fs::read(&path).unwrap_or_default();
        if bytes.is_empty() {
            channel.send(&Frame::File {
                name: name.clone(),
                bytes: Vec::new(),
            });
        }
        for chunk in bytes.chunks(FILE_CHUNK) {
            channel.send(&Frame::File {
                name: name.clone(),
                bytes: chunk.to_vec(),
            });
        }
    }
}
