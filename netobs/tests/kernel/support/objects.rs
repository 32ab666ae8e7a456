//! What of BPF is in the kernel, whoever has it.

use std::{fs, io, mem::size_of};

/// Numbers of all programs, maps and links in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) programs: Vec<u32>,
    pub(crate) maps: Vec<u32>,
    pub(crate) links: Vec<u32>,
}

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const PROG_GET_NEXT_ID: libc::c_long = 11;
const MAP_GET_NEXT_ID: libc::c_long = 12;
const LINK_GET_NEXT_ID: libc::c_long = 31;

impl Objects {
    /// What there is now.
    pub(crate) fn now() -> Self {
        Self {
            programs: ids(PROG_GET_NEXT_ID),
            maps: ids(MAP_GET_NEXT_ID),
            links: ids(LINK_GET_NEXT_ID),
        }
    }

    /// What a process holds a descriptor of.
    pub(crate) fn of_process(pid: u32) -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
            // A descriptor may be closed meanwhile.
            let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
            // A link's file names its program too.
            for (key, ids) in [("link_id:", &mut held.links), ("map_id:", &mut held.maps)] {
                ids.extend(number(&text, key));
            }
            held.programs.extend(number(&text, "prog_id:"));
        }
        held
    }

    /// What of this is among `others`.
    pub(crate) fn among(&self, others: &Self) -> Self {
        let both = |own: &[u32], others: &[u32]| {
            let both = own.iter().filter(|id| others.contains(id));
            both.copied().collect()
        };
        Self {
            programs: both(&self.programs, &others.programs),
            maps: both(&self.maps, &others.maps),
            links: both(&self.links, &others.links),
        }
    }
}

/// The number behind `key` in a file of `/proc/PID/fdinfo`.
fn number(text: &str, key: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

/// The first fields of `union bpf_attr` for the `*_GET_NEXT_ID` commands.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

fn ids(command: libc::c_long) -> Vec<u32> {
    let mut found = Vec::new();
    let mut attributes = NextId::default();
    loop {
        // SAFETY: pointer and size are those of a live value, which the kernel reads and fills in.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                &raw mut attributes,
                size_of::<NextId>(),
            )
        };
        if answer < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return found;
        }
        found.push(attributes.next);
        attributes.start = attributes.next;
    }
}
