//! Finds the newest package for each kernel in the archive's indices, and remembers what it found.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::fetch::{self, Network};
use super::index::{self, Package};
use super::paths::Paths;
use super::source::Mirrors;
use super::spec::{Archive, FLAVOUR, Spec};
use super::version;

/// Found kernels are looked for again after this time.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Larger indices are refused; today's have 8 to 11 MB.
const INDEX_LIMIT: u64 = 64 << 20;
/// The index that is read.
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// A kernel's packages, and which archive has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The kernel's name in the matrix.
    pub(crate) kernel: String,
    /// The suite.
    pub(crate) suite: String,
    /// The archive.
    pub(crate) archive: Archive,
    /// The package with the kernel, then others that belong to it.
    pub(crate) packages: Vec<Package>,
    /// When it was found, in seconds since 1970.
    pub(crate) found: u64,
}

/// The packages of `specs`, from memory when that is recent enough.
///
/// When the archive cannot be reached, an older finding is used, and a warning says so.
///
/// # Errors
/// When a kernel was never found and is not found now.
pub(crate) fn resolve(
    paths: &Paths,
    specs: &[&'static Spec],
    network: Network,
) -> anyhow::Result<Vec<Resolved>> {
    let mut known = load(paths);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let is_fresh = |spec: &Spec| match (network, known.get(spec.name)) {
        (Network::Never, found) => found.is_some(),
        (Network::WhenStale, Some(found)) => now.saturating_sub(found.found) < FRESH.as_secs(),
        (Network::WhenStale, None) | (Network::Refresh, _) => false,
    };
    let stale: Vec<_> = specs
        .iter()
        .copied()
        .filter(|spec| !is_fresh(spec))
        .collect();
    if network == Network::Never {
        if let Some(spec) = stale.first() {
            bail!(
                "kernel {} is not cached, and the network is not to be used",
                spec.name
            );
        }
    } else if !stale.is_empty() {
        let mirrors = Mirrors::find();
        let found = super::parallel(&stale, |spec| find(paths, &mirrors, spec, now));
        for (spec, found) in stale.iter().zip(found) {
            match found {
                Ok(found) => drop(known.insert(spec.name.to_owned(), found)),
                Err(error) if known.contains_key(spec.name) => {
                    eprintln!(
                        "   warning: kernel {} stays as it was: {error:#}",
                        spec.name
                    );
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("no kernel {}", spec.name));
                }
            }
        }
        store(paths, &known)?;
    }
    Ok(specs
        .iter()
        .filter_map(|spec| known.get(spec.name).cloned())
        .collect())
}

fn load(paths: &Paths) -> BTreeMap<String, Resolved> {
    // A file that is not there or not ours is as good as none: it is made anew.
    fs::read(paths.catalog())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn store(paths: &Paths, known: &BTreeMap<String, Resolved>) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(known).context("failed to encode the catalog")?;
    fs::create_dir_all(&paths.root).context("failed to create the folder of the matrix")?;
    let file = tempfile::NamedTempFile::new_in(&paths.root).context("failed to create a file")?;
    fs::write(file.path(), text).context("failed to write the catalog")?;
    file.persist(paths.catalog())
        .context("failed to write the catalog")?;
    Ok(())
}

/// Looks through the spec's suites until one has a match.
fn find(paths: &Paths, mirrors: &Mirrors, spec: &Spec, now: u64) -> anyhow::Result<Resolved> {
    let mut reasons = Vec::new();
    for &(archive, suite) in spec.suites {
        match suite_packages(paths, mirrors.root(archive), suite) {
            Ok(all) => match newest(spec, &all) {
                Some(packages) => {
                    let kernel = spec.name.to_owned();
                    let suite = suite.to_owned();
                    return Ok(Resolved {
                        kernel,
                        suite,
                        archive,
                        packages,
                        found: now,
                    });
                }
                None => reasons.push(format!("{suite} has no {}{}*", spec.image, spec.series)),
            },
            Err(error) => {
                eprintln!("   warning: {suite} is passed over: {error:#}");
                reasons.push(format!("{error:#}"));
            }
        }
    }
    bail!("{}", reasons.join("; "))
}

