//! Where things are, and the cargo that works on them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // cargo says where it found this crate; the path compiled in is for a binary started by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Every file below a folder.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        let list = fs::read_dir(&folder)
            .with_context(|| format!("failed to read {}", folder.display()))?;
        for entry in list {
            let path = entry.context("failed to list a folder")?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |directory| root().join(directory))
}

/// Programs that belong to this checkout and are installed nowhere else.
pub(crate) fn tools_bin() -> PathBuf {
    target_dir().join("tools").join("bin")
}

/// A cargo command in the workspace: the cargo that started this task.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo
        .current_dir(root())
        .env("PATH", path())
        .arg(subcommand);
    cargo
}

/// The search path of tasks: this checkout's tools, the caller's path, cargo's programs, and the
/// administrator's folders, which Debian leaves out of an ordinary user's path.
pub(crate) fn path() -> OsString {
    let caller = env::var_os("PATH").unwrap_or_default();
    let mut directories = vec![tools_bin()];
    directories.extend(env::split_paths(&caller));
    directories.extend(crate::toolchain::cargo_bin());
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    // Fails only for a folder with a colon in its name: the caller's path is then the best there is.
    env::join_paths(directories).unwrap_or(caller)
}

/// Finds a program on [`path`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&path())
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
