//! Other programs that do the same work: where they come from, and whether they are here.
//!
//! None is kept in the repository. They are installed by the distribution's package manager or by
//! cargo, into a folder below the target folder, when the user agrees.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{command, setup, workspace};

/// How long cargo may build a peer.
const BUILD_SECONDS: &str = "1800";

/// Where a program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A package of Debian or Ubuntu.
    Package(&'static str),
    /// A crate of crates.io, built here with packages that it needs.
    Crate(&'static str, &'static [&'static str]),
}

/// A program that the benchmark uses besides the agent.
struct Peer {
    program: &'static str,
    source: Source,
}

const PEERS: &[Peer] = &[
    Peer {
        program: "bpftrace",
        source: Source::Package("bpftrace"),
    },
    Peer {
        program: "tcplife",
        source: Source::Package("libbpf-tools"),
    },
    Peer {
        program: "prometheus-node-exporter",
        source: Source::Package("prometheus-node-exporter"),
    },
    Peer {
        program: "nginx",
        source: Source::Package("nginx-light"),
    },
    Peer {
        program: "wrk",
        source: Source::Package("wrk"),
    },
    Peer {
        program: "valgrind",
        source: Source::Package("valgrind"),
    },
    Peer {
        program: "rezolus",
        source: Source::Crate(
            "rezolus",
            &["clang", "libelf-dev", "zlib1g-dev", "make", "pkg-config"],
        ),
    },
];

/// Where cargo installs peers.
fn own_root() -> PathBuf {
    workspace::target_dir().join("bench").join("peers")
}

/// Finds a program among the peers that were built here and on the search path.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let own = own_root().join("bin").join(program);
    own.is_file()
        .then_some(own)
        .or_else(|| workspace::find(program))
}

/// Installs what is missing. What cannot be installed stays missing; the cases then say so.
pub(super) fn install() -> Result<()> {
    let missing: Vec<&Peer> = PEERS
        .iter()
        .filter(|peer| find(peer.program).is_none())
        .collect();
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|peer| match peer.source {
            Source::Package(package) => vec![package],
            Source::Crate(_, needs) => needs.to_vec(),
        })
        .collect();
    if !packages.is_empty() {
        println!("installing {}", packages.join(" "));
        // One by one: a distribution that lacks one has the others.
        for package in packages {
            if let Err(error) = setup::install_package(package) {
                eprintln!("{package} stays missing: {error:#}");
            }
        }
    }
    for peer in missing {
        if let Source::Crate(name, _) = peer.source {
            println!("building {name} (at most {BUILD_SECONDS} s)");
            let mut cargo = Command::new("timeout");
            cargo
                .args([BUILD_SECONDS, "cargo", "install", "--locked", "--root"])
                .arg(own_root())
                .env("CARGO_TARGET_DIR", own_root().join("build"))
                .arg(name);
            if let Err(error) = command::run_quietly(&mut cargo) {
                eprintln!("{name} stays missing: {error:#}");
            }
        }
    }
    Ok(())
}

/// Why a program is not here, in words for the table.
pub(super) fn absence(program: &str) -> String {
    let source = PEERS.iter().find(|peer| peer.program == program);
    match source.map(|peer| peer.source) {
        Some(Source::Package(package)) => {
            format!("not installed (Debian package {package}; --install-peers)")
        }
        Some(Source::Crate(name, _)) => {
            format!("not built (crate {name}; --install-peers)")
        }
        None => "not installed".to_owned(),
    }
}

/// Name and version of every peer that is here.
pub(super) fn versions() -> Vec<(String, String)> {
    PEERS
        .iter()
        .filter_map(|peer| {
            let program = find(peer.program)?;
            let version = match peer.source {
                Source::Package(package) => command::output(Command::new("dpkg-query").args([
                    "-W",
                    "-f=${Version}",
                    package,
                ])),
                Source::Crate(..) => command::output(Command::new(program).arg("--version")),
            };
            let version = version.map_or_else(|| "?".to_owned(), |text| text.trim().to_owned());
            let name = match peer.source {
                Source::Package(name) | Source::Crate(name, _) => name,
            };
            Some((name.to_owned(), version))
        })
        .collect()
}