/// The newest image that matches and is complete, and its companions.
fn newest(spec: &Spec, all: &[Package]) -> Option<Vec<Package>> {
    let complete = |image: &Package| {
        let mut packages = vec![image.clone()];
        for name in spec.companions_of(&image.name) {
            let found = all
                .iter()
                .find(|p| p.name == name && p.version == image.version)?;
            packages.push(found.clone());
        }
        Some(packages)
    };
    all.iter()
        .filter(|package| spec.is_image(&package.name))
        .filter_map(complete)
        .max_by(|left, right| match (left.first(), right.first()) {
            (Some(left), Some(right)) => version::compare(&left.version, &right.version),
            _ => std::cmp::Ordering::Equal,
        })
}

/// All kernel packages of a suite.
fn suite_packages(paths: &Paths, root: &str, suite: &str) -> anyhow::Result<Vec<Package>> {
    let base = format!("{root}/dists/{suite}");
    let scratch = paths.index(suite);
    let release = fetch::release(&format!("{base}/InRelease"), &scratch)?;
    let sha256 = index::release_sha256(&release, INDEX)
        .with_context(|| format!("the release file of {suite} does not name {INDEX}"))?;
    let target = paths.index(&sha256);
    let label = format!("index of {suite}");
    let get = |url: &str| fetch::verified(url, &label, &sha256, INDEX_LIMIT, &target);
    // By hash, an index that the mirror replaces meanwhile is still there.
    let folder = INDEX.rsplit_once('/').map_or("", |(folder, _)| folder);
    get(&format!("{base}/{folder}/by-hash/SHA256/{sha256}"))
        .or_else(|_| get(&format!("{base}/{INDEX}")))?;
    let packages = read_index(&target).with_context(|| format!("failed to read the {label}"));
    // What it said of kernels is kept in the catalog.
    fs::remove_file(&target).with_context(|| format!("failed to remove the {label}"))?;
    packages
}

/// The kernel packages of a compressed index.
fn read_index(path: &Path) -> anyhow::Result<Vec<Package>> {
    let mut xz = Command::new("xz")
        .args(["-dc", "--memlimit-decompress=256MiB", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run xz")?;
    let output = xz.stdout.take().context("failed to read from xz")?;
    let wanted = |name: &str| name.starts_with("linux-") && name.ends_with(FLAVOUR);
    let packages = index::packages(&mut BufReader::with_capacity(1 << 16, output), wanted);
    let status = xz.wait().context("failed to wait for xz")?;
    let packages = packages?;
    if !status.success() {
        bail!("failed to decompress it");
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            ..Package::default()
        }
    }

    fn names(kernel: &str, all: &[Package]) -> Option<Vec<String>> {
        let spec = spec::select(&[kernel.to_owned()]).unwrap()[0];
        newest(spec, all).map(|found| found.into_iter().map(|p| p.name).collect())
    }

    #[test]
    fn the_newest_version_wins_not_the_last_name() {
        let all = [
            package("linux-image-6.12.107+deb13-cloud-amd64", "6.12.107-1"),
            package("linux-image-6.12.94+deb13-cloud-amd64", "6.12.94-1"),
        ];
        let found = names("6.12", &all).unwrap();
        assert_eq!(found, ["linux-image-6.12.107+deb13-cloud-amd64"]);
        assert_eq!(names("6.1", &all), None);
    }

    #[test]
    fn an_image_without_its_companions_is_passed_over() {
        let all = [
            package("linux-binary-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
            package("linux-modules-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
            package("linux-base-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
            package("linux-binary-7.3.1+deb14-cloud-amd64", "7.3.1-1"),
        ];
        let found = names("sid", &all).unwrap();
        let kinds = ["linux-binary-", "linux-modules-", "linux-base-"];
        assert_eq!(
            found,
            kinds.map(|kind| format!("{kind}7.2.13+deb14-cloud-amd64"))
        );
    }
}
