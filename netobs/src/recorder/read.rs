//! Reading recordings back.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    vec,
};

use netobs_common::event::{Event, EventHeader, EventKind};
use zerocopy::FromBytes as _;

use super::{
    ReadError,
    block::{BlockHeader, named, next_record},
    segment::{self, Segment},
};
use crate::sys::{cgroup::Workload, clock::ClockPair};

/// How far the events of one block may be out of order: what arrives later than this after its time
/// may be missed at the edges of a [`Range`].
const SLACK_NS: u64 = 10_000_000_000;

/// A span of wall-clock time, in ns since 1970, both ends included; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The earliest.
    pub since_ns: Option<u64>,
    /// The latest.
    pub until_ns: Option<u64>,
}

impl Range {
    /// Whether a moment is in it.
    #[must_use]
    pub fn contains(&self, wall_ns: u64) -> bool {
        self.since_ns.is_none_or(|since| since <= wall_ns)
            && self.until_ns.is_none_or(|until| wall_ns <= until)
    }

    fn is_before(&self, wall_ns: u64) -> bool {
        self.since_ns.is_some_and(|since| wall_ns < since)
    }
}

/// An event as it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it happened, wall-clock ns since 1970.
    pub wall_ns: u64,
    /// It is older than the range that was asked for and tells who listens: what comes after is
    /// understood by it.
    pub context: bool,
    /// What happened.
    pub event: Event,
    /// Container and pod of its owner, as far as they were known.
    pub workload: Workload,
}

/// What could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Segments that end in the middle of a block, as a crash leaves them.
    pub torn: u64,
    /// Bytes that are of no whole block.
    pub bytes: u64,
    /// Events of kinds that this netobs does not know.
    pub unknown: u64,
    /// Files that could not be read, and why.
    pub files: Vec<String>,
}

impl Damage {
    /// Whether everything could be read.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The events of `range` in a segment file, or in a folder of them, roughly in the order of time:
/// those of one block may be out of order by what lies between two CPUs' looks at the ring.
///
/// ```no_run
/// # fn main() -> Result<(), netobs::recorder::ReadError> {
/// use netobs::recorder::{Range, read};
/// let mut reading = read("/var/lib/netobs/events".as_ref(), Range::default())?;
/// for recorded in &mut reading {
///     println!("{} {:?}", recorded.wall_ns, recorded.event);
/// }
/// eprintln!("{:?}", reading.damage());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When there is nothing that can be read. What goes wrong later is in [`Reading::damage`].
pub fn read(source: &Path, range: Range) -> Result<Reading, ReadError> {
    let failed = |source_error| ReadError::Io {
        path: source.to_owned(),
        source: source_error,
    };
    let is_folder = std::fs::metadata(source).map_err(failed)?.is_dir();
    let files = if is_folder {
        segment::list(source).map_err(failed)?
    } else {
        vec![(0, source.to_owned())]
    };
    if files.is_empty() {
        return Err(ReadError::Empty {
            path: source.to_owned(),
        });
    }
    let mut reading = Reading {
        files: files.into_iter().map(|(_, path)| path).collect(),
        ..Reading::empty(range)
    };
    if !is_folder {
        // A single file that is none is an error, not damage.
        reading.segment = match reading.files.pop_front() {
            Some(path) => Segment::open(&path)?,
            None => None,
        };
    }
    Ok(reading)
}

/// Events that are being read.
#[derive(Debug)]
pub struct Reading {
    range: Range,
    files: VecDeque<PathBuf>,
    segment: Option<Segment>,
    /// A run and the number of a block in it: the files are read up to there.
    stop: Option<(u64, u64)>,
    blocks: VecDeque<Arc<[u8]>>,
    ready: vec::IntoIter<Recorded>,
    damage: Damage,
}

impl Reading {
    fn empty(range: Range) -> Self {
        Self {
            range,
            files: VecDeque::new(),
            segment: None,
            stop: None,
            blocks: VecDeque::new(),
            ready: Vec::new().into_iter(),
            damage: Damage::default(),
        }
    }

    /// Of blocks in memory and, before them, of files: a folder, a run, and the number of the first
    /// block in memory.
    pub(super) fn of_blocks(
        blocks: Vec<Arc<[u8]>>,
        before: Option<(&Path, u64, u64)>,
        range: Range,
    ) -> Self {
        let mut reading = Self {
            blocks: blocks.into(),
            ..Self::empty(range)
        };
        if let Some((folder, run, sequence)) = before {
            reading.stop = Some((run, sequence));
            match segment::list(folder) {
                Ok(files) => reading.files = files.into_iter().map(|(_, path)| path).collect(),
                Err(error) => reading.damage.files.push(error.to_string()),
            }
        }
        reading
    }

