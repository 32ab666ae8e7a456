//! `cargo xtask deb`: the Debian package, by cargo-deb and the metadata in `netobs/Cargo.toml`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

use crate::{build, command, time, workspace};

mod lifecycle;
mod live;
mod system;

pub(crate) use lifecycle::test;
pub(crate) use live::test as test_live;

/// Pinned, so that a new release does not change the package of an old commit.
const CARGO_DEB: &str = "3.8.0";

/// Options of `deb`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build for this target instead of this machine's
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// The package's revision, after the version
    #[arg(long, value_name = "REVISION", default_value = "1")]
    revision: String,
}

impl Args {
    /// The first revision for a target.
    pub(crate) fn of(target: &str) -> Self {
        Self {
            target: Some(target.to_owned()),
            revision: "1".to_owned(),
        }
    }
}

/// Builds the package and says where it is.
pub(crate) fn deb(args: &Args) -> Result<()> {
    let package = package(args, &workspace::target_dir().join("debian"))?;
    println!("{}", package.display());
    Ok(())
}

/// Builds the package into a folder, where cargo-deb removes older ones; returns its path.
pub(crate) fn package(args: &Args, output: &Path) -> Result<PathBuf> {
    if workspace::find("cargo-deb").is_none() {
        install()?;
    }
    let target = args.target.clone().map_or_else(build::host, Ok)?;
    let linked = |target: &str| {
        build::agent(&build::Args {
            release: true,
            linked_in: true,
            target: Some(target.to_owned()),
        })
    };
    let binary = linked(&target)?;
    // What the agent says of itself is asked of one that runs here.
    let host = build::host()?;
    let speaker = if target == host {
        binary.clone()
    } else {
        linked(&host)?
    };
    let generated = binary.with_file_name("package");
    generate(&speaker, &generated, &args.revision)?;

    fs::create_dir_all(output).with_context(|| format!("failed to make {}", output.display()))?;
    let mut cargo = workspace::cargo("deb");
    cargo
        .args([
            "--package",
            "netobs",
            "--no-build",
            "--no-strip",
            "--no-dbgsym",
        ])
        .args(["--target", &target, "--deb-revision", &args.revision])
        .arg("--output")
        .arg(output)
        .env("SOURCE_DATE_EPOCH", time::of_the_source()?.to_string());
    let printed =
        command::output(&mut cargo).context("cargo-deb failed: run `cargo deb` by hand")?;
    let package = printed.lines().last().unwrap_or_default();
    ensure!(package.ends_with(".deb"), "cargo-deb named no package");
    Ok(PathBuf::from(package))
}

/// Writes manual pages, completions and the changelog into `folder`.
fn generate(binary: &Path, folder: &Path, revision: &str) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    let man = folder.join("man");
    fs::create_dir_all(&man).with_context(|| format!("failed to make {}", man.display()))?;
    let ask = |arguments: &[&str]| {
        command::output(Command::new(binary).args(arguments))
            .with_context(|| format!("`netobs {}` failed", arguments.join(" ")))
    };
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    };
    compressed(&man.join("netobs.1.gz"), &ask(&["man"])?)?;
    let help = ask(&["--help"])?;
    let commands = subcommands(&help);
    ensure!(!commands.is_empty(), "`netobs --help` lists no commands");
    for command in commands {
        let page = ask(&["man", command])?;
        compressed(&man.join(format!("netobs-{command}.1.gz")), &page)?;
    }
    for (shell, name) in [
        ("bash", "netobs.bash"),
        ("zsh", "_netobs"),
        ("fish", "netobs.fish"),
    ] {
        write(folder.join(name), ask(&["completions", shell])?)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let changelog = format!(
        "netobs ({version}-{revision}) unstable; urgency=medium\n\n  * Version {version}.\n\n \
         -- netobs maintainers <maintainers@netobs.example>  {}\n",
        time::rfc2822(time::of_the_source()?)
    );
    compressed(&folder.join("changelog.Debian.gz"), &changelog)
}

/// Writes a text as Debian wants its documentation: compressed, without name and time.
fn compressed(path: &Path, text: &str) -> Result<()> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes())
        .and_then(|()| gzip.finish())
        .and_then(|bytes| fs::write(path, bytes))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// The names below "Commands:".
fn subcommands(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        // A description that goes on is indented further.
        .filter(|line| line.find(|c| c != ' ') == Some(2))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// Builds cargo-deb into cargo's own folder of programs, where the next clone finds it.
fn install() -> Result<()> {
    println!("building cargo-deb {CARGO_DEB} with cargo install (about two minutes)");
    let mut cargo = workspace::cargo("install");
    cargo
        .args([
            "cargo-deb",
            "--version",
            CARGO_DEB,
            "--locked",
            "--no-default-features",
        ])
        .env_remove("CARGO_TARGET_DIR");
    command::run_quietly(&mut cargo).context("failed to build cargo-deb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_commands_of_a_help_text() {
        let help = "About\n\nUsage: x\n\nCommands:\n  run   Observe\n        and serve\n  \
                    man   Print\n  help  This\n\nOptions:\n  -h\n";
        assert_eq!(subcommands(help), ["run", "man"]);
    }
}
