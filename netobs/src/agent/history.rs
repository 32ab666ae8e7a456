//! Where events go: into the flight recorder, and to who listens in.

use std::io;

use netobs_common::event::{Event, EventKind};
use tracing::warn;

use super::Agent;
use crate::{
    diagnose::Observed,
    ledger::listeners::Counting,
    recorder::{Recent, Recorder},
    sys::cgroup::Workloads,
};

/// Sees every event as it comes out of the ring, and those that the agent adds. It must not wait.
pub type Tap = Box<dyn FnMut(&Event) + Send>;

/// Who gets events.
#[derive(Default)]
pub(super) struct History {
    pub(super) recorder: Option<Recorder>,
    pub(super) tap: Option<Tap>,
    /// What a diagnosis that is under way learns from them.
    pub(super) observed: Option<Observed>,
}

impl History {
    /// Hands an event to everybody.
    pub(super) fn take(&mut self, event: &Event, workloads: &mut Workloads) {
        if let Some(recorder) = &mut self.recorder {
            record(recorder, event, workloads);
        }
        if let Some(tap) = &mut self.tap {
            tap(event);
        }
        if let Some(observed) = &mut self.observed {
            observed.take(event);
        }
    }

    /// Whether anybody wants them.
    pub(super) fn is_wanted(&self) -> bool {
        self.recorder.is_some() || self.tap.is_some() || self.observed.is_some()
    }
}

/// Records an event, and before it whose its cgroup is: later on, that cannot be found out.
fn record(recorder: &mut Recorder, event: &Event, workloads: &mut Workloads) {
    if let Some(owner) = event.owner()
        && owner.cgroup != 0
        && !recorder.names(owner.cgroup)
        && let Some(workload) = workloads.find(owner.cgroup, owner.pid)
    {
        recorder.name(owner.cgroup, workload);
    }
    recorder.record(event);
}

impl Agent {
    /// Lets `tap` see events from now on, those of the listeners that are there first. Of `kinds`,
    /// the kernel side then tells every one, not only those that tell of trouble.
    pub fn listen_in(&mut self, kinds: &[EventKind], mut tap: Tap) {
        if let Err(error) = self.maps.want(kinds) {
            self.complain(&error);
        }
        for change in self.context.events(&self.buffer, &mut self.owners) {
            tap(&Event::Listener(change));
        }
        self.history.tap = Some(tap);
    }

    /// Lets nobody listen in any more.
    pub fn stop_listening(&mut self) {
        self.history.tap = None;
    }

    /// How listen drops are told on this kernel.
    #[must_use]
    pub fn counting(&self) -> Counting {
        self.listeners.counting()
    }

    /// Begins to write the flight recorder's files. To be called when rights have been given up: the
    /// thread that writes has those of the caller.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn begin_recording(&mut self) -> io::Result<()> {
        let Some(recorder) = &mut self.history.recorder else {
            return Ok(());
        };
        recorder.begin()?;
        self.record_context();
        Ok(())
    }

    /// Tells the recorder who listens, so that what follows is understood by itself.
    pub(super) fn record_context(&mut self) {
        if let Some(recorder) = &mut self.history.recorder {
            for change in self.context.events(&self.buffer, &mut self.owners) {
                record(
                    recorder,
                    &Event::Listener(change),
                    &mut self.owners.workloads,
                );
            }
        }
    }

    /// Everything that the flight recorder has until now, and who listens. `None` where it is
    /// switched off.
    pub fn recent(&mut self) -> Option<(Vec<Event>, Recent)> {
        let recorder = self.history.recorder.as_mut()?;
        recorder.close_block();
        let recent = recorder.recent();
        let context = self.context.events(&self.buffer, &mut self.owners);
        Some((context.into_iter().map(Event::Listener).collect(), recent))
    }

    /// What the kernel side has lost since the start: program, reason, how many.
    #[must_use]
    pub fn losses(&self) -> Vec<(&'static str, &'static str, u64)> {
        let programs = self.probes.iter().filter_map(|probe| probe.running);
        let mut all = Vec::new();
        for (program, _) in programs {
            match self.maps.probe_counts(program) {
                Ok(counts) => {
                    let reasons = netobs_common::probe::Loss::ALL.iter().zip(counts.lost);
                    let lost = reasons.filter(|(_, lost)| *lost > 0);
                    all.extend(lost.map(|(loss, lost)| (program.name(), loss.name(), lost)));
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "losses cannot be read"
                ),
            }
        }
        let undecodable = self.events.undecodable();
        if undecodable > 0 {
            all.push(("events", "decode", undecodable));
        }
        all
    }
}
