//! Installs, upgrades and purges the package in a system of its own.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::system::{CONFIGURATION, System};
use super::{Args, package};
use crate::{command, setup, workspace};

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

    let system = System::make("debian-root", &[])?;
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
