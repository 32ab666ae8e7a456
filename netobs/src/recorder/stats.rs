//! What the recorder says of itself.

/// Counts and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events taken in.
    pub events: u64,
    /// Compressed bytes kept in memory.
    pub memory_bytes: u64,
    /// Events that are kept in memory.
    pub memory_events: u64,
    /// The files, where they are asked for.
    pub files: Option<FileStats>,
}

/// Of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Bytes of all segments now.
    pub bytes: u64,
    /// Segments now.
    pub segments: u64,
    /// Events written since the start.
    pub written: u64,
    /// Events that were not written, because the disk was too slow.
    pub lost_queue: u64,
    /// Events that were not written, because the disk was full or refused.
    pub lost_disk: u64,
    /// Failures of the disk.
    pub errors: u64,
    /// Whether the latest write worked.
    pub writing: bool,
}
