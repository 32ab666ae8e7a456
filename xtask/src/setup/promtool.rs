//! promtool without the server that its package would start.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Unpacks promtool from Debian's `prometheus` into this checkout's tools.
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

    println!("fetching promtool");
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
    fs::rename(folder.join("usr/bin/promtool"), bin.join("promtool"))
        .context("the package prometheus has no usr/bin/promtool")?;
    fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))
}
