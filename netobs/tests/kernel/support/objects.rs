//! What of BPF is in the kernel, whoever has it.

use std::{io, mem::size_of};

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

    /// What is here and was not in `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let new = |now: &[u32], then: &[u32]| {
            let new = now.iter().filter(|id| !then.contains(id));
            new.copied().collect()
        };
        Self {
            programs: new(&self.programs, &before.programs),
            maps: new(&self.maps, &before.maps),
            links: new(&self.links, &before.links),
        }
    }
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
