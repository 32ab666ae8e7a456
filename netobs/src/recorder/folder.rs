//! The segment files of a folder: made, filled, removed.

use std::{
    collections::VecDeque,
    fs::{DirBuilder, File, TryLockError},
    io::{self, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};
use tracing::{info, warn};

use super::{
    OpenError, segment,
    segment::{About, list},
};

/// The budget holds about so many segments: as much history goes at once when the oldest is removed.
const SEGMENTS: u64 = 16;
/// Below this, segments are more headers than events.
const LEAST_SEGMENT: u64 = 64 * 1024;
/// How long to leave a disk alone that refused to write.
const PAUSE: Duration = Duration::from_secs(30);

/// One segment on disk.
#[derive(Debug)]
struct Known {
    number: u64,
    bytes: u64,
    /// When it was last written.
    written: SystemTime,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    folder: File,
    /// Held as long as this process records here.
    _lock: File,
    about: About,
    most_bytes: u64,
    age: Duration,
    /// Oldest first; the last is the one being written, when there is one.
    known: VecDeque<Known>,
    current: Option<File>,
    next_number: u64,
    paused_until: Option<SystemTime>,
    /// Failures of the disk.
    pub(super) errors: u64,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is on its way to the disk.
    Yes,
    /// It is, as the first of a new segment.
    InNewSegment,
    /// The disk refused, or is left alone because it did.
    No,
}

impl Folder {
    /// Makes the folder if it is not there, locks it, and takes stock.
    pub(super) fn open(path: &Path, most_bytes: u64, age: Duration) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let folder = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map_err(failed)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path.join("lock"))
            .map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Taken {
                path: path.to_owned(),
            },
            TryLockError::Error(error) => failed(error),
        })?;
        let mut known = VecDeque::new();
        for (number, file) in list(path).map_err(failed)? {
            let facts = std::fs::symlink_metadata(file).map_err(failed)?;
            known.push_back(Known {
                number,
                bytes: facts.len(),
                written: facts.modified().map_err(failed)?,
            });
        }
        let next_number = known.back().map_or(0, |last| last.number.saturating_add(1));
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.unwrap_or_default().trim().to_owned();
        let run = SystemTime::now().duration_since(UNIX_EPOCH);
        let run = run.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
        Ok(Self {
            path: path.to_owned(),
            folder,
            _lock: lock,
            about: About::now(run, boot_id),
            most_bytes,
            age,
            known,
            current: None,
            next_number,
            paused_until: None,
            errors: 0,
        })
    }

    /// The number of this run in its segments.
    pub(super) fn run(&self) -> u64 {
        self.about.run
    }

    pub(super) fn fd(&self) -> RawFd {
        self.folder.as_raw_fd()
    }

    /// Bytes and number of all segments.
    pub(super) fn size(&self) -> (u64, u64) {
        let bytes = self.known.iter().map(|known| known.bytes).sum();
        (bytes, self.known.len() as u64)
    }

    /// Whether blocks are written now.
    pub(super) fn is_writing(&self) -> bool {
        self.paused_until.is_none()
    }

    /// Writes one block, in a new segment when the one at hand is full. Nothing is synced: what a
    /// power failure costs is the kernel's to say, and a torn end is found when it is read.
    pub(super) fn write(&mut self, block: &[u8]) -> Written {
        let now = SystemTime::now();
        if let Some(until) = self.paused_until {
            // A clock that was set back must not keep it paused.
            if now < until && until.duration_since(now).is_ok_and(|left| left <= PAUSE) {
                return Written::No;
            }
        }
        match self.try_write(block, now) {
            Ok(new) => {
                if self.paused_until.take().is_some() {
                    info!(path = %self.path.display(), "the flight recorder writes again");
                }
                if new {
                    Written::InNewSegment
                } else {
                    Written::Yes
                }
            }
            Err(error) => {
                self.errors += 1;
                if self.paused_until.is_none() {
                    warn!(
                        path = %self.path.display(), %error,
                        "the flight recorder cannot write, and events go to memory only: make room, or let \
                         its user write there; trying again every {} seconds",
                        PAUSE.as_secs()
                    );
                }
                self.paused_until = Some(now + PAUSE);
                // Its end may be torn; what comes later goes into another.
                self.current = None;
                Written::No
            }
        }
    }

    fn try_write(&mut self, block: &[u8], now: SystemTime) -> io::Result<bool> {
        let length = block.len() as u64;
        let most = (self.most_bytes / SEGMENTS).max(LEAST_SEGMENT);
        let full = self
            .known
            .back()
            .is_some_and(|current| current.bytes + length > most);
        let new = self.current.is_none() || full;
        if new {
            self.begin_segment(now)?;
        }
        self.make_room(length, now);
        if let (Some(file), Some(known)) = (&mut self.current, self.known.back_mut()) {
            // Counted whether or not all of it gets there.
            known.bytes += length;
            known.written = now;
            file.write_all(block)?;
        }
        Ok(new)
    }

    fn begin_segment(&mut self, now: SystemTime) -> io::Result<()> {
        self.current = None;
        let header = self.about.to_bytes()?;
        let number = self.next_number;
        let name = segment::name(number);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.next_number = self.next_number.saturating_add(1);
        let mut file = File::from(openat(&self.folder, name.as_str(), flags, mode)?);
        self.known.push_back(Known {
            number,
            bytes: header.len() as u64,
            written: now,
        });
        file.write_all(&header)?;
        self.current = Some(file);
        Ok(())
    }

    /// Removes the oldest segments until there is room, and those that are too old. The one at hand
    /// stays.
    fn make_room(&mut self, length: u64, now: SystemTime) {
        while self.known.len() > 1 {
            let (bytes, _) = self.size();
            let too_old = |known: &Known| {
                now.duration_since(known.written)
                    .is_ok_and(|age| age > self.age)
            };
            if bytes + length <= self.most_bytes && !self.known.front().is_some_and(too_old) {
                return;
            }
            let Some(oldest) = self.known.pop_front() else {
                return;
            };
            let name = segment::name(oldest.number);
            match unlinkat(&self.folder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(error) => {
                    self.errors += 1;
                    warn!(%name, %error, "a segment of the flight recorder cannot be removed");
                }
            }
        }
    }
}
