//! The kernel tests on arm64: `cargo xtask test --arm64`.
//!
//! Agent and tests are linked statically for arm64, and run in a guest with this distribution's own
//! arm64 kernel under software emulation. There are no modules and no programs but a shell, so a test
//! that needs a link between namespaces, TUN or nft says so and is skipped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{KERNEL, is, is_test, matrix, tally::Tally};
use crate::vm::cpio::Archive;
use crate::{build, cross, setup, workspace};

/// Emulation of another architecture is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// The kernel's package depends on the one that holds it.
const KERNEL_PACKAGE: &str = "linux-image-cloud-arm64";
const SHELL_PACKAGE: &str = "busybox-static";
/// What the guest prints after the tests.
const END: &str = "== netobs ends";

/// The first process of the guest. `$SPARED` becomes what it leaves out, as other guests do, `$FILTER`
/// what the tests are chosen by.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns
ip link set lo up
uname -rm
/netobs check
cd /tmp
NETOBS_BIN=/netobs RUST_BACKTRACE=0 NO_COLOR=1 /kernel --test-threads=1 $SPARED $FILTER 2>&1
echo '== netobs ends'
poweroff -f
";

/// Builds, boots and runs; what the guest says is shown as it comes.
pub(super) fn test(filter: Option<&str>) -> Result<()> {
    setup::ensure(setup::Scope::Test)?;
    setup::demand(setup::Scope::Arm64)?;
    let mut cargo = workspace::cargo("test");
    cargo.args(["--package", "netobs", "--test", KERNEL, "--no-run"]);
    let mut flags = vec!["-C".to_owned(), "target-feature=+crt-static".to_owned()];
    cross::prepare(cross::ARM64, &mut cargo, &mut flags)?;
    cargo
        .args(["--target", cross::ARM64])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let artifacts = build::artifacts(&mut cargo)?;
    let tests = artifacts.iter().find(|artifact| is(artifact, KERNEL));
    let tests = tests.context("cargo built no kernel tests")?;
    let agent = artifacts
        .iter()
        .find(|artifact| artifact.target.name == "netobs" && !is_test(artifact))
        .context("cargo built no agent")?;

    let kernel = kernel()?;
    let shell = cross::unpacked(SHELL_PACKAGE)?.join("bin/busybox");
    let initrd = workspace::target_dir().join("tools/arm64-initrd.cpio");
    image(
        &initrd,
        filter,
        &[
            ("bin/busybox", &shell),
            ("netobs", &agent.executable),
            ("kernel", &tests.executable),
        ],
    )?;
    let tally = boot(&kernel, &initrd)?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} failed on arm64; their output is above", tally.failed);
    }
    Ok(())
}

/// The image of this distribution's arm64 kernel.
fn kernel() -> Result<PathBuf> {
    let name = cross::depends_on(KERNEL_PACKAGE)?;
    let boot = cross::unpacked(&name)?.join("boot");
    fs::read_dir(&boot)
        .with_context(|| format!("failed to read {}", boot.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz")
        })
        .with_context(|| format!("{name} has no kernel"))
}

fn image(path: &Path, filter: Option<&str>, files: &[(&str, &PathBuf)]) -> Result<()> {
    let file =
        File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let filter = filter.unwrap_or_default();
    ensure!(
        filter.chars().all(plain),
        "{filter} is no part of a test's name"
    );
    let spared: String = matrix::spared()
        .map(|part| format!("--skip {part} "))
        .collect();
    let mut write = || -> std::io::Result<()> {
        for folder in ["proc", "sys", "dev", "tmp", "run"] {
            archive.folder(Path::new(folder))?;
        }
        archive.device(Path::new("dev/console"), 5, 1)?;
        archive.file(
            Path::new("init"),
            INIT.replace("$SPARED", &spared)
                .replace("$FILTER", filter)
                .as_bytes(),
        )?;
        for (inside, from) in files {
            archive.file(Path::new(inside), &fs::read(from)?)?;
        }
        Ok(())
    };
    write().context("failed to write the initial file system")?;
    archive
        .finish()
        .map(drop)
        .context("failed to write the initial file system")
}

/// Boots the guest and counts its tests.
fn boot(kernel: &Path, initrd: &Path) -> Result<Tally> {
    println!("arm64: booting {}", kernel.display());
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(["-machine", "virt,accel=tcg", "-cpu", "max,pauth-impdef=on"])
        .args(["-smp", "2", "-m", "1024", "-nic", "none", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyAMA0 panic=-1 oops=panic loglevel=4"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = qemu.spawn().context("failed to run qemu-system-aarch64")?;
    let output = child.stdout.take().context("failed to read from qemu")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + TIMEOUT;
    let (mut tally, mut ended) = (Tally::default(), false);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                println!("arm64: {line}");
                tally.read(&line);
                ended |= line == END;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break;
            }
        }
    }
    let _ = child.wait();
    ensure!(ended, "the guest came to no end: it never said `{END}`");
    Ok(tally)
}
