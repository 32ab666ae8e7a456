//! One machine under software emulation: its console in a file, its result port as lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The longest line that is taken from the result port; the guest's own limit is lower.
const LINE_LIMIT: u64 = 256 << 10;

/// What the kernel is told: a console, a reboot (which ends qemu) on every oops, and none of the
/// things that cost time under emulation and have no bearing on TCP.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic net.ifnames=0 mitigations=off \
     random.trust_cpu=on audit=0 cryptomgr.notests tsc=nowatchdog loglevel=5";

/// All that qemu can emulate, but for `cmpxchg16b`: with qemu 7.2 it leaves garbage in the flags now
/// and then, of which one boot in six of 6.12 died in the kernel's allocator. Kernels do without.
const PROCESSOR: &str = "max,-cx16";

/// Both processors in one thread, by turns. In threads of their own they race where the kernel patches
/// code that the other one runs, as every attachment of a probe does, and a guest died of it now and then.
/// It costs nothing where as many guests run at a time as this machine has processors.
const ACCELERATOR: &str = "tcg,thread=single";

/// A machine to boot.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// The kernel's image.
    pub(crate) kernel: &'a Path,
    /// The initial file system.
    pub(crate) initrd: &'a Path,
    /// Where the console's output goes.
    pub(crate) console: &'a Path,
    /// Processors.
    pub(crate) cpus: usize,
    /// Memory.
    pub(crate) memory_mib: usize,
    /// The machine is switched off after this time.
    pub(crate) timeout: Duration,
    /// The machine hangs, and is switched off, when no line came for this time.
    pub(crate) silence: Duration,
}

/// How the machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself: powered off, or rebooted, which is the same here.
    Off,
    /// Switched off after its time, or because it hung.
    TimedOut,
}

impl Machine<'_> {
    /// Boots, calls `line` for every line on the result port, and waits for the end.
    ///
    /// # Errors
    /// When qemu cannot be run or fails.
    pub(crate) fn run(&self, mut line: impl FnMut(&str)) -> anyhow::Result<End> {
        let deadline = Instant::now() + self.timeout;
        let mut child = Guard(self.spawn()?);
        let output = child.0.stdout.take().context("failed to read from qemu")?;
        let errors = child.0.stderr.take().context("failed to read from qemu")?;
        let errors = std::thread::spawn(move || read_bounded(errors));
        let (sender, receiver) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                match output
                    .by_ref()
                    .take(LINE_LIMIT)
                    .read_until(b'\n', &mut bytes)
                {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
                if sender
                    .send(String::from_utf8_lossy(&bytes).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left.min(self.silence)) {
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Timeout) => return Ok(End::TimedOut),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.0.wait().context("failed to wait for qemu")?;
        if !status.success() {
            let errors = errors.join().unwrap_or_default();
            bail!("qemu failed with {status}: {}", errors.trim());
        }
        Ok(End::Off)
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let path = |path: &Path| path.to_string_lossy().replace(',', ",,");
        // Outside the tree of sources, where a name may hold anything.
        File::create(self.console).context("failed to create the console's file")?;
        Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args([
                "-machine",
                "pc",
                "-accel",
                ACCELERATOR,
                "-cpu",
                PROCESSOR,
                "-nic",
                "none",
                "-monitor",
                "none",
            ])
            .args([
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory_mib.to_string(),
            ])
            .args(["-chardev", "stdio,id=results,signal=off"])
            .args(["-serial", &format!("file:{}", path(self.console))])
            .args(["-serial", "chardev:results"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", COMMAND_LINE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run qemu-system-x86_64")
    }
}

/// Ends qemu when it is dropped, however that comes about.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_bounded(source: impl Read) -> String {
    let mut bytes = Vec::new();
    // An error ends it: what was read until then is all there is.
    let _ = source.take(64 << 10).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
