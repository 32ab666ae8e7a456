//! The thread that writes: a disk that stalls must not stall the agent.

use std::{
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    block::BlockHeader,
    folder::{Folder, Written},
    stats::FileStats,
};

/// Blocks that may wait for the disk: some hundred kilobytes, compressed.
const WAITING: usize = 32;
/// How long an end waits for the disk.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    segments: AtomicU64,
    written: AtomicU64,
    lost_queue: AtomicU64,
    lost_disk: AtomicU64,
    errors: AtomicU64,
    paused: AtomicBool,
    new_segment: AtomicBool,
}

/// Hands blocks to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    run: u64,
    fd: RawFd,
    shared: Arc<Shared>,
    sender: Option<SyncSender<Vec<u8>>>,
    /// Until the thread begins.
    waiting: Option<(Folder, Receiver<Vec<u8>>)>,
    thread: Option<JoinHandle<()>>,
}

fn records(block: &[u8]) -> u64 {
    BlockHeader::read(block).map_or(0, |header| header.records.get().into())
}

impl Writer {
    pub(super) fn new(folder: Folder) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let shared = Arc::new(Shared::default());
        shared.note(&folder);
        Self {
            run: folder.run(),
            fd: folder.fd(),
            shared,
            sender: Some(sender),
            waiting: Some((folder, receiver)),
            thread: None,
        }
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn folder_fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn begin(&mut self) -> std::io::Result<()> {
        if let Some((folder, blocks)) = self.waiting.take() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("recorder".to_owned());
            self.thread = Some(thread.spawn(move || work(folder, &blocks, &shared))?);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, block: &[u8]) {
        let Some(sender) = &self.sender else { return };
        match sender.try_send(block.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(block) | TrySendError::Disconnected(block)) => {
                self.shared.lost_queue.fetch_add(records(&block), Relaxed);
            }
        }
    }

    /// Whether a segment was begun since this was last asked.
    pub(super) fn take_new_segment(&self) -> bool {
        self.shared.new_segment.swap(false, Relaxed)
    }

    pub(super) fn stats(&self) -> FileStats {
        let shared = &self.shared;
        FileStats {
            bytes: shared.bytes.load(Relaxed),
            segments: shared.segments.load(Relaxed),
            written: shared.written.load(Relaxed),
            lost_queue: shared.lost_queue.load(Relaxed),
            lost_disk: shared.lost_disk.load(Relaxed),
            errors: shared.errors.load(Relaxed),
            writing: !shared.paused.load(Relaxed),
        }
    }
}

impl Shared {
    fn note(&self, folder: &Folder) {
        let (bytes, segments) = folder.size();
        self.bytes.store(bytes, Relaxed);
        self.segments.store(segments, Relaxed);
        self.errors.store(folder.errors, Relaxed);
        self.paused.store(!folder.is_writing(), Relaxed);
    }
}

fn work(mut folder: Folder, blocks: &Receiver<Vec<u8>>, shared: &Shared) {
    for block in blocks {
        match folder.write(&block) {
            Written::No => shared.lost_disk.fetch_add(records(&block), Relaxed),
            Written::Yes => shared.written.fetch_add(records(&block), Relaxed),
            Written::InNewSegment => {
                shared.new_segment.store(true, Relaxed);
                shared.written.fetch_add(records(&block), Relaxed)
            }
        };
        shared.note(&folder);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < LAST_WRITE {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A thread that hangs in the disk ends with the process; one that panicked has said so.
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}
