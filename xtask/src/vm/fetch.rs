//! Downloads with curl, checked against hashes before anything else sees them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// Debian's keys, as its own package installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// When the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Never: what is not cached is an error.
    Never,
    /// For what is not cached, and to look for newer kernels when that was long ago.
    WhenStale,
    /// To look for newer kernels now.
    Refresh,
}

/// Downloads `url`, which people know as `label`, to `target`, which appears only when it is whole
/// and has the hash.
///
/// # Errors
/// When the download fails, is larger than `limit` bytes, or has another hash.
pub(crate) fn verified(
    url: &str,
    label: &str,
    sha256: &str,
    limit: u64,
    target: &Path,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let file = download(url, limit, target)?;
    let found = hash(file.path())?;
    if found != sha256 {
        bail!("{label} has hash {found}, not {sha256}");
    }
    let size = file
        .as_file()
        .metadata()
        .context("failed to read a download's size")?
        .len();
    file.persist(target)
        .with_context(|| format!("failed to write {}", target.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "   fetched {label} ({:.1} MB, {seconds:.1} s)",
        megabytes(size)
    );
    Ok(())
}

/// Downloads an `InRelease` file and returns what of it is signed.
///
/// The signature is checked when `gpgv` and Debian's keys are installed, as on every Debian
/// machine; a warning says when they are not.
///
/// # Errors
/// When it cannot be downloaded, or its signature is bad.
pub(crate) fn release(url: &str, target: &Path) -> anyhow::Result<String> {
    let file = download(url, 4 << 20, target)?;
    if super::tools::find("gpgv").is_none() || !Path::new(KEYRING).is_file() {
        eprintln!(
            "   warning: {url} is not authenticated: install gpgv and debian-archive-keyring"
        );
        return fs::read_to_string(file.path()).context("failed to read the release file");
    }
    let output = Command::new("gpgv")
        .args(["--status-fd", "2", "--keyring", KEYRING, "--output", "-"])
        .arg(file.path())
        .stdin(Stdio::null())
        .output()
        .context("failed to run gpgv")?;
    // Suites are signed with several keys, not all of which an older keyring has.
    let status = String::from_utf8_lossy(&output.stderr).into_owned();
    let says = |word: &str| {
        status
            .lines()
            .any(|line| line.starts_with(&format!("[GNUPG:] {word}")))
    };
    if !says("VALIDSIG") || says("BADSIG") {
        bail!("failed to authenticate {url}: {}", status.trim());
    }
    String::from_utf8(output.stdout).context("the release file is not text")
}

fn download(url: &str, limit: u64, target: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    let folder = target.parent().context("a download needs a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let file = tempfile::NamedTempFile::new_in(folder).context("failed to create a file")?;
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--location",
            "--proto",
            "=http,https",
        ])
        .args([
            "--retry",
            "5",
            "--retry-all-errors",
            "--connect-timeout",
            "20",
            "--max-time",
            "600",
        ])
        .args([
            "--speed-limit",
            "1024",
            "--speed-time",
            "60",
            "--max-filesize",
        ])
        .arg(limit.to_string())
        .arg("--output")
        .arg(file.path())
        .arg("--")
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .context("failed to run curl")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("failed to download {url}: {}", reason.trim());
    }
    Ok(file)
}

/// The SHA-256 of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn hash(path: &Path) -> anyhow::Result<String> {
    let mut file =
        File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher)
        .with_context(|| format!("failed to read {}", path.display()))?;
    Ok(hex(&hasher.finalize()))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people to read")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
