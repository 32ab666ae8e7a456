//! Boots Debian's kernels under emulation and runs payloads in them: the kernel matrix.
//!
//! [`run`] is all that another task needs. Kernels come from the Debian mirror's own indices
//! ([`catalog`]), are kept under `target/vm/` by hash, and are booted by qemu in software, so that
//! neither hardware virtualisation nor root is needed. The guest's first process is the crate
//! `vm-init`, which also holds what host and guest agree on.

mod catalog;
mod cli;
mod content;
pub(crate) mod cpio;
mod fetch;
mod guest;
mod host;
mod image;
mod index;
pub(crate) mod modules;
mod package;
mod paths;
mod qemu;
mod report;
mod source;
mod spec;
mod table;
pub(crate) mod tools;
mod version;

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

pub(crate) use cli::VmCommand;
pub(crate) use fetch::Network;
pub(crate) use report::{KernelReport, MatrixReport, TestEnd};

use content::Content;
use package::Kernel;
use paths::Paths;

/// A program to run in every guest. It may be linked statically or not: the libraries it asks for
/// are copied along.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// Path on the host.
    pub(crate) path: PathBuf,
    /// Arguments.
    pub(crate) args: Vec<String>,
    /// Further arguments on this machine, not in a guest.
    pub(crate) host_args: Vec<String>,
    /// Of a libtest program: the tests that guests run. Without, they run it as it is. What is listed
    /// is known to be missing when it did not run.
    pub(crate) guest_tests: Option<Vec<String>>,
    /// Environment, on top of the guest's own.
    pub(crate) env: Vec<(String, String)>,
}

/// What to run, on what, and within which bounds.
#[derive(Clone, Debug)]
pub(crate) struct VmOptions {
    /// Kernels as [`spec::select`] understands them; none means all.
    pub(crate) kernels: Vec<String>,
    /// Programs, run one after another in each guest.
    pub(crate) payloads: Vec<Payload>,
    /// Further programs of the host that the payloads call, by name or path, with their libraries.
    pub(crate) programs: Vec<String>,
    /// Further files, from the host's path to the guest's.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// Whether this machine's own kernel is a column too. The payloads run on it as they are.
    pub(crate) host: bool,
    /// Longest time for one boot, from power on to power off.
    pub(crate) timeout: Duration,
    /// A guest that says nothing for this time hangs.
    pub(crate) silence: Duration,
    /// Guests at the same time.
    pub(crate) jobs: usize,
    /// Processors of a guest.
    pub(crate) cpus: usize,
    /// Memory of a guest.
    pub(crate) memory_mib: usize,
    /// When the network may be used.
    pub(crate) network: Network,
    /// Whether payload output is shown while it comes.
    pub(crate) verbose: bool,
}

impl Default for VmOptions {
    fn default() -> Self {
        Self {
            kernels: Vec::new(),
            payloads: Vec::new(),
            programs: vec!["ip".to_owned(), "nft".to_owned()],
            files: Vec::new(),
            host: false,
            timeout: Duration::from_secs(300),
            silence: Duration::MAX,
            // A guest has two processors, of which a test keeps one busy at most times.
            jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpus: 2,
            memory_mib: 768,
            network: Network::WhenStale,
            verbose: false,
        }
    }
}

/// Boots every chosen kernel, runs the payloads in it, and says what came of it.
///
/// A test that fails, a kernel that panics and a guest that hangs are in the report.
///
/// # Errors
/// When the matrix cannot be run at all: tools are missing, kernels cannot be had, or an image
/// cannot be built.
pub(crate) fn run(options: &VmOptions) -> anyhow::Result<MatrixReport> {
    tools::require()?;
    if options.payloads.is_empty() {
        bail!("nothing to run: no payload was given");
    }
    let started = Instant::now();
    let paths = Paths::find();
    let kernels = fetch_kernels(&paths, &options.kernels, options.network)?;
    let content = Content::collect(&paths, options)?;
    let queue: Mutex<VecDeque<&Kernel>> = Mutex::new(kernels.iter().collect());
    let reports = Mutex::new(Vec::new());
    if options.host {
        keep(&reports, host::run(options)?);
    }
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let workers: Vec<usize> = (0..options.jobs.max(1)).collect();
    parallel(&workers, |_| {
        while let Some(kernel) = next() {
            let report = guest::run(&paths, kernel, &content, options)
                .unwrap_or_else(|error| KernelReport::not_run(kernel.name(), &error));
            keep(&reports, report);
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |report: &KernelReport| kernels.iter().position(|k| k.name() == report.kernel);
    // The host's column, which no kernel of the catalog stands for, goes last.
    reports.sort_by_key(|report| place(report).unwrap_or(usize::MAX));
    Ok(MatrixReport::new(reports, started.elapsed()))
}

/// Makes sure that the chosen kernels are here, unpacked.
///
/// # Errors
/// When one is neither cached nor to be had.
pub(crate) fn fetch_kernels(
    paths: &Paths,
    names: &[String],
    network: Network,
) -> anyhow::Result<Vec<Kernel>> {
    let specs = spec::select(names)?;
    // Of two runs at once, one must not write over what the other has found.
    let _alone = lock(paths)?;
    let resolved = catalog::resolve(paths, &specs, network)?;
    package::fetch_all(paths, &resolved, network)
}

/// Waits until no other run changes what is cached; lasts as long as the file is open.
fn lock(paths: &Paths) -> anyhow::Result<File> {
    std::fs::create_dir_all(&paths.root).context("failed to create the folder of the matrix")?;
    let file = File::create(paths.lock()).context("failed to create the matrix's lock")?;
    file.lock().context("failed to lock the matrix's folder")?;
    Ok(file)
}

/// Calls `work` for every item at the same time, and returns the results in the items' order.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(|| work(item)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, R>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    })
}

fn keep(reports: &Mutex<Vec<KernelReport>>, report: KernelReport) {
    reports
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(report);
}
