//! The nested build of `netobs-ebpf`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::DeflateEncoder};

use crate::strip;
use crate::toolchain::{self, Toolchain};

const PACKAGE: &str = "netobs-ebpf";

/// Profile of the kernel side, whatever the agent's: the verifier refuses unoptimised code, an
/// unwinding panic cannot exist there, and the BTF is made from the debug information.
const PROFILE: &[(&str, &str)] = &[
    ("CODEGEN_UNITS", "1"),
    ("DEBUG", "2"),
    ("DEBUG_ASSERTIONS", "false"),
    ("INCREMENTAL", "false"),
    ("LTO", "fat"),
    ("OPT_LEVEL", "3"),
    ("OVERFLOW_CHECKS", "false"),
    ("PANIC", "abort"),
    ("STRIP", "none"),
];

/// What the outer cargo, clippy or rustup set for themselves and the nested build must not see.
const FOREIGN: &[&str] = &[
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// Compiles the kernel side into `$OUT_DIR/netobs-ebpf`.
pub(crate) fn build() -> Result<()> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let workspace = workspace()?;
    for path in ["netobs-ebpf", "netobs-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for name in [toolchain::OVERRIDE, "NETOBS_DENY_WARNINGS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let toolchain = Toolchain::choose(target)?;
    let linker = toolchain::bpf_linker().context(
        "bpf-linker is neither on PATH nor in cargo's bin folder: `cargo xtask setup` installs it",
    )?;
    println!(
        "kernel side: {target}, {toolchain} toolchain, linked by {}",
        linker.display()
    );
    println!("cargo::rerun-if-changed={}", linker.display());
    if toolchain == Toolchain::Debian {
        println!("cargo::rerun-if-changed={}", toolchain::DEBIAN_RUSTC);
    }

    let target_dir = out_dir.join("ebpf");
    run(command(toolchain, target, &linker)?
        .current_dir(&workspace)
        .arg("--target-dir")
        .arg(&target_dir))?;
    let object = target_dir.join(target).join("release").join(PACKAGE);
    let whole = fs::read(&object)
        .with_context(|| format!("failed to read the object {}", object.display()))?;
    let place = out_dir.join(PACKAGE);
    let packed = packed(&strip::without_debug_information(&whole)?)?;
    fs::write(&place, packed)
        .with_context(|| format!("failed to write the object {}", place.display()))?;
    Ok(())
}

/// The object's size as four bytes, and then itself, deflated: a sixth of it.
fn packed(object: &[u8]) -> Result<Vec<u8>> {
    let size = u32::try_from(object.len()).context("the object is larger than 4 GiB")?;
    let mut encoder = DeflateEncoder::new(size.to_le_bytes().to_vec(), Compression::best());
    encoder
        .write_all(object)
        .and_then(|()| encoder.finish())
        .context("failed to pack the object")
}

/// The nested cargo's command line, without its working and target folders.
fn command(toolchain: Toolchain, target: &str, linker: &Path) -> Result<Command> {
    let mut cargo = match toolchain {
        Toolchain::Debian => Command::new(variable("CARGO")?),
        Toolchain::Nightly => Command::new("rustup"),
    };
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    match toolchain {
        // aya-ebpf needs one unstable feature on the BPF target: this is what allows it there.
        Toolchain::Debian => cargo
            .env("RUSTC", toolchain::DEBIAN_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .arg("build"),
        Toolchain::Nightly => {
            cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"])
        }
    };
    cargo.args([
        "--quiet",
        "--locked",
        "--release",
        "--package",
        PACKAGE,
        "--target",
        target,
    ]);
    if env::var_os("CARGO_FEATURE_EBPF_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    for (key, value) in PROFILE {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }

    let mut flags = vec![
        // The line information that the verifier prints would name this machine's folders.
        format!("--remap-path-prefix={}=.", workspace()?.display()),
        // aya-ebpf's bindings and register layouts follow the machine that will run the object.
        format!("--cfg=bpf_target_arch=\"{}\"", bpf_arch()?),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        // With it LLVM leaves every clearing of 16 bytes to a function that goes byte by byte, and which
        // the verifier follows each time.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
    ];
    if let Some(home) = toolchain::cargo_bin().as_deref().and_then(Path::parent) {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    if env::var_os("NETOBS_DENY_WARNINGS").as_deref() == Some(OsStr::new("1")) {
        flags.push("-Dwarnings".into());
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(cargo)
}

/// Runs the nested build; its warnings become warnings of the outer one.
fn run(cargo: &mut Command) -> Result<()> {
    let output = cargo
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", cargo.get_program().display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let hint = if messages.contains("LLVM") || messages.contains("bitcode") {
            "\nbpf-linker may be built for an older LLVM than the compiler's: `cargo xtask setup` \
             builds a fitting one"
        } else {
            ""
        };
        bail!(
            "the kernel side ({PACKAGE}) did not compile\n{}{hint}",
            messages.trim_end()
        );
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}

/// The target's architecture as aya-ebpf spells it.
fn bpf_arch() -> Result<String> {
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    Ok(if arch.starts_with("riscv64") {
        "riscv64".into()
    } else {
        arch
    })
}

fn workspace() -> Result<PathBuf> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let parent = manifest
        .parent()
        .context("the agent's crate is not inside a workspace")?;
    Ok(parent.to_path_buf())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("failed to read {name}, which cargo sets"))
}
