//! A Debian of its own, to install the package in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// The release whose users have the oldest dpkg and systemd that are supported.
const SUITE: &str = "bookworm";
/// The package's configuration.
pub(super) const CONFIGURATION: &str = "etc/netobs/netobs.toml";

/// Where dpkg, and the tools that its triggers run, write whatever is installed.
const BOOKKEEPING: &[&str] = &["var/lib/dpkg", "var/log", "var/cache", "proc", "sys", "dev"];

/// A minimal Debian in a folder, removed when dropped.
pub(super) struct System {
    root: PathBuf,
}

impl System {
    /// Makes one, with these packages more, in a folder of this name.
    pub(super) fn make(name: &str, packages: &[&str]) -> Result<Self> {
        let root = workspace::target_dir().join("tools").join(name);
        let system = Self { root };
        system.remove()?;
        println!("package: making a Debian {SUITE} (debootstrap, about a minute)");
        let mut debootstrap = command::as_root("debootstrap")?;
        debootstrap.arg("--variant=minbase");
        if !packages.is_empty() {
            debootstrap.arg(format!("--include={}", packages.join(",")));
        }
        debootstrap.arg(SUITE);
        command::run_quietly(debootstrap.arg(&system.root))?;
        Ok(system)
    }

    fn remove(&self) -> Result<()> {
        let mut remove = command::as_root("rm")?;
        command::run_quietly(
            remove
                .args(["-rf", "--one-file-system", "--"])
                .arg(&self.root),
        )
    }

    /// Where a file of the system is.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// The text of a file.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| format!("failed to read /{file}"))
    }

    /// Writes as root: the files of the system are root's.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let from = workspace::target_dir().join("tools/edited");
        fs::write(&from, text).with_context(|| format!("failed to write {}", from.display()))?;
        let mut copy = command::as_root("cp")?;
        command::run_quietly(copy.arg(&from).arg(self.path(file)))
    }

    /// Runs a program of the system in it.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut chroot = command::as_root("chroot")?;
        chroot
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command::run_quietly(chroot.arg(&self.root).arg(program).args(arguments))
    }

    /// Runs dpkg, on a package if one is given.
    pub(super) fn dpkg(&self, arguments: &[&str], package: Option<&Path>) -> Result<()> {
        let Some(package) = package else {
            return self.run("dpkg", arguments);
        };
        let mut copy = command::as_root("cp")?;
        command::run_quietly(copy.arg(package).arg(self.path("package.deb")))?;
        let mut arguments = arguments.to_vec();
        arguments.push("/package.deb");
        let outcome = self.run("dpkg", &arguments);
        let mut remove = command::as_root("rm")?;
        command::run_quietly(remove.arg("-f").arg(self.path("package.deb")))?;
        outcome
    }

    /// The version that is installed.
    pub(super) fn version(&self) -> Result<String> {
        let mut query = Command::new("dpkg-query");
        query
            .arg("--admindir")
            .arg(self.path("var/lib/dpkg"))
            .args(["--show", "--showformat", "${Version}", "netobs"]);
        command::output(&mut query).context("netobs is not installed")
    }

    /// Every file and folder but dpkg's own.
    pub(super) fn files(&self) -> Result<BTreeSet<PathBuf>> {
        let mut find = command::as_root("find")?;
        find.arg(&self.root).args(["-xdev", "-printf", "%P\\n"]);
        let list = command::output(&mut find).context("failed to list the files")?;
        Ok(list
            .lines()
            .map(PathBuf::from)
            .filter(|path| !BOOKKEEPING.iter().any(|folder| path.starts_with(folder)))
            .collect())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("warning: {error:#}");
        }
    }
}
