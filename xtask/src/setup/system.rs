//! Which distribution this is, and what to say where `setup` cannot install.

use std::fs;

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Debian, Ubuntu and what is made from them.
    Apt,
    Fedora,
    Arch,
    Other,
}

impl System {
    pub(super) fn detect() -> Self {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::from_os_release(&text)
    }

    /// Reads os-release(5): the distribution's own name first, then what it is like.
    fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        format!("{} {}", value("ID"), value("ID_LIKE"))
            .split_whitespace()
            .find_map(|name| match name {
                "debian" | "ubuntu" => Some(Self::Apt),
                "fedora" | "rhel" | "centos" => Some(Self::Fedora),
                "arch" => Some(Self::Arch),
                _ => None,
            })
            .unwrap_or(Self::Other)
    }

    /// What to type on this system.
    pub(super) fn by_hand(self) -> String {
        let packages = match self {
            Self::Fedora => {
                "sudo dnf install gcc llvm-devel zlib-devel libzstd-devel iproute iproute-tc \
                 nftables bpftool golang-github-prometheus"
            }
            Self::Arch => "sudo pacman -S --needed gcc llvm iproute2 nftables bpf prometheus",
            Self::Apt | Self::Other => {
                "from your distribution: a C compiler, LLVM with headers (21 or later), iproute2, \
                 nftables, bpftool, promtool"
            }
        };
        format!(
            "`setup` installs on Debian and Ubuntu only; here, please do it by hand:\n  \
             {packages}\n  \
             rustup toolchain install nightly --component rust-src\n  \
             cargo install bpf-linker --version {} --locked --no-default-features --features \
             llvm-NN\n\
             where NN is the major version of that LLVM; it must not be older than the nightly's \
             (`rustc +nightly -vV`). llvm-config must be on PATH, or LLVM_PREFIX name its folder",
            super::linker::VERSION
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_distributions_apart() {
        for (text, system) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", System::Apt),
            (
                "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                System::Apt,
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                System::Fedora,
            ),
            ("ID=arch\n", System::Arch),
            ("ID=void\n", System::Other),
            ("", System::Other),
        ] {
            assert_eq!(System::from_os_release(text), system, "{text}");
        }
    }
}
