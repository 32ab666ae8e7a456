//! A block: events one after another, compressed, with what it takes to read and date them.
//!
//! ```text
//! header (72 bytes, little endian)     payload (LZ4 block)
//! magic, lengths, checksum, clocks     [u16 length, bytes of one record] ...
//! ```
//!
//! A record is an event as it came out of the ring, or tells whose a cgroup was: the number of a
//! cgroup means nothing once it is gone.

use std::collections::HashSet;

use netobs_common::event::EventHeader;
use serde::{Deserialize, Serialize};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    byteorder::little_endian::{U32, U64},
};

use crate::sys::{
    cgroup::{ContainerId, PodUid, Workload},
    clock::ClockPair,
};

/// Begins every block.
pub(super) const MAGIC: [u8; 4] = *b"NBK1";
/// Most bytes of a block's events before compression; a longer one is damaged.
pub(super) const MOST_RAW: usize = 256 * 1024;
/// Most bytes of them after it: what does not shrink grows a little.
const MOST_STORED: usize = MOST_RAW + MOST_RAW / 100 + 64;
/// [`BlockHeader::flags`]: among its events are some that tell who listens.
const HAS_CONTEXT: u32 = 1;

/// The beginning of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct BlockHeader {
    magic: [u8; 4],
    /// CRC-32 of the header with zeros here, and of the payload.
    checksum: U32,
    /// Bytes of the payload.
    stored: U32,
    /// The same before compression.
    raw: U32,
    /// Number of events.
    pub(super) records: U32,
    flags: U32,
    /// Counts the blocks of one run of the recorder.
    pub(super) sequence: U64,
    /// CLOCK_MONOTONIC ns of the earliest and the latest event.
    first_ns: U64,
    last_ns: U64,
    /// Both clocks when it was closed.
    monotonic_ns: U64,
    wall_ns: U64,
    reserved: U64,
}

impl BlockHeader {
    /// Reads a header; `None` when these bytes are none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(bytes).ok()?;
        let stored = usize::try_from(header.stored.get()).ok()?;
        let raw = usize::try_from(header.raw.get()).ok()?;
        (header.magic == MAGIC && stored <= MOST_STORED && raw <= MOST_RAW).then_some(header)
    }

    /// Bytes of the payload.
    pub(super) fn stored(&self) -> usize {
        self.stored.get() as usize
    }

    /// Whether the payload is the one that belongs to it.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.stored() && self.sum(payload) == self.checksum.get()
    }

    fn sum(&self, payload: &[u8]) -> u32 {
        let blank = Self {
            checksum: U32::ZERO,
            ..*self
        };
        let mut sum = crc32fast::Hasher::new();
        sum.update(blank.as_bytes());
        sum.update(payload);
        sum.finalize()
    }

    /// The clocks when it was closed.
    pub(super) fn clock(&self) -> ClockPair {
        ClockPair {
            monotonic_ns: self.monotonic_ns.get(),
            wall_ns: self.wall_ns.get(),
        }
    }

    /// Wall-clock ns of its earliest and its latest event.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        let clock = self.clock();
        Some((
            clock.wall_ns(self.first_ns.get())?,
            clock.wall_ns(self.last_ns.get())?,
        ))
    }

    /// Whether some events tell who listens.
    pub(super) fn has_context(&self) -> bool {
        self.flags.get() & HAS_CONTEXT != 0
    }

    /// The events, one after another. `None` when the payload cannot be expanded.
    pub(super) fn expand(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let raw = usize::try_from(self.raw.get()).ok()?;
        let expanded = lz4_flex::block::decompress(payload, raw).ok()?;
        (expanded.len() == raw).then_some(expanded)
    }
}

/// Takes the next event off the front of expanded events.
pub(super) fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let record = after.get(..usize::from(u16::from_le_bytes(*length)))?;
    *rest = after.get(record.len()..)?;
    Some(record)
}

/// In place of an event's kind: a [`Named`].
const NAMED_KIND: u32 = u32::MAX;

/// Whose a cgroup was, as JSON.
#[derive(Serialize, Deserialize)]
struct Named {
    cgroup: u64,
    container: Option<String>,
    pod: Option<String>,
}

