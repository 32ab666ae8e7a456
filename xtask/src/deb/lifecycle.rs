//! Installs, upgrades and purges the package in a system of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Args, package};
use crate::{command, setup, workspace};

/// The release whose users have the oldest dpkg that is supported.
const SUITE: &str = "bookworm";
const CONFIGURATION: &str = "etc/netobs/netobs.toml";

/// Where dpkg, and the tools that its triggers run, write whatever is installed.
const BOOKKEEPING: &[&str] = &["var/lib/dpkg", "var/log", "var/cache", "proc", "sys", "dev"];

/// Builds two revisions, checks them with lintian, and takes them through their life. The last
/// line printed is `N passed, N failed`.
pub(crate) fn test() -> Result<()> {
    setup::demand(setup::Scope::Package)?;
    let build = |revision: &str| {
        let output = workspace::target_dir().join(format!("tools/package-{revision}"));
        let args = Args {
            target: None,
            revision: revision.to_owned(),
        };
        package(&args, &output)
    };
    let (old, new) = (build("1")?, build("2")?);
    command::run(
        Command::new("lintian")
            .args(["--fail-on", "error,warning", "--info"])
            .arg(&new),
    )
    .context("lintian has found faults in the package")?;
    println!("package: lintian has nothing to say");

    let system = System::make()?;
    let before = system.files()?;
    let users = system.read("etc/passwd")?;

    system.dpkg(&["--install"], Some(&old))?;
    for file in [
        "usr/bin/netobs",
        CONFIGURATION,
        "usr/share/man/man1/netobs.1.gz",
        "usr/share/man/man1/netobs-run.1.gz",
        "usr/share/bash-completion/completions/netobs",
        "usr/share/zsh/vendor-completions/_netobs",
        "usr/share/fish/vendor_completions.d/netobs.fish",
        "usr/share/doc/netobs/copyright",
    ] {
        ensure!(system.path(file).is_file(), "/{file} is not installed");
    }
    let unit = ["usr/lib", "lib"].map(|lib| system.path(lib).join("systemd/system/netobs.service"));
    ensure!(unit.iter().any(|unit| unit.is_file()), "there is no unit");
    let check = [
        "run",
        "--config.check",
        "--config",
        "/etc/netobs/netobs.toml",
    ];
    system.run("/usr/bin/netobs", &check)?;
    println!("package: installed; its configuration is valid");

    let edited = format!("{}\n# Mine.\n", system.read(CONFIGURATION)?);
    system.write(CONFIGURATION, &edited)?;
    system.dpkg(&["--force-confold", "--install"], Some(&new))?;
    ensure!(
        system.version()?.ends_with("-2"),
        "the upgrade did not install the new revision"
    );
    ensure!(
        system.read(CONFIGURATION)? == edited,
        "the upgrade changed the administrator's configuration"
    );
    println!("package: upgraded; the configuration was kept");

    system.dpkg(&["--remove", "netobs"], None)?;
    ensure!(
        !system.path("usr/bin/netobs").exists() && system.path(CONFIGURATION).is_file(),
        "removing leaves the configuration and nothing else"
    );
    system.dpkg(&["--purge", "netobs"], None)?;
    let after = system.files()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "purging leaves {left:?}");
    let lost: Vec<_> = before.difference(&after).collect();
    ensure!(lost.is_empty(), "purging takes {lost:?} with it");
    ensure!(system.read("etc/passwd")? == users, "purging leaves a user");
    println!("package: removed and purged; nothing is left");
    println!("1 passed, 0 failed");
    Ok(())
}

/// A minimal Debian in a folder, removed when dropped.
struct System {
    root: PathBuf,
}

impl System {
    fn make() -> Result<Self> {
        let root = workspace::target_dir().join("tools/debian-root");
        let system = Self { root };
        system.remove()?;
        println!("package: making a Debian {SUITE} (debootstrap, about a minute)");
        let mut debootstrap = command::as_root("debootstrap")?;
        debootstrap.args(["--variant=minbase", SUITE]);
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

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| format!("failed to read /{file}"))
    }

    /// Writes as root: the files of the system are root's.
    fn write(&self, file: &str, text: &str) -> Result<()> {
        let from = workspace::target_dir().join("tools/edited");
        fs::write(&from, text).with_context(|| format!("failed to write {}", from.display()))?;
        let mut copy = command::as_root("cp")?;
        command::run_quietly(copy.arg(&from).arg(self.path(file)))
    }

    /// Runs a program of the system in it.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut chroot = command::as_root("chroot")?;
        chroot
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command::run_quietly(chroot.arg(&self.root).arg(program).args(arguments))
    }

    fn dpkg(&self, arguments: &[&str], package: Option<&Path>) -> Result<()> {
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
    fn version(&self) -> Result<String> {
        let mut query = Command::new("dpkg-query");
        query
            .arg("--admindir")
            .arg(self.path("var/lib/dpkg"))
            .args(["--show", "--showformat", "${Version}", "netobs"]);
        command::output(&mut query).context("netobs is not installed")
    }

    /// Every file and folder but dpkg's own.
    fn files(&self) -> Result<BTreeSet<PathBuf>> {
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
