//! The flight recorder: the events of the last hours, for the outage that is already over.
//!
//! Events are kept as they came out of the ring. A [`Recorder`] gathers them into blocks of some
//! tens of kilobytes or a second, compresses each (LZ4) and keeps it in memory ([`Recent`]); where a
//! folder is given, a thread of its own writes each block to a segment file as well. What does not
//! fit goes, oldest first, and whatever is too old.
//!
//! A block carries its length and a checksum, and both clocks of the moment in which it was closed,
//! so it can be read and dated by itself. A file that a crash or a full disk has torn is read up to
//! the tear and from the next whole block on. What is in a block that has not been closed when the
//! process is killed is lost: at most the last second.
//!
//! [`read`] reads either back.

mod block;
mod error;
mod folder;
mod read;
mod recent;
mod segment;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use netobs_common::event::{Event, EventKind};

use self::{block::OpenBlock, writer::Writer};
pub use self::{
    error::{OpenError, ReadError},
    read::{Damage, Range, Reading, Recorded, read},
    recent::Recent,
    stats::{FileStats, Stats},
};
use crate::sys::{cgroup::Workload, clock::ClockPair};

/// A block is closed when it holds this much...
const BLOCK_BYTES: usize = 64 * 1024;
/// ...or is this old: what a kill can cost.
const BLOCK_AGE: Duration = Duration::from_secs(1);
/// The part of the whole budget that is memory.
const MEMORY_SHARE: u64 = 8;

/// How much to keep, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Folder of the segment files; without it events are kept in memory only.
    pub path: Option<PathBuf>,
    /// Bytes of everything together, compressed: an eighth in memory, the rest in files.
    pub size_bytes: u64,
    /// What is older goes.
    pub age: Duration,
}

impl Plan {
    fn memory_bytes(&self) -> u64 {
        self.size_bytes / MEMORY_SHARE
    }

    fn file_bytes(&self) -> u64 {
        self.size_bytes - self.memory_bytes()
    }
}

/// Takes events in.
#[derive(Debug)]
pub struct Recorder {
    open: OpenBlock,
    opened: Option<Instant>,
    sequence: u64,
    recent: Recent,
    writer: Option<Writer>,
    events: u64,
}

impl Recorder {
    /// Prepares to record. Where the plan names a folder, it is made if it is not there, and locked;
    /// nothing is written before [`Recorder::begin`].
    ///
    /// # Errors
    ///
    /// When the folder cannot be used.
    pub fn open(plan: &Plan) -> Result<Self, OpenError> {
        let writer = plan.path.as_deref().map(|path| {
            let folder = folder::Folder::open(path, plan.file_bytes(), plan.age)?;
            Ok(Writer::new(folder))
        });
        let writer = writer.transpose()?;
        let run = writer.as_ref().map(Writer::run);
        Ok(Self {
            open: OpenBlock::default(),
            opened: None,
            sequence: 0,
            recent: Recent::new(plan.memory_bytes(), plan.age, plan.path.clone().zip(run)),
            writer,
            events: 0,
        })
    }

    /// The descriptor through which segments are made and removed, when there are files: what a
    /// filter of system calls must let pass.
    #[must_use]
    pub fn folder_fd(&self) -> Option<std::os::fd::RawFd> {
        self.writer.as_ref().map(Writer::folder_fd)
    }

    /// Begins to write files, on a thread of its own that inherits the rights of this one.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn begin(&mut self) -> std::io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Writer::begin)
    }

    /// Whether a new segment was begun since this was last asked: one that is read by itself needs
    /// to be told who listens.
    #[must_use]
    pub fn wants_context(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::take_new_segment)
    }

    /// Whether the open block tells whose a cgroup is.
    #[must_use]
    pub fn names(&self, cgroup: u64) -> bool {
        self.open.names(cgroup)
    }

    /// Tells whose a cgroup is, for the events of the open block. To be called before the first of
    /// them.
    pub fn name(&mut self, cgroup: u64, workload: Workload) {
        self.open.name(cgroup, workload);
    }

    /// Takes in one event.
    pub fn record(&mut self, event: &Event) {
        self.events += 1;
        self.opened.get_or_insert_with(Instant::now);
        let context = EventKind::from_u32(event.header().kind) == Some(EventKind::Listener);
        self.open
            .push(event.as_bytes(), event.header().ktime_ns, context);
        if self.open.len() >= BLOCK_BYTES {
            self.close_block();
        }
    }

    /// Closes the block when it is old enough. To be called several times a second.
    pub fn tick(&mut self) {
        if self
            .opened
            .is_some_and(|opened| opened.elapsed() >= BLOCK_AGE)
        {
            self.close_block();
        }
    }

    /// Closes the block, so that [`Recent`] has everything.
    pub fn close_block(&mut self) {
        self.opened = None;
        if self.open.is_empty() {
            return;
        }
        // Without a clock nothing can be dated: better to go on gathering.
        let Some(clock) = ClockPair::sample() else {
            return;
        };
        let block = self.open.close(self.sequence, clock);
        self.sequence += 1;
        if let Some(writer) = &mut self.writer {
            writer.write(&block);
        }
        self.recent.push(block, clock.wall_ns);
    }

    /// What is in memory, to be read while the recorder goes on.
    #[must_use]
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (memory_bytes, memory_events) = self.recent.size();
        Stats {
            events: self.events,
            memory_bytes,
            memory_events: memory_events + self.open.records(),
            files: self.writer.as_ref().map(Writer::stats),
        }
    }
}

impl Drop for Recorder {
    /// Writes what is left; waits for the disk a moment at most.
    fn drop(&mut self) {
        self.close_block();
    }
}
