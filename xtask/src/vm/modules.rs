//! Which module files a guest needs, in the order in which they can be loaded.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Whether tests can go on without a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The test bed is built from it.
    Required,
    /// Tests that use it say so when it is missing.
    Optional,
    /// Newer kernels have it as a part of another.
    WhereSeparate,
}

/// What the guests load.
const MODULES: &[(&str, Need)] = &[
    ("veth", Need::Required),
    ("tun", Need::Required),
    ("dummy", Need::Optional),
    ("ifb", Need::Optional),
    ("nf_tables", Need::Required),
    ("nft_numgen", Need::Required),
    ("nft_counter", Need::WhereSeparate), // Until 5.17.
    ("nft_limit", Need::Optional),
    ("nft_quota", Need::Optional),
    ("nft_ct", Need::Optional),
    ("nft_reject", Need::Optional),
    ("nft_reject_inet", Need::Optional),
    ("nft_queue", Need::Optional),
    ("nft_socket", Need::Optional),
    ("nft_tproxy", Need::Optional),
    ("sch_netem", Need::Required),
    ("sch_tbf", Need::Optional),
    ("sch_fq", Need::Optional),
    ("sch_fq_codel", Need::Optional),
    ("sch_prio", Need::Optional),
    ("sch_ingress", Need::Optional),
    ("cls_bpf", Need::Optional),
    ("cls_matchall", Need::Optional),
    ("cls_u32", Need::Optional),
    ("act_bpf", Need::Optional),
    ("act_mirred", Need::Optional),
    ("inet_diag", Need::Optional),
    ("tcp_diag", Need::Optional),
    ("udp_diag", Need::Optional),
    ("mptcp_diag", Need::Optional),
    ("unix_diag", Need::Optional),
    ("netlink_diag", Need::Optional),
    ("af_packet", Need::Optional),
    ("tcp_bbr", Need::Optional),
    ("tcp_dctcp", Need::Optional),
    ("tls", Need::Optional),
];

/// Files to load, and what there is none for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Paths relative to the folder of modules, dependencies first.
    pub(crate) files: Vec<String>,
    /// Optional modules that are neither files nor built in.
    pub(crate) missing: Vec<&'static str>,
}

/// What the guests load from this folder of modules.
///
/// # Errors
/// When the folder has no index, or a required module is missing.
pub(crate) fn select(folder: &Path) -> anyhow::Result<Selection> {
    let read = |name: &str| {
        fs::read_to_string(folder.join(name)).with_context(|| format!("failed to read {name}"))
    };
    choose(MODULES, &read("modules.dep")?, &read("modules.builtin")?)
}

fn choose(
    wanted: &[(&'static str, Need)],
    dependencies: &str,
    built_in: &str,
) -> anyhow::Result<Selection> {
    let index = Index::parse(dependencies);
    let built_in: HashSet<String> = built_in.lines().map(module_name).collect();
    let mut selection = Selection::default();
    let mut seen = HashSet::new();
    for &(name, need) in wanted {
        if let Some(&file) = index.by_name.get(name) {
            index.add(file, &mut seen, &mut selection.files);
        } else if !built_in.contains(name) {
            match need {
                Need::Required => bail!("the kernel has no module {name}"),
                Need::Optional => selection.missing.push(name),
                Need::WhereSeparate => {}
            }
        }
    }
    Ok(selection)
}

/// `modules.dep`: `file: dependency dependency`.
struct Index<'a> {
    by_name: HashMap<String, &'a str>,
    dependencies: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Index<'a> {
    fn parse(text: &'a str) -> Self {
        let mut index = Self {
            by_name: HashMap::new(),
            dependencies: HashMap::new(),
        };
        for (file, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            index.by_name.insert(module_name(file), file);
            index
                .dependencies
                .insert(file, rest.split_ascii_whitespace().collect());
        }
        index
    }

    /// Adds what `file` needs, then `file`. depmod lists all dependencies of dependencies too, but
    /// nothing says that it does so in an order to rely on.
    fn add(&self, file: &'a str, seen: &mut HashSet<&'a str>, files: &mut Vec<String>) {
        if !seen.insert(file) {
            return;
        }
        for dependency in self.dependencies.get(file).into_iter().flatten() {
            self.add(dependency, seen, files);
        }
        files.push(file.to_owned());
    }
}

/// `kernel/net/sched/sch_netem.ko.xz` is `sch_netem`; the kernel writes `_` for `-`.
fn module_name(path: &str) -> String {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.split_once(".ko")
        .map_or(base, |(name, _)| name)
        .replace('-', "_")
}

/// A module file's contents, decompressed: not every kernel can do that itself, and the host is
/// quicker than a guest.
///
/// # Errors
/// When the file cannot be read or decompressed.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => {
            return fs::read(path).with_context(|| format!("failed to read {}", path.display()));
        }
    };
    let output = Command::new(program)
        .args(["-dc", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        bail!("failed to decompress {}", path.display());
    }
    Ok(output.stdout)
}

/// Where the guest has the module with this place in the order.
pub(crate) fn guest_path(order: usize, file: &str) -> PathBuf {
    PathBuf::from(format!("/vm/modules/{order:03}-{}.ko", module_name(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/netfilter/nft_numgen.ko: kernel/net/netfilter/nf_tables.ko.xz kernel/net/netfilter/nfnetlink.ko.xz\n\
        kernel/net/netfilter/nfnetlink.ko.xz:\n\
        kernel/drivers/net/veth.ko.zst:\n\
        kernel/net/netfilter/nf_tables.ko.xz: kernel/net/netfilter/nfnetlink.ko.xz kernel/lib/libcrc32c.ko\n\
        kernel/lib/libcrc32c.ko:\n\
        kernel/net/odd-name.ko: kernel/net/odd-name.ko\n";

    fn files(wanted: &[(&'static str, Need)]) -> Vec<String> {
        let files = choose(wanted, DEP, "").unwrap().files;
        files.iter().map(|file| module_name(file)).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let wanted = [
            ("nft_numgen", Need::Required),
            ("nf_tables", Need::Required),
        ];
        assert_eq!(
            files(&wanted),
            ["nfnetlink", "libcrc32c", "nf_tables", "nft_numgen"]
        );
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(files(&[("odd_name", Need::Required)]), ["odd_name"]);
    }

    #[test]
    fn built_in_modules_are_not_missing() {
        let wanted = [
            ("veth", Need::Required),
            ("tun", Need::Required),
            ("tcp_bbr", Need::Optional),
            ("nft_counter", Need::WhereSeparate),
        ];
        let built_in = "kernel/drivers/net/tun.ko\n";
        let selection = choose(&wanted, DEP, built_in).unwrap();
        assert_eq!(selection.files, ["kernel/drivers/net/veth.ko.zst"]);
        assert_eq!(selection.missing, ["tcp_bbr"]);
        let error = choose(&wanted, DEP, "").unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module tun");
    }

    #[test]
    fn guest_paths_sort_in_load_order() {
        assert_eq!(
            guest_path(7, "kernel/a-b.ko.xz"),
            Path::new("/vm/modules/007-a_b.ko")
        );
    }
}
