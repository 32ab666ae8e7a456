//! Building for arm64 on another machine: the linker, and a standard library for the target.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::DEBIAN_RUSTC;
use crate::{build, command, setup, workspace};

/// The target.
pub(crate) const ARM64: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// Makes `cargo` able to build for `target`. Other targets than arm64 are left to the user's own
/// settings.
///
/// # Errors
/// When there is no linker, or no standard library and no way to get one.
pub(crate) fn prepare(target: &str, cargo: &mut Command, flags: &mut Vec<String>) -> Result<()> {
    if target != ARM64 || build::host()? == ARM64 {
        return Ok(());
    }
    setup::ensure(setup::Scope::Cross)?;
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    if build::sysroot()?.join(library()).is_dir() {
        return Ok(());
    }
    // The compiler in use (rustup's) has none: `rustup target add` is the ordinary way. Debian's
    // compiler, which is here for the kernel side, has one in the archive of the other architecture.
    let sysroot = debian_sysroot().with_context(|| {
        format!("the compiler has no standard library for {ARM64}: `rustup target add {ARM64}`")
    })?;
    cargo.env("RUSTC", DEBIAN_RUSTC);
    flags.push(format!("--sysroot={}", sysroot.display()));
    Ok(())
}

/// Where a sysroot keeps the standard library for arm64.
fn library() -> PathBuf {
    Path::new("lib/rustlib").join(ARM64).join("lib")
}

/// A sysroot for [`DEBIAN_RUSTC`] with nothing in it but the standard library for arm64.
///
/// The package is unpacked into this checkout's tools: installing it would mix the libraries of
/// another architecture into the system. Its lists are kept apart for the same reason.
fn debian_sysroot() -> Result<PathBuf> {
    let (package, version) = debian_library()?;
    let tools = workspace::target_dir().join("tools");
    let sysroot = tools.join(format!("arm64-{version}"));
    if sysroot.join(library()).is_dir() {
        return Ok(sysroot);
    }
    println!("fetching {package} {version} for arm64");
    let folder = tools.join("arm64-fetch");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    let lists = folder.join("lists/partial");
    fs::create_dir_all(&lists).with_context(|| format!("failed to make {}", lists.display()))?;
    command::run_quietly(apt(&folder).arg("update"))
        .context("failed to read the package lists of arm64")?;
    command::run_quietly(apt(&folder).args(["download", &format!("{package}:arm64={version}")]))
        .with_context(|| format!("failed to fetch {package} for arm64"))?;
    let file = fs::read_dir(&folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get fetched no package")?;
    let unpacked = folder.join("unpacked");
    command::run_quietly(Command::new("dpkg").arg("-x").arg(&file).arg(&unpacked))
        .with_context(|| format!("failed to unpack {package}"))?;
    // Moved last: a folder of that name is a complete one.
    fs::rename(unpacked.join("usr"), &sysroot)
        .with_context(|| format!("{package} has no usr folder"))?;
    fs::remove_dir_all(&folder)
        .with_context(|| format!("failed to remove {}", folder.display()))?;
    Ok(sysroot)
}

/// The package of Debian's standard library, in the version of [`DEBIAN_RUSTC`]: a compiler reads
/// no other version's.
fn debian_library() -> Result<(String, String)> {
    let owner = command::output(Command::new("dpkg-query").args(["-S", DEBIAN_RUSTC]))
        .with_context(|| format!("no package has {DEBIAN_RUSTC}"))?;
    let compiler = owner
        .split([':', ','])
        .next()
        .unwrap_or_default()
        .to_owned();
    let version =
        command::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", &compiler]))
            .with_context(|| format!("failed to ask for the version of {compiler}"))?;
    let name = compiler.strip_prefix("rustc").unwrap_or_default();
    Ok((format!("libstd-rust{name}-dev"), version))
}

/// The first package that a package of arm64 depends on, such as the kernel that is newest.
///
/// # Errors
/// When the archive cannot be read, or has no such package.
pub(crate) fn depends_on(package: &str) -> Result<String> {
    let folder = archive()?;
    let mut query = Command::new("apt-cache");
    settings(&mut query, &folder).args(["depends", &format!("{package}:arm64")]);
    let text = command::output(&mut query)
        .with_context(|| format!("there is no package {package} for arm64"))?;
    let name = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("{package} depends on nothing"))?;
    Ok(name.trim_end_matches(":arm64").to_owned())
}

/// A package of arm64, unpacked into this checkout's tools.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn unpacked(package: &str) -> Result<PathBuf> {
    let place = workspace::target_dir().join("tools/arm64-packages");
    let to = place.join(package);
    if to.is_dir() {
        return Ok(to);
    }
    println!("fetching {package} for arm64");
    let folder = archive()?;
    command::run_quietly(apt(&folder).args(["download", &format!("{package}:arm64")]))
        .with_context(|| format!("failed to fetch {package} for arm64"))?;
    let file = fs::read_dir(&folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
        .context("apt-get fetched no package")?;
    let half = place.join("half");
    if half.exists() {
        fs::remove_dir_all(&half).with_context(|| format!("failed to empty {}", half.display()))?;
    }
    fs::create_dir_all(&half).with_context(|| format!("failed to make {}", half.display()))?;
    command::run_quietly(Command::new("dpkg").arg("-x").arg(&file).arg(&half))
        .with_context(|| format!("failed to unpack {package}"))?;
    fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
    // Moved last: a folder of that name is a complete one.
    fs::rename(&half, &to).with_context(|| format!("failed to make {}", to.display()))?;
    Ok(to)
}

/// Where the lists of the arm64 archive are, brought up to date.
fn archive() -> Result<PathBuf> {
    let folder = workspace::target_dir().join("tools/arm64-archive");
    let lists = folder.join("lists/partial");
    fs::create_dir_all(&lists).with_context(|| format!("failed to make {}", lists.display()))?;
    command::run_quietly(apt(&folder).arg("update"))
        .context("failed to read the package lists of arm64")?;
    Ok(folder)
}

/// apt-get that knows arm64 and keeps what it reads in `folder`.
fn apt(folder: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.current_dir(folder).arg("-q");
    settings(&mut apt, folder);
    apt
}

fn settings<'a>(apt: &'a mut Command, folder: &Path) -> &'a mut Command {
    apt.env("LC_ALL", "C")
        .args(["-o", "APT::Architectures::=arm64"])
        .args([
            "-o",
            &format!("Dir::State::Lists={}/lists", folder.display()),
        ])
        // The cache describes the system's own lists.
        .args([
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        ])
}
