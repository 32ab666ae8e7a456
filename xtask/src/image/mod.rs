//! `cargo xtask image`: the container image, made without a registry and without a container tool.
//!
//! The image is one static binary and the licences. It is reproducible: the same commit, compiler
//! and dependencies give the same digest, wherever the checkout is and whenever it is built.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{build, command, time, workspace};

mod layer;
mod layout;

pub(crate) use layer::{Entry, pack};
use layout::{Common, Layout};

/// Where the image says it is from; a registry's name is given to it by who pushes it.
const REPOSITORY: &str = "ghcr.io/netobs/netobs";

/// Options of `image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architecture to include. May be repeated [default: this machine's]
    #[arg(long = "arch", value_name = "ARCH")]
    architectures: Vec<Architecture>,
    /// Where to write the OCI layout [default: image/netobs-VERSION.tar in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the image, with its tag
    #[arg(long, value_name = "NAME:TAG", default_value_t = default_reference())]
    name: String,
}

impl Args {
    /// This machine's image, in this file.
    pub(crate) fn to(output: PathBuf) -> Self {
        Self::of(Vec::new(), output)
    }

    /// The image of these architectures, in this file.
    pub(crate) fn of(architectures: Vec<Architecture>, output: PathBuf) -> Self {
        Self {
            architectures,
            output: Some(output),
            name: default_reference(),
        }
    }
}

/// What an image can run on, in the words of the image specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64
    Amd64,
    /// aarch64
    Arm64,
}

impl Architecture {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    pub(crate) fn host() -> Result<Self> {
        let target = build::host()?;
        [Self::Amd64, Self::Arm64]
            .into_iter()
            .find(|architecture| architecture.target() == target)
            .with_context(|| format!("there is no image for {target}: name one with --arch"))
    }
}

/// The image's name when none is given.
fn default_reference() -> String {
    format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the agent for each architecture and packs the image; prints its path and digest.
pub(crate) fn image(args: &Args) -> Result<()> {
    ensure!(
        args.name
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':')),
        "the name {} has no tag",
        args.name
    );
    let mut architectures = args.architectures.clone();
    if architectures.is_empty() {
        architectures.push(Architecture::host()?);
    }
    architectures.dedup();

    let seconds = time::of_the_source()?;
    let mut layout = Layout::new(common(&args.name, seconds));
    for architecture in architectures {
        let binary = build::agent(&build::Args {
            release: true,
            linked_in: true,
            target: Some(architecture.target().into()),
        })?;
        let layer = pack(entries(&binary)?, seconds)?;
        println!(
            "{}: {} bytes compressed",
            architecture.name(),
            layer.bytes.len()
        );
        layout.add(architecture.name(), layer)?;
    }

    let path = args.output.clone().unwrap_or_else(default_output);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    let file =
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let digest = layout.write(BufWriter::new(file), seconds)?;
    println!("{}  {}@{digest}", path.display(), args.name);
    Ok(())
}

/// Where the image goes when nothing is said.
pub(crate) fn default_output() -> PathBuf {
    let name = format!("netobs-{}.tar", env!("CARGO_PKG_VERSION"));
    workspace::target_dir().join("image").join(name)
}

fn common(reference: &str, seconds: u64) -> Common {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title", "netobs".to_owned()),
        (
            "org.opencontainers.image.description",
            "A kernel-level TCP observer for Linux".to_owned(),
        ),
        (
            "org.opencontainers.image.licenses",
            "(MIT OR Apache-2.0) AND GPL-2.0-only".to_owned(),
        ),
        (
            "org.opencontainers.image.source",
            env!("CARGO_PKG_REPOSITORY").to_owned(),
        ),
        (
            "org.opencontainers.image.version",
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
    ]);
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root());
    if let Some(revision) = command::output(git.args(["rev-parse", "HEAD"])) {
        labels.insert(
            "org.opencontainers.image.revision",
            revision.trim().to_owned(),
        );
    }
    Common {
        reference: reference.to_owned(),
        created: time::rfc3339(seconds),
        labels,
        entrypoint: "/netobs",
        command: &["run"],
        ports: &["10977/tcp"],
    }
}

/// The binary, and the licences that it comes under.
fn entries(binary: &std::path::Path) -> Result<Vec<Entry>> {
    let root = workspace::root();
    let files = [
        ("netobs", 0o755, binary.to_owned()),
        (
            "licenses/LICENSE-APACHE",
            0o644,
            root.join("LICENSE-APACHE"),
        ),
        ("licenses/LICENSE-MIT", 0o644, root.join("LICENSE-MIT")),
        (
            "licenses/LICENSE-GPL-2.0",
            0o644,
            root.join("LICENSE-GPL-2.0"),
        ),
    ];
    files
        .into_iter()
        .map(|(path, mode, from)| {
            let bytes =
                fs::read(&from).with_context(|| format!("failed to read {}", from.display()))?;
            let path = path.to_owned();
            Ok(Entry { path, mode, bytes })
        })
        .collect()
}