    /// What could not be read so far.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Makes the next block's events ready; `false` when there is none.
    fn advance(&mut self) -> bool {
        while self.segment.is_some() || !self.files.is_empty() {
            if self.next_of_files() {
                return true;
            }
        }
        let Some(block) = self.blocks.pop_front() else {
            return false;
        };
        if let Some(header) = BlockHeader::read(&block)
            && let Some(payload) = block.get(size_of::<BlockHeader>()..)
        {
            let own = |number| EventKind::from_u32(number);
            self.ready = select(&self.range, &header, payload, &own, &mut self.damage);
        }
        true
    }

    /// The next block of the segment at hand, or the next segment.
    fn next_of_files(&mut self) -> bool {
        let Some(segment) = &mut self.segment else {
            self.open_next();
            return false;
        };
        let run = segment.about.run;
        let about = segment.about.clone();
        let Some((header, payload)) = segment.next_block() else {
            self.damage.torn += u64::from(segment.torn);
            self.damage.bytes += segment.damaged_bytes;
            self.segment = None;
            return false;
        };
        if let Some((last_run, sequence)) = self.stop
            && run == last_run
            && header.sequence.get() >= sequence
        {
            // The rest is in memory.
            self.segment = None;
            self.files.clear();
            return false;
        }
        let kind = |number| about.kind(number);
        self.ready = select(&self.range, &header, payload, &kind, &mut self.damage);
        true
    }

    fn open_next(&mut self) {
        let Some(path) = self.files.pop_front() else {
            return;
        };
        match Segment::open(&path) {
            Ok(Some(segment)) => self.segment = Some(segment),
            Ok(None) => self.damage.torn += 1,
            // Removed while the folder was read: the recorder goes on meanwhile.
            Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.damage.files.push(error.to_string()),
        }
    }
}

/// The events of one block that are wanted.
fn select(
    range: &Range,
    header: &BlockHeader,
    payload: &[u8],
    kind: &dyn Fn(u32) -> Option<EventKind>,
    damage: &mut Damage,
) -> vec::IntoIter<Recorded> {
    let outside = header.span().is_some_and(|(first, last)| {
        range.is_before(last.saturating_add(SLACK_NS))
            || range
                .until_ns
                .is_some_and(|until| first > until.saturating_add(SLACK_NS))
    });
    let only_context = outside && header.has_context() && range.since_ns.is_some();
    if outside && !only_context {
        return Vec::new().into_iter();
    }
    let Some(expanded) = header.expand(payload) else {
        damage.bytes += payload.len() as u64;
        return Vec::new().into_iter();
    };
    let clock = header.clock();
    let mut rest = expanded.as_slice();
    let mut names = HashMap::new();
    let mut found = Vec::new();
    while let Some(record) = next_record(&mut rest) {
        if let Some((cgroup, workload)) = named(record) {
            names.insert(cgroup, workload);
            continue;
        }
        let Some(recorded) = decode(record, clock, kind) else {
            damage.unknown += 1;
            continue;
        };
        let context =
            matches!(recorded.event, Event::Listener(_)) && range.is_before(recorded.wall_ns);
        if context || range.contains(recorded.wall_ns) {
            let cgroup = recorded.event.owner().map_or(0, |owner| owner.cgroup);
            found.push(Recorded {
                context,
                workload: names.get(&cgroup).copied().unwrap_or_default(),
                ..recorded
            });
        }
    }
    found.into_iter()
}

fn decode(
    record: &[u8],
    clock: ClockPair,
    kind: &dyn Fn(u32) -> Option<EventKind>,
) -> Option<Recorded> {
    let (header, _) = EventHeader::read_from_prefix(record).ok()?;
    let kind = kind(header.kind)?;
    let event = if kind as u32 == header.kind {
        Event::decode(record).ok()?
    } else {
        // Written by a netobs that counted its kinds otherwise.
        let mut record = record.to_vec();
        let number = std::mem::offset_of!(EventHeader, kind);
        record
            .get_mut(number..number + 4)?
            .copy_from_slice(&(kind as u32).to_ne_bytes());
        Event::decode(&record).ok()?
    };
    Some(Recorded {
        wall_ns: clock.wall_ns(header.ktime_ns)?,
        context: false,
        event,
        workload: Workload::default(),
    })
}

impl Iterator for Reading {
    type Item = Recorded;

    fn next(&mut self) -> Option<Recorded> {
        loop {
            if let Some(recorded) = self.ready.next() {
                return Some(recorded);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}
