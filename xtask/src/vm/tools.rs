//! Programs of the host that the matrix calls.

use std::path::PathBuf;

use anyhow::bail;

/// Programs, and the Debian packages that bring them. `gpgv` and Debian's archive keys are used
/// when they are there, and `busybox` gives the guests a shell.
pub(crate) const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("curl", "curl"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("depmod", "kmod"),
    ("ldd", "libc-bin"),
    ("strip", "binutils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];

/// The file that `name` means, as a shell finds it; administrators' folders are looked at too.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Checks that all tools are there.
///
/// # Errors
/// With the names of those that are missing, and how to get them.
pub(crate) fn require() -> anyhow::Result<()> {
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(tool, _)| find(tool).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!(
        "missing {}: install with `apt-get install --no-install-recommends {}`",
        tools.join(", "),
        packages.join(" ")
    );
}
