//! Blocks in memory.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    block::BlockHeader,
    read::{Range, Reading},
};

/// The recorder's memory, shared with who reads it.
#[derive(Clone, Debug)]
pub struct Recent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most_bytes: u64,
    age_ns: u64,
    /// The folder with what is not in memory any more, and the number of this run in it.
    files: Option<(PathBuf, u64)>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each with the wall-clock time at which it was closed.
    blocks: VecDeque<(u64, Arc<[u8]>)>,
    bytes: u64,
    events: u64,
}

impl Kept {
    fn remove_first(&mut self) {
        if let Some((_, block)) = self.blocks.pop_front() {
            self.bytes -= block.len() as u64;
            self.events -= records(&block);
        }
    }
}

fn records(block: &[u8]) -> u64 {
    BlockHeader::read(block).map_or(0, |header| header.records.get().into())
}

impl Recent {
    pub(super) fn new(most_bytes: u64, age: Duration, files: Option<(PathBuf, u64)>) -> Self {
        Self(Arc::new(Shared {
            most_bytes,
            age_ns: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX),
            files,
            kept: Mutex::default(),
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, block: Vec<u8>, wall_ns: u64) {
        let mut kept = self.kept();
        kept.bytes += block.len() as u64;
        kept.events += records(&block);
        kept.blocks.push_back((wall_ns, block.into()));
        let too_old = wall_ns.saturating_sub(self.0.age_ns);
        while kept.bytes > self.0.most_bytes
            || kept
                .blocks
                .front()
                .is_some_and(|(closed, _)| *closed < too_old)
        {
            kept.remove_first();
        }
    }

    /// Bytes and events in memory.
    pub(super) fn size(&self) -> (u64, u64) {
        let kept = self.kept();
        (kept.bytes, kept.events)
    }

    /// The events of `range` that are in memory and, before them, in the files of the recorder. Those
    /// of a block that is still open are not among them; see [`super::Recorder::close_block`].
    #[must_use]
    pub fn read(&self, range: Range) -> Reading {
        let blocks: Vec<Arc<[u8]>> = {
            let kept = self.kept();
            kept.blocks
                .iter()
                .map(|(_, block)| Arc::clone(block))
                .collect()
        };
        let first = blocks
            .first()
            .and_then(|block| BlockHeader::read(block))
            .map(|header| header.sequence.get());
        let before = self.0.files.as_ref().map(|(path, run)| {
            // Without anything in memory, everything in the files is before it.
            (path.as_path(), *run, first.unwrap_or(u64::MAX))
        });
        Reading::of_blocks(blocks, before, range)
    }
}
