//! Giving up rights once everything is attached.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tracing::info;

use super::Agent;
use crate::{
    config::{Hardening, KeepCapabilities},
    recorder::Recorder,
    sys::{
        hardening::{self, FOLLOWING, Outgoing, Plan, Set, lower_this_thread},
        privilege::Capability,
    },
};

impl Agent {
    /// Gives up every right that observing does not need. `files` are read again later on, so what
    /// it takes to open them stays too. `outgoing` is what it connects to of its own accord.
    ///
    /// To be called before other threads are started: what they have is theirs.
    pub fn harden(&mut self, config: Hardening, files: &[PathBuf], outgoing: Outgoing) {
        let capabilities = match config.keep_capabilities {
            KeepCapabilities::All => None,
            KeepCapabilities::Auto => Some(self.least(Set::of(&FOLLOWING), files)),
            KeepCapabilities::None => Some(self.least(Set::default(), files)),
        };
        // The threads that visit namespaces and walk over cgroups have what they were started with.
        self.namespaces.rest();
        self.owners.workloads.rest();
        self.hardening = Some(hardening::apply(&Plan {
            capabilities,
            seccomp: config.seccomp,
            writes_in: self.history.recorder.as_ref().and_then(Recorder::folder_fd),
            outgoing,
        }));
    }

    /// `wanted` as far as it is held, and what this machine asks for besides. Found out by trying,
    /// on a thread that has no more than that.
    fn least(&mut self, wanted: Set, files: &[PathBuf]) -> Set {
        let held = Set::permitted();
        let mut keep = wanted.and(held);
        for path in files {
            // What cannot be read now is not lost by hardening.
            if File::open(path).is_ok() && with_only(keep, || readable(path)).is_none() {
                info!(path = %path.display(), "keeping CAP_DAC_READ_SEARCH to read the file again");
                keep = keep.with(Capability::CAP_DAC_READ_SEARCH).and(held);
            }
        }
        // Kernels before 6.0 let nobody without it use what is open already, where
        // kernel.unprivileged_bpf_disabled is set.
        if with_only(keep, || self.reads()).is_none() {
            info!("keeping CAP_BPF: this kernel asks for it to read maps and iterators");
            keep = keep.with(Capability::CAP_BPF).and(held);
        }
        keep
    }

    /// Whether maps and iterators can be read by the calling thread.
    fn reads(&mut self) -> Option<()> {
        self.maps.retransmits().read().ok()?;
        if let Some(readings) = &mut self.readings {
            // In no book: the next look has to take it in.
            self.rest.disturb();
            readings.read(&mut self.buffer).ok()?;
        }
        Some(())
    }
}

fn readable(path: &Path) -> Option<()> {
    File::open(path).map(drop).ok()
}

/// Runs `trial` on a thread with no capabilities but `keep`; `None` when that cannot be arranged.
fn with_only<T: Send>(keep: Set, trial: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            lower_this_thread(keep).map_err(io::Error::other).ok()?;
            trial()
        });
        thread.ok()?.join().unwrap_or(None)
    })
}
