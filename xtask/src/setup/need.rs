//! What netobs needs, and how one sees that it is there.

use std::fmt;

use anyhow::{Context, Result};

use super::{apt, linker, promtool};
use crate::toolchain::Toolchain;
use crate::workspace;

/// What a task is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scope {
    /// Compile the agent with its kernel side
    Build,
    /// That, and run every test
    Test,
    /// Compile it for arm64 on another machine
    Cross,
    /// Boot other kernels under emulation, and run the kernel tests in them
    Vm,
    /// Run the image under containerd
    Containers,
    /// Build the Debian package, check it, install and purge it
    Package,
    /// Run the unit under a systemd of its own
    Systemd,
    /// Build for arm64, and boot an arm64 kernel under emulation
    Arm64,
}

/// Programs that the tests call, and the packages that have them, best first.
const TOOLS: &[Tool] = &[
    // Ubuntu has no package of that name.
    Tool {
        programs: &["bpftool"],
        packages: &["bpftool", "linux-tools-common"],
    },
    Tool {
        programs: &["ip", "ss", "tc"],
        packages: &["iproute2"],
    },
    Tool {
        programs: &["nft"],
        packages: &["nftables"],
    },
    // Real servers for the path probes and for lookups. Where an init runs, nginx's package starts a
    // service.
    Tool {
        programs: &["dnsmasq"],
        packages: &["dnsmasq-base"],
    },
    Tool {
        programs: &["nginx"],
        packages: &["nginx-light", "nginx"],
    },
    // Real clients and servers for the kernel tests, as are Python and the C compiler.
    Tool {
        programs: &["haproxy"],
        packages: &["haproxy"],
    },
    Tool {
        programs: &["wrk"],
        packages: &["wrk"],
    },
    // A terminal for `netobs top`.
    Tool {
        programs: &["tmux"],
        packages: &["tmux"],
    },
    Tool {
        programs: &["cc"],
        packages: &["gcc"],
    },
    Tool {
        programs: &["python3"],
        packages: &["python3"],
    },
];

/// The linker for arm64. The C++ compiler's package brings the C library, too; the C compiler's
/// only recommends it.
const CROSS: &[Tool] = &[Tool {
    programs: &["aarch64-linux-gnu-gcc"],
    packages: &["g++-aarch64-linux-gnu"],
}];

const ARM64: &[Tool] = &[
    Tool {
        programs: &["aarch64-linux-gnu-gcc"],
        packages: &["g++-aarch64-linux-gnu"],
    },
    Tool {
        programs: &["qemu-system-aarch64"],
        packages: &["qemu-system-arm"],
    },
];

/// What runs containers in nodes. Where an init runs, the package starts a service.
const CONTAINERS: &[Tool] = &[
    Tool {
        programs: &["containerd", "ctr"],
        packages: &["containerd"],
    },
    Tool {
        programs: &["runc"],
        packages: &["runc"],
    },
    // What runs in the pods; linked statically, an image is one file.
    Tool {
        programs: &["busybox"],
        packages: &["busybox-static"],
    },
    Tool {
        programs: &["ip"],
        packages: &["iproute2"],
    },
    Tool {
        programs: &["nsenter"],
        packages: &["util-linux"],
    },
];

/// What fetches kernels, makes guests of them and boots them.
const VM: &[Tool] = &[
    Tool {
        programs: &["qemu-system-x86_64"],
        packages: &["qemu-system-x86"],
    },
    Tool {
        programs: &["depmod"],
        packages: &["kmod"],
    },
    Tool {
        programs: &["xz"],
        packages: &["xz-utils"],
    },
    Tool {
        programs: &["strip"],
        packages: &["binutils"],
    },
    Tool {
        programs: &["curl"],
        packages: &["curl"],
    },
    Tool {
        programs: &["gpgv"],
        packages: &["gpgv"],
    },
    Tool {
        programs: &["busybox"],
        packages: &["busybox-static"],
    },
];

const PACKAGE: &[Tool] = &[
    Tool {
        programs: &["debootstrap"],
        packages: &["debootstrap"],
    },
    Tool {
        programs: &["lintian"],
        packages: &["lintian"],
    },
];

const SYSTEMD: &[Tool] = &[
    Tool {
        programs: &["debootstrap"],
        packages: &["debootstrap"],
    },
    Tool {
        programs: &["systemd-nspawn"],
        packages: &["systemd-container"],
    },
];

/// Programs that one package brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    programs: &'static [&'static str],
    packages: &'static [&'static str],
}

impl Tool {
    fn is_here(&self) -> bool {
        self.programs
            .iter()
            .all(|program| workspace::find(program).is_some())
    }
}

/// One thing that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler with a `core` for the BPF target.
    Compiler,
    /// bpf-linker, for that compiler's LLVM.
    Linker,
    /// promtool, which checks metrics and rules, and the server that is asked every query.
    Promtool,
    /// Programs from a package of their own.
    Tool(&'static Tool),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => f.write_str("a compiler for the BPF target"),
            Self::Linker => write!(f, "bpf-linker {}", linker::VERSION),
            Self::Promtool => f.write_str(&promtool::PROGRAMS.join(", ")),
            Self::Tool(tool) => f.write_str(&tool.programs.join(", ")),
        }
    }
}

impl Need {
    /// The packages that this takes.
    ///
    /// # Errors
    /// When no package of the distribution will do.
    pub(crate) fn packages(self, compiler: Option<&apt::Compiler>) -> Result<Vec<String>> {
        match self {
            Self::Compiler => Ok(compiler.context(apt::NO_COMPILER)?.packages()),
            Self::Linker => linker::packages(compiler),
            Self::Promtool => Ok(Vec::new()),
            Self::Tool(tool) => tool
                .packages
                .iter()
                .find(|package| apt::candidate(package).is_some())
                .map(|package| vec![(*package).to_owned()])
                .with_context(|| format!("apt has no package with {self}, or its lists are empty")),
        }
    }

    /// What is done beside installing packages.
    pub(crate) fn other_way(self) -> Option<String> {
        match self {
            Self::Linker => Some("cargo install bpf-linker (about two minutes)".into()),
            Self::Promtool => {
                Some("unpack them from Debian's prometheus into target/tools, start nothing".into())
            }
            Self::Compiler | Self::Tool(_) => None,
        }
    }
}

/// What `scope` needs and this machine lacks.
pub(crate) fn missing(scope: Scope) -> Vec<Need> {
    let mut needs = Vec::new();
    let toolchain = Toolchain::choose(bpf_target()).ok();
    if toolchain.is_none() {
        needs.push(Need::Compiler);
    }
    if !linker::works(toolchain) {
        needs.push(Need::Linker);
    }
    let tools: &[Tool] = match scope {
        Scope::Build => &[],
        Scope::Test => TOOLS,
        Scope::Cross => CROSS,
        Scope::Vm => VM,
        Scope::Containers => CONTAINERS,
        Scope::Package => PACKAGE,
        Scope::Systemd => SYSTEMD,
        Scope::Arm64 => ARM64,
    };
    needs.extend(tools.iter().filter(|tool| !tool.is_here()).map(Need::Tool));
    let is_missing = |program: &&str| workspace::find(program).is_none();
    if scope == Scope::Test && promtool::PROGRAMS.iter().any(is_missing) {
        needs.push(Need::Promtool);
    }
    needs
}

/// The BPF target of this machine.
pub(crate) fn bpf_target() -> &'static str {
    if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}
