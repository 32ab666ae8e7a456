//! What was compiled, by what: `NETOBS_REVISION` and `NETOBS_RUSTC` for the agent's `env!`.
//!
//! Neither can fail the build: outside a checkout both may be `unknown`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sets both variables.
pub(crate) fn note() {
    let revision = revision().unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=NETOBS_REVISION={revision}");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = stdout(Command::new(rustc).arg("--version")).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=NETOBS_RUSTC={version}");
}

fn revision() -> Option<String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent()?;
    // Sources unpacked inside somebody else's checkout must not take that one's revision.
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    // HEAD names a branch and stays the same when one commits; its log grows with each commit
    // and checkout. Asking git for the path is right in linked worktrees, too.
    for name in ["logs/HEAD", "HEAD"] {
        let file = root.join(git(root, &["rev-parse", "--git-path", name])?);
        if file.is_file() {
            println!("cargo::rerun-if-changed={}", file.display());
            break;
        }
    }
    git(root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    stdout(Command::new("git").arg("-C").arg(root).args(arguments))
}

/// The one line that a command prints; `None` when it fails or prints nothing.
fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
