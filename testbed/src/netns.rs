//! Network namespaces that disappear with their owner.
//!
//! A namespace is made by `unshare(CLONE_NEWNET)` on a thread of its own and bound to a file under
//! `/run/netns`, so that `ip netns exec` and `ip ... netns <file>` can reach it as well.

use std::{
    fs::{self, File},
    ops::Deref,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Where `ip netns` keeps its names, too.
const DIRECTORY: &str = "/run/netns";
/// Begins the name of every namespace of this crate, and of nobody else's.
const MARK: &str = "netobstb";
/// The calling thread's own namespace; `/proc/self` would name the main thread's.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A handle to a namespace: enter it, change its settings. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Ns {
    namespace: Arc<OwnedFd>,
    name: Arc<str>,
    inode: u32,
}

impl Ns {
    /// The namespace that a file names, such as `/proc/PID/ns/net`. It is kept alive until the
    /// handle is dropped.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(file: &Path) -> Result<Self> {
        let named = || file.display().to_string();
        let namespace = File::open(file).with_context(named)?;
        let inode = namespace.metadata().with_context(named)?.ino();
        Ok(Self {
            inode: inode.try_into().with_context(named)?,
            name: named().into(),
            namespace: Arc::new(namespace.into()),
        })
    }

    /// The name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file under `/run/netns` that names the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&*self.name)
    }

    /// The namespace's inode number: what the kernel calls `net->ns.inum`.
    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `work` inside the namespace, on a fresh thread, and returns its value.
    ///
    /// Sockets that `work` opens stay in the namespace wherever they are used later.
    ///
    /// # Panics
    /// With the panic of `work`, or when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                work()
            });
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread that runs `work` inside the namespace.
    ///
    /// The thread panics when the namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let ns = self.clone();
        thread::spawn(move || {
            ns.enter();
            work()
        })
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) {
        if let Err(error) = setns(&*self.namespace, CloneFlags::CLONE_NEWNET) {
            panic!("enter network namespace {}: {error}", self.name);
        }
    }

    /// Writes a `net.*` setting of the namespace, for example `net.ipv4.tcp_syncookies`.
    ///
    /// # Errors
    /// When the key is not a `net.*` one, is unknown in this namespace or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key)?;
        self.run(|| fs::write(&path, value))
            .with_context(|| format!("set {key} to {value}"))
    }

    /// Reads a `net.*` setting of the namespace, without its line end.
    ///
    /// # Errors
    /// When the key is not a `net.*` one or is unknown in this namespace.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key)?;
        let value = self
            .run(|| fs::read_to_string(&path))
            .with_context(|| format!("read {key}"))?;
        Ok(value.trim_end().to_owned())
    }
}

/// The file of a `net.*` key. Other trees are the whole machine's and are refused.
fn sysctl_path(key: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let parts: Vec<&str> = key.split('.').collect();
    if parts.first() != Some(&"net")
        || parts.len() < 3
        || parts
            .iter()
            .any(|part| part.is_empty() || !part.chars().all(plain))
    {
        bail!("{key:?} is not a setting of a network namespace");
    }
    Ok(Path::new("/proc/sys").join(parts.join("/")))
}

/// A network namespace with `lo` up, removed when dropped.
#[derive(Debug)]
pub struct NetNs {
    ns: Ns,
}

impl NetNs {
    /// Makes a namespace whose name contains `purpose`, this process's id and a serial number.
    ///
    /// Namespaces that a killed run left behind (their process is gone) are removed first.
    ///
    /// # Errors
    /// When `purpose` does not fit a file name, or the process may not make or mount namespaces.
    pub fn new(purpose: &str) -> Result<Self> {
        if purpose.is_empty() || !purpose.chars().all(|c| c.is_ascii_alphanumeric()) {
            bail!("a namespace's purpose is letters and digits, not {purpose:?}");
        }
        let directory = Path::new(DIRECTORY);
        fs::create_dir_all(directory).with_context(|| format!("create {DIRECTORY}"))?;
        sweep(directory)?;
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{MARK}-{purpose}-{}-{serial}", std::process::id());
        let path = directory.join(&name);
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        let (namespace, inode) = make(&path).inspect_err(|_| remove(&path))?;
        let ns = Ns {
            namespace: Arc::new(namespace),
            name: name.into(),
            inode,
        };
        Ok(Self { ns })
    }
}

impl Deref for NetNs {
    type Target = Ns;

    fn deref(&self) -> &Ns {
        &self.ns
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        remove(&self.ns.path());
    }
}

/// Makes a namespace on a thread of its own and mounts it on `path`.
fn make(path: &Path) -> Result<(OwnedFd, u32)> {
    let work = || -> Result<(OwnedFd, u32)> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        crate::ioctl::set_up("lo")?;
        let file = File::open(OWN_NAMESPACE).with_context(|| format!("open {OWN_NAMESPACE}"))?;
        let inode = file.metadata().context("read the namespace's inode")?.ino();
        let inode = u32::try_from(inode).context("the namespace's inode")?;
        let nothing = None::<&str>;
        mount(
            Some(OWN_NAMESPACE),
            path,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )
        .with_context(|| format!("mount the namespace on {}", path.display()))?;
        Ok((file.into(), inode))
    };
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Takes a name away. Errors have nobody to go to: this runs while dropping; the next run sweeps.
fn remove(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Removes the namespaces of this crate whose process is gone.
fn sweep(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {DIRECTORY}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {DIRECTORY}"))?;
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(owner)
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// The process that made a namespace, when the name is one of ours.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    if parts.next()? != MARK {
        return None;
    }
    let _purpose = parts.next()?;
    let pid = parts.next()?.parse().ok()?;
    let _serial: u32 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_crate_have_an_owner() {
        assert_eq!(owner("netobstb-overflow-4711-3"), Some(4711));
        for other in [
            "cni-1234",
            "netobstb-x-4711",
            "netobstb-x-y-3",
            "netobstb-x-1-2-3",
            "",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn settings_outside_net_are_refused() {
        assert_eq!(
            sysctl_path("net.ipv4.tcp_syncookies").unwrap(),
            Path::new("/proc/sys/net/ipv4/tcp_syncookies")
        );
        for key in [
            "kernel.panic",
            "net..x",
            "net.../../kernel.panic",
            "net",
            "net.ipv4/x",
            "",
        ] {
            assert!(sysctl_path(key).is_err(), "{key}");
        }
    }
}
