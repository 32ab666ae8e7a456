//! bpf-linker, built against the LLVM of the compiler whose bitcode it links.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context, Result, bail};

use super::{apt, need};
use crate::command;
use crate::toolchain::{self, Toolchain};

/// The version known to go with the aya crates of this workspace.
pub(super) const VERSION: &str = "0.13.0";

/// The LLVM versions that it can be built against.
const LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Libraries that LLVM's own headers ask for.
const LIBRARIES: &[&str] = &["zlib1g-dev", "libzstd-dev"];

/// The least that a linker must understand.
const PROGRAM: &str =
    "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe() -> i32 { 0 }\n";

/// Whether bpf-linker is there and understands what the compiler writes.
pub(super) fn works(toolchain: Option<Toolchain>) -> bool {
    let Some(linker) = toolchain::bpf_linker() else {
        return false;
    };
    match toolchain {
        Some(Toolchain::Debian) => links(&linker),
        // Trying it with a nightly means building core first: too slow for a look.
        Some(Toolchain::Nightly) | None => {
            command::output(Command::new(linker).arg("--version")).is_some()
        }
    }
}

/// Compiles [`PROGRAM`] and links its bitcode: a linker built for an older LLVM refuses it.
fn links(linker: &Path) -> bool {
    let folder = env::temp_dir().join(format!("netobs-setup-{}", process::id()));
    if fs::create_dir(&folder).is_err() {
        return false;
    }
    let linked = fs::write(folder.join("probe.rs"), PROGRAM).is_ok()
        && command::output(
            Command::new(toolchain::DEBIAN_RUSTC)
                .current_dir(&folder)
                .args([
                    "--edition",
                    "2024",
                    "--crate-type",
                    "lib",
                    "--target",
                    need::bpf_target(),
                ])
                .args(["--emit", "llvm-bc", "-o", "probe.bc", "probe.rs"]),
        )
        .is_some()
        && command::output(
            Command::new(linker)
                .current_dir(&folder)
                .args(["-o", "probe.o", "probe.bc"]),
        )
        .is_some();
    // A leftover in the temporary folder harms nobody.
    let _ = fs::remove_dir_all(&folder);
    linked
}

/// The packages that building it takes.
pub(super) fn packages(compiler: Option<&apt::Compiler>) -> Result<Vec<String>> {
    let wanted = match llvm_of_compiler() {
        Some(llvm) => llvm,
        None => compiler
            .and_then(|compiler| compiler.llvm)
            .context("failed to find out on which LLVM the compiler for the BPF target is built")?,
    };
    let llvm = available(wanted)?;
    let mut packages: Vec<String> = LIBRARIES.iter().map(|name| (*name).to_owned()).collect();
    packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
    Ok(packages)
}

/// The LLVM to build against: the compiler's own, or a later one, which reads its bitcode.
fn available(wanted: u32) -> Result<u32> {
    let found = LLVMS.filter(|llvm| *llvm >= wanted).find(|llvm| {
        prefix(*llvm).is_some() || apt::candidate(&format!("llvm-{llvm}-dev")).is_some()
    });
    found.with_context(|| {
        format!(
            "apt has no llvm-NN-dev from {wanted} to {}, which bpf-linker {VERSION} needs to link \
             what this compiler writes",
            LLVMS.end()
        )
    })
}

/// Builds and installs it into cargo's own folder of programs.
pub(super) fn install() -> Result<()> {
    let wanted = llvm_of_compiler().context("there is no compiler for the BPF target")?;
    let llvm = available(wanted)?;
    let Some(prefix) = prefix(llvm) else {
        bail!("llvm-{llvm}-dev is not installed: is the package list complete?");
    };
    println!("building bpf-linker {VERSION} against LLVM {llvm} (about two minutes)");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut install = Command::new(cargo);
    install
        .env("LLVM_PREFIX", prefix)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ]);
    command::run_quietly(&mut install).context("failed to build bpf-linker")
}

/// Where Debian's LLVM of this major version is, if its headers are there.
fn prefix(llvm: u32) -> Option<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    prefix.join("bin/llvm-config").is_file().then_some(prefix)
}

/// Major version of the LLVM in the compiler that the build will choose.
fn llvm_of_compiler() -> Option<u32> {
    let mut rustc = match Toolchain::choose(need::bpf_target()).ok()? {
        Toolchain::Debian => Command::new(toolchain::DEBIAN_RUSTC),
        Toolchain::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup
                .args(["run", "nightly", "rustc"])
                .env_remove("RUSTUP_TOOLCHAIN");
            rustup
        }
    };
    let text = command::output(rustc.arg("-vV"))?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}
