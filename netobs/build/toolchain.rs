//! Which compiler makes the kernel side, and where its linker is.
//!
//! Two ways are known. Rust's own releases carry no `core` for the BPF targets, so a nightly
//! compiler builds it from `rust-src`; Debian and Ubuntu ship one ready made beside the compiler
//! in `/usr/bin`. Debian's is tried first: its version is fixed by the distribution, a nightly's
//! is whatever was current on the day. `xtask` includes this file, so that what `setup` looks for
//! is what the build uses.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// The variable that overrides the choice.
pub(crate) const OVERRIDE: &str = "NETOBS_EBPF_TOOLCHAIN";

/// The distribution's compiler; never the one of rustup, which lives elsewhere.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A way to compile for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// [`DEBIAN_RUSTC`] with a precompiled `core`.
    Debian,
    /// rustup's nightly, which compiles `core` from `rust-src`.
    Nightly,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        })
    }
}

impl Toolchain {
    /// The first toolchain that can compile for `target`, or the one that [`OVERRIDE`] names.
    ///
    /// # Errors
    /// Says what is missing from each toolchain, and how to get it.
    pub(crate) fn choose(target: &str) -> Result<Self> {
        let wanted = env::var(OVERRIDE).unwrap_or_default();
        let candidates: &[Self] = match wanted.as_str() {
            "" => &[Self::Debian, Self::Nightly],
            "debian" => &[Self::Debian],
            "nightly" => &[Self::Nightly],
            other => bail!("{OVERRIDE} is '{other}': it takes 'debian' or 'nightly'"),
        };
        let mut reasons = String::new();
        for candidate in candidates {
            match candidate.obstacle(target) {
                None => return Ok(*candidate),
                Some(obstacle) => reasons.push_str(&format!("\n  {candidate}: {obstacle}")),
            }
        }
        bail!(
            "no compiler for the kernel side ({target}) was found{reasons}\n\
             `cargo xtask setup` installs what is needed on Debian and Ubuntu, and says what to \
             install elsewhere. By hand, either of:\n  \
             Debian, Ubuntu: the packages rustc-web and libstd-rust-web-dev-bpf (or rustc and \
             libstd-rust-dev-bpf)\n  \
             rustup: `rustup toolchain install nightly --component rust-src`"
        )
    }

    /// Why this toolchain cannot compile for `target`; `None` when it can.
    fn obstacle(self, target: &str) -> Option<String> {
        match self {
            Self::Debian => {
                let Some(sysroot) = sysroot(&mut Command::new(DEBIAN_RUSTC)) else {
                    return Some(format!("there is no working {DEBIAN_RUSTC}"));
                };
                let core = sysroot.join("lib/rustlib").join(target).join("lib");
                (!core.is_dir()).then(|| format!("{DEBIAN_RUSTC} has no core for {target}"))
            }
            Self::Nightly => {
                let mut rustc = Command::new("rustup");
                rustc
                    .args(["run", "nightly", "rustc"])
                    .env_remove("RUSTUP_TOOLCHAIN");
                let Some(sysroot) = sysroot(&mut rustc) else {
                    return Some("rustup has no toolchain named nightly".into());
                };
                let source = sysroot.join("lib/rustlib/src/rust/library/core");
                (!source.is_dir()).then(|| "the nightly has no rust-src component".into())
            }
        }
    }
}

/// Asks a compiler for its sysroot; `None` when it does not run.
fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let path = PathBuf::from(text.trim());
    (output.status.success() && path.is_dir()).then_some(path)
}

/// Finds bpf-linker: on `PATH`, else where `cargo install` puts it.
pub(crate) fn bpf_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_bin())
        .map(|directory| directory.join("bpf-linker"))
        .find(|file| is_executable(file))
}

/// The folder of programs that cargo installed.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    })?;
    Some(home.join("bin"))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
