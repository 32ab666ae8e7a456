//! Debian's packages: what there is, what is best, and installing it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

pub(super) const NO_COMPILER: &str = "apt knows no compiler with a core for the BPF target that \
     is new enough. Are its lists up to date (apt-get update), and is the distribution's security \
     archive in sources.list? Otherwise: \
     `rustup toolchain install nightly --component rust-src`";

/// A compiler package and the package of its core for BPF. Stable releases of Debian keep
/// `rustc` as it was and carry a current one as `rustc-web`.
const PAIRS: &[(&str, &str)] = &[
    ("rustc-web", "libstd-rust-web-dev-bpf"),
    ("rustc", "libstd-rust-dev-bpf"),
];

/// A compiler that can be installed.
pub(super) struct Compiler {
    rustc: &'static str,
    core: &'static str,
    /// Major version of the LLVM it is built on, where the package tells.
    pub(super) llvm: Option<u32>,
}

impl Compiler {
    /// The newest that compiles this workspace.
    pub(super) fn best() -> Option<Self> {
        let oldest = numbers(env!("CARGO_PKG_RUST_VERSION"));
        let (_, rustc, core) = PAIRS
            .iter()
            .filter_map(|(rustc, core)| {
                let version = candidate(rustc)?;
                (candidate(core)? == version).then(|| (numbers(&version), *rustc, *core))
            })
            .filter(|(version, ..)| *version >= oldest)
            .max()?;
        Some(Self {
            rustc,
            core,
            llvm: llvm_beside(core),
        })
    }

    pub(super) fn packages(&self) -> Vec<String> {
        vec![self.rustc.to_owned(), self.core.to_owned()]
    }
}

/// The version of a package that apt would install; `None` when there is none.
pub(super) fn candidate(package: &str) -> Option<String> {
    let text = command::output(query("policy").arg(package))?;
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// The core's package recommends the `lld` of the LLVM that its compiler is built on.
fn llvm_beside(core: &str) -> Option<u32> {
    let text = command::output(query("depends").arg(core))?;
    text.lines()
        .find_map(|line| line.rsplit_once("lld-")?.1.trim().parse().ok())
}

/// The numbers at the head of a version: `1.96.0+dfsg1-1` is 1, 96, 0.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect()
}

pub(super) fn update() -> Result<()> {
    let mut apt = get()?;
    command::run_quietly(apt.arg("update")).context("failed to read the package lists")
}

/// Installs packages; refuses to remove any, such as another rustc that the user relies on.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let mut apt = get()?;
    apt.args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
    command::run_quietly(apt.args(packages)).context(
        "failed to install the packages. If apt says that it would have to remove some (a rustc \
         or rustup of the distribution), install a nightly with rust-src by rustup.rs instead",
    )
}

/// apt-get as root, never asking.
fn get() -> Result<Command> {
    let mut apt = command::as_root("env")?;
    apt.args([
        "DEBIAN_FRONTEND=noninteractive",
        "LC_ALL=C",
        "apt-get",
        "-q",
    ]);
    Ok(apt)
}

/// apt-cache in a language that can be parsed.
fn query(subcommand: &str) -> Command {
    let mut apt = Command::new("apt-cache");
    apt.env("LC_ALL", "C").arg(subcommand);
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_debian_versions_by_their_numbers() {
        assert_eq!(numbers("1.96.0+dfsg1-1~deb12u2"), [1, 96, 0]);
        assert!(numbers("1.85.0+dfsg3-1") < numbers("1.89"));
        assert!(numbers("1.89.0") >= numbers("1.89"));
        assert_eq!(numbers("(none)"), [] as [u32; 0]);
    }
}
