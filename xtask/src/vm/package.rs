//! Downloads kernel packages, unpacks them, and finds the parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::catalog::Resolved;
use super::fetch::{self, Network};
use super::index::Package;
use super::paths::Paths;
use super::source::Mirrors;

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Which packages it came from.
    pub(crate) resolved: Resolved,
    /// What `uname -r` will say.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) image: PathBuf,
    /// The folder with `modules.dep`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Its name in the matrix.
    pub(crate) fn name(&self) -> &str {
        &self.resolved.kernel
    }

    /// Debian's version of it.
    pub(crate) fn version(&self) -> &str {
        self.resolved
            .packages
            .first()
            .map_or("", |package| &package.version)
    }
}

/// Downloads and unpacks what is not there yet, several at a time.
///
/// # Errors
/// When a package cannot be had, or does not hold what a kernel's packages hold.
pub(crate) fn fetch_all(
    paths: &Paths,
    resolved: &[Resolved],
    network: Network,
) -> anyhow::Result<Vec<Kernel>> {
    let mirrors = Mirrors::find();
    super::parallel(resolved, |resolved| {
        kernel(paths, &mirrors, resolved, network)
    })
    .into_iter()
    .zip(resolved)
    .map(|(kernel, resolved)| {
        kernel.with_context(|| format!("failed to get kernel {}", resolved.kernel))
    })
    .collect()
}

fn kernel(
    paths: &Paths,
    mirrors: &Mirrors,
    resolved: &Resolved,
    network: Network,
) -> anyhow::Result<Kernel> {
    // Long enough to tell packages apart, and short enough for people.
    let key: Vec<_> = resolved
        .packages
        .iter()
        .filter_map(|p| p.sha256.get(..16))
        .collect();
    let folder = paths.kernel(&key.join("-"));
    if !folder.is_dir() {
        let root = mirrors.root(resolved.archive);
        super::parallel(&resolved.packages, |package| {
            get(paths, root, package, network)
        })
        .into_iter()
        .collect::<anyhow::Result<()>>()?;
        unpack(paths, &resolved.packages, &folder)?;
    }
    let (image, modules) = parts(&folder)?;
    let release = modules
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel {
        resolved: resolved.clone(),
        release,
        image,
        modules,
    })
}

fn get(paths: &Paths, root: &str, package: &Package, network: Network) -> anyhow::Result<()> {
    let target = paths.package(&package.sha256);
    if target.is_file() {
        if fetch::hash(&target)? == package.sha256 {
            return Ok(());
        }
        eprintln!("   warning: the cached {} is damaged", package.name);
    }
    if network == Network::Never {
        bail!(
            "{} is not cached, and the network is not to be used",
            package.name
        );
    }
    let url = format!("{root}/{}", package.filename);
    let label = format!("{} {}", package.name, package.version);
    fetch::verified(&url, &label, &package.sha256, package.size, &target)
}

/// Unpacks all packages into one folder, which appears only when it is complete.
fn unpack(paths: &Paths, packages: &[Package], folder: &Path) -> anyhow::Result<()> {
    let parent = folder.parent().context("a kernel needs a folder")?;
    fs::create_dir_all(parent).context("failed to create the folder of kernels")?;
    let scratch = tempfile::tempdir_in(parent).context("failed to create a folder")?;
    for package in packages {
        let deb = paths.package(&package.sha256);
        let what = format!("unpack {}", package.name);
        call(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(deb)
                .arg(scratch.path()),
            &what,
        )?;
    }
    let (_, modules) = parts(scratch.path())?;
    // Debian makes the index of modules when the package is installed, not when it is built.
    let release = modules.file_name().unwrap_or_default();
    let base = modules
        .ancestors()
        .nth(3)
        .context("modules are in no folder")?;
    call(
        Command::new("depmod").arg("-b").arg(base).arg(release),
        "index the modules",
    )?;
    fs::rename(scratch.keep(), folder).context("failed to put the kernel in place")
}

fn call(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to {what}: no {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "failed to {what}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The kernel's image and the folder of its modules. Older packages have the image in `/boot` and
/// the modules in `/lib`; newer ones have both below `/usr/lib/modules`.
fn parts(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|path| only_entry(&folder.join(path)))
        .context("the packages hold no modules")?;
    let release = modules
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let image = [
        folder.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .context("the packages hold no kernel image")?;
    Ok((image, modules))
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let first = entries.next()?.path();
    entries.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, path: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    #[test]
    fn finds_the_parts_in_both_layouts() {
        for (image, modules) in [
            ("boot/vmlinuz-1.2-cloud", "lib/modules/1.2-cloud"),
            (
                "usr/lib/modules/1.2-cloud/vmlinuz",
                "usr/lib/modules/1.2-cloud",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            touch(folder.path(), image);
            touch(folder.path(), &format!("{modules}/modules.builtin"));
            let found = parts(folder.path()).unwrap();
            assert_eq!(
                found,
                (folder.path().join(image), folder.path().join(modules))
            );
        }
    }

    #[test]
    fn says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            parts(folder.path())
                .unwrap_err()
                .to_string()
                .contains("modules")
        );
        touch(folder.path(), "lib/modules/1.2/modules.builtin");
        assert!(
            parts(folder.path())
                .unwrap_err()
                .to_string()
                .contains("image")
        );
    }
}
