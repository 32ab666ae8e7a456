//! The kernel tests on arm64: `cargo xtask test --arm64`.
//!
//! Agent and tests are linked statically for arm64, and run in a guest with this distribution's own
//! arm64 kernel under software emulation. What the test bed is made of, modules for links and `ip` and
//! `nft` of arm64 with their libraries, comes from the same archive. busybox's `ip` would not do: it makes
//! no links between namespaces.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{KERNEL, is, is_test, matrix, tally::Tally};
use crate::vm::{cpio::Archive, modules};
use crate::{build, command, cross, setup, workspace};

/// Emulation of another architecture is slow, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// The kernel's package depends on the one that holds it.
const KERNEL_PACKAGE: &str = "linux-image-cloud-arm64";
const SHELL_PACKAGE: &str = "busybox-static";
/// The programs that the test bed calls, with their packages.
const PROGRAMS: &[(&str, &str)] = &[("iproute2", "bin/ip"), ("nftables", "usr/sbin/nft")];
/// Packages of the libraries that they are linked with.
const LIBRARIES: &[&str] = &[
    "libc6",
    "libbpf1",
    "libbsd0",
    "libcap2",
    "libedit2",
    "libelf1",
    "libgmp10",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libtinfo6",
    "libxtables12",
    "zlib1g",
];
/// Where libraries are in a package; the guest has them all in `/lib`.
const LIBRARY_FOLDERS: &[&str] = &["lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
/// What the guest prints after the tests.
const END: &str = "== netobs ends";

/// The first process of the guest. `$SPARED` becomes what it leaves out, as other guests do, `$FILTER`
/// what the tests are chosen by.
const INIT: &str = "#!/bin/busybox sh
export PATH=/programs:/bin
/bin/busybox --install -s /bin
rm /bin/ip
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns
for module in /vm/modules/*.ko; do insmod $module; done
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

    let package = cross::unpacked(&cross::depends_on(KERNEL_PACKAGE)?)?;
    let kernel = kernel(&package)?;
    let mut parts = modules_of(&package)?;
    parts.extend(programs()?);
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
        &parts,
    )?;
    let tally = boot(&kernel, &initrd)?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} failed on arm64; their output is above", tally.failed);
    }
    Ok(())
}

/// The image in the kernel's package.
fn kernel(package: &Path) -> Result<PathBuf> {
    let boot = package.join("boot");
    entries(&boot)?
        .into_iter()
        .find(|path| name(path).starts_with("vmlinuz"))
        .with_context(|| format!("there is no kernel in {}", boot.display()))
}

/// A file of the guest: its place, and what is in it.
type Part = (PathBuf, Vec<u8>);

/// The modules that the guest loads, in their order.
fn modules_of(package: &Path) -> Result<Vec<Part>> {
    let all = package.join("lib/modules");
    let folder = entries(&all)?.into_iter().next();
    let folder = folder.with_context(|| format!("there are no modules in {}", all.display()))?;
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(package).arg(name(&folder));
    command::run_quietly(&mut depmod).context("failed to index the modules")?;
    let files = modules::select(&folder)?.files;
    let part = |(order, file): (usize, &String)| {
        let contents = modules::read(&folder.join(file))?;
        Ok((modules::guest_path(order, file), contents))
    };
    files.iter().enumerate().map(part).collect()
}

/// The test bed's programs, and every library in their packages.
fn programs() -> Result<Vec<Part>> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let mut parts = Vec::new();
    for (package, program) in PROGRAMS {
        let path = cross::unpacked(package)?.join(program);
        parts.push((Path::new("programs").join(name(&path)), read(&path)?));
    }
    for package in LIBRARIES {
        let package = cross::unpacked(package)?;
        let folders = LIBRARY_FOLDERS.iter().map(|folder| package.join(folder));
        for folder in folders.filter(|folder| folder.is_dir()) {
            for path in entries(&folder)?.iter().filter(|path| is_library(path)) {
                parts.push((Path::new("lib").join(name(path)), read(path)?));
            }
        }
    }
    Ok(parts)
}

/// Whether programs are linked with a file of this name: `libc.so.6`, not `libelf-0.188.so`.
fn is_library(path: &Path) -> bool {
    let name = name(path);
    let version = name.rsplit_once(".so.").map(|(_, version)| version);
    version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
        && path.is_file()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("failed to read {}", folder.display()))?;
    Ok(read.into_iter().map(|entry| entry.path()).collect())
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn image(
    path: &Path,
    filter: Option<&str>,
    files: &[(&str, &PathBuf)],
    parts: &[Part],
) -> Result<()> {
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
        for (inside, contents) in parts {
            archive.file(inside, contents)?;
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
