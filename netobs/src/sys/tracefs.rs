//! Layout of classic tracepoint records, from their `format` files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use thiserror::Error;

/// Where tracefs may be mounted.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why a layout could not be read.
#[derive(Debug, Error)]
pub enum TracefsError {
    /// tracefs is mounted nowhere.
    #[error("tracefs is not mounted at {} or {}", MOUNTS[0], MOUNTS[1])]
    NotMounted,
    /// tracefs is mounted, and this user may not look into it: it is made for root alone.
    #[error("tracefs at {} is closed to this user", .0.display())]
    Closed(PathBuf),
    /// The tracepoint's format file could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TracefsError {
    /// What to do about it, if anything can be done.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted => Some("mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing"),
            Self::Closed(_) => {
                Some("grant CAP_DAC_READ_SEARCH, which is given up after attaching, or run as root")
            }
            Self::Read { .. } => None,
        }
    }
}

/// Offsets of a record's fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordLayout {
    fields: Vec<(String, u32)>,
}

impl RecordLayout {
    /// Parses a `format` file; lines that are not fields are passed over.
    #[must_use]
    pub fn parse(format: &str) -> Self {
        let fields = format
            .lines()
            .filter_map(|line| {
                let mut parts = line
                    .trim()
                    .strip_prefix("field:")?
                    .split(';')
                    .map(str::trim);
                let declaration = parts.next()?;
                let offset = parts
                    .find_map(|part| part.strip_prefix("offset:"))?
                    .parse()
                    .ok()?;
                let name = declaration.rsplit([' ', '*']).next()?;
                let name = name.split('[').next()?;
                Some((name.to_owned(), offset))
            })
            .collect();
        Self { fields }
    }

    /// Bytes from the start of the record; `None` when there is no such field.
    #[must_use]
    pub fn offset(&self, field: &str) -> Option<u32> {
        self.fields
            .iter()
            .find(|(name, _)| name == field)
            .map(|(_, offset)| *offset)
    }
}

/// Where tracefs is mounted and can be looked into.
///
/// # Errors
///
/// When it is mounted nowhere, or only where this user may not look.
pub fn mount_point() -> Result<&'static Path, TracefsError> {
    among(MOUNTS.map(Path::new))
}

fn among(mounts: [&Path; 2]) -> Result<&Path, TracefsError> {
    let mut reason = TracefsError::NotMounted;
    for mount in mounts {
        match fs::metadata(mount.join("events")) {
            Ok(events) if events.is_dir() => return Ok(mount),
            // The folder that it is mounted on can be looked into by everybody.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                reason = TracefsError::Closed(mount.to_owned());
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(reason)
}

/// Runs `work` where tracefs can be seen: here if it is mounted, else on a thread that has mounts of
/// its own and mounts it there, so that nothing changes for anybody else. Where that is not allowed
/// either, `work` finds no tracefs.
pub fn within<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if mount_point().is_ok() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = mount_privately() {
                tracing::debug!(%error, "no tracefs of its own either");
            }
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Gives the calling thread mounts of its own, tracefs among them. They end with the thread.
fn mount_privately() -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What the host unmounts goes here as well; what is mounted here stays here.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(NOTHING, "/", NOTHING, slave, NOTHING)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tracefs"), MOUNTS[0], Some("tracefs"), flags, NOTHING)
}

/// Reads the layout of tracepoint `category:name`.
///
/// # Errors
///
/// When tracefs is not mounted, or the kernel has no such tracepoint.
pub fn record_layout(category: &str, name: &str) -> Result<RecordLayout, TracefsError> {
    let path = mount_point()?
        .join("events")
        .join(category)
        .join(name)
        .join("format");
    match fs::read_to_string(&path) {
        Ok(format) => Ok(RecordLayout::parse(&format)),
        Err(source) => Err(TracefsError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: tcp_retransmit_skb\nID: 1449\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \n\
        \tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:__u16 sport;\toffset:28;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:34;\tsize:4;\tsigned:0;\n\
        \tfield:const void *skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        print fmt: \"offset:99; field:x\", REC->sport\n";

    #[test]
    fn finds_plain_pointer_and_array_fields() {
        let layout = RecordLayout::parse(FORMAT);
        assert_eq!(layout.offset("sport"), Some(28));
        assert_eq!(layout.offset("saddr"), Some(34));
        assert_eq!(layout.offset("skbaddr"), Some(8));
        assert_eq!(layout.offset("skaddr"), Some(16));
        assert_eq!(layout.offset("err"), None);
    }

    #[test]
    fn the_first_that_has_events_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        let none = among([&one, &other]);
        assert!(matches!(none, Err(TracefsError::NotMounted)), "{none:?}");
        fs::create_dir_all(other.join("events")).unwrap();
        assert_eq!(among([&one, &other]).unwrap(), other);
    }

    #[test]
    fn nonsense_has_no_fields() {
        assert_eq!(
            RecordLayout::parse("field:;offset:x;\nfield:\n"),
            RecordLayout::default()
        );
    }
}