/// Whose a cgroup was, if the record tells that.
pub(super) fn named(record: &[u8]) -> Option<(u64, Workload)> {
    let (header, text) = EventHeader::read_from_prefix(record).ok()?;
    if header.kind != NAMED_KIND {
        return None;
    }
    let named: Named = serde_json::from_slice(text).ok()?;
    // Of an id, the first twelve digits are kept.
    let container = named
        .container
        .and_then(|digits| ContainerId::from_hex(&format!("{digits:0<64}")));
    let pod = named.pod.and_then(|uid| PodUid::parse(&uid));
    Some((named.cgroup, Workload::new(container, pod)))
}

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct OpenBlock {
    raw: Vec<u8>,
    records: u32,
    context: bool,
    /// Cgroups that are named in it.
    named: HashSet<u64>,
    first_ns: u64,
    last_ns: u64,
}

impl OpenBlock {
    /// Puts one event in.
    pub(super) fn push(&mut self, event: &[u8], ktime_ns: u64, context: bool) {
        const { assert!(size_of::<EventHeader>() < u16::MAX as usize) };
        // Events are some hundred bytes; what could not be read back is not taken.
        let Ok(length) = u16::try_from(event.len()) else {
            return;
        };
        if self.records == 0 {
            (self.first_ns, self.last_ns) = (ktime_ns, ktime_ns);
        }
        // CPUs put their events into the ring not quite in order.
        self.first_ns = self.first_ns.min(ktime_ns);
        self.last_ns = self.last_ns.max(ktime_ns);
        self.raw.extend_from_slice(&length.to_le_bytes());
        self.raw.extend_from_slice(event);
        self.records += 1;
        self.context |= context;
    }

    /// Whether it tells whose a cgroup is.
    pub(super) fn names(&self, cgroup: u64) -> bool {
        self.named.contains(&cgroup)
    }

    /// Tells whose a cgroup is.
    pub(super) fn name(&mut self, cgroup: u64, workload: Workload) {
        if !self.named.insert(cgroup) || workload.is_empty() {
            return;
        }
        let named = Named {
            cgroup,
            container: workload.container().map(|id| id.to_string()),
            pod: workload.pod().map(|uid| uid.to_string()),
        };
        let header = EventHeader {
            ktime_ns: 0,
            kind: NAMED_KIND,
            netns: 0,
        };
        // Some tens of bytes: it cannot fail, and without it nothing but a name is lost.
        let Ok(text) = serde_json::to_vec(&named) else {
            return;
        };
        let Ok(length) = u16::try_from(size_of::<EventHeader>() + text.len()) else {
            return;
        };
        self.raw.extend_from_slice(&length.to_le_bytes());
        self.raw.extend_from_slice(header.as_bytes());
        self.raw.extend_from_slice(&text);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Events so far.
    pub(super) fn records(&self) -> u64 {
        self.records.into()
    }

    /// The finished block; this one is empty afterwards.
    pub(super) fn close(&mut self, sequence: u64, clock: ClockPair) -> Vec<u8> {
        let payload = lz4_flex::block::compress(&self.raw);
        let header = BlockHeader {
            magic: MAGIC,
            checksum: U32::ZERO,
            stored: length(payload.len()),
            raw: length(self.raw.len()),
            records: self.records.into(),
            flags: if self.context { HAS_CONTEXT } else { 0 }.into(),
            sequence: sequence.into(),
            first_ns: self.first_ns.into(),
            last_ns: self.last_ns.into(),
            monotonic_ns: clock.monotonic_ns.into(),
            wall_ns: clock.wall_ns.into(),
            reserved: U64::ZERO,
        };
        let header = BlockHeader {
            checksum: header.sum(&payload).into(),
            ..header
        };
        let mut block = Vec::with_capacity(size_of::<BlockHeader>() + payload.len());
        block.extend_from_slice(header.as_bytes());
        block.extend_from_slice(&payload);
        self.raw.clear();
        self.named.clear();
        (self.records, self.context) = (0, false);
        block
    }
}

/// A length that is far below 4 GiB.
fn length(bytes: usize) -> U32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).into()
}
