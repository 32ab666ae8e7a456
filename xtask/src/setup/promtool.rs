//! promtool and the Prometheus server, without the service that their package would start.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// The programs of the package that the tests call.
pub(super) const PROGRAMS: [&str; 2] = ["promtool", "prometheus"];

/// Unpacks [`PROGRAMS`] from Debian's `prometheus` into this checkout's tools.
///
/// Installing the package would add a user, and where an init runs a service that listens.
pub(super) fn unpack() -> Result<()> {
    let bin = workspace::tools_bin();
    let folder = workspace::target_dir().join("tools").join("prometheus");
    fs::create_dir_all(&bin).with_context(|| format!("failed to make {}", bin.display()))?;
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    fs::create_dir(&folder).with_context(|| format!("failed to make {}", folder.display()))?;

    println!("fetching prometheus");
    let mut download = Command::new("apt-get");
    download
        .current_dir(&folder)
        .env("LC_ALL", "C")
        .args(["-q", "download", "prometheus"]);
    command::run_quietly(&mut download).context("failed to fetch the package prometheus")?;
    let package = fs::read_dir(&folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get fetched no package")?;
    command::run_quietly(Command::new("dpkg").arg("-x").arg(&package).arg(&folder))
        .context("failed to unpack the package prometheus")?;
    for program in PROGRAMS {
        fs::rename(folder.join("usr/bin").join(program), bin.join(program))
            .with_context(|| format!("the package prometheus has no usr/bin/{program}"))?;
    }
    fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))
}
