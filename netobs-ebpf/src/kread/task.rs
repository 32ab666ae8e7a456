//! The task that runs now, and what leads from it to a socket.

use core::marker::PhantomData;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_task, generated::bpf_get_current_task_btf,
};
use netobs_common::{offsets::Offset, probe::Loss};

use super::{Access, Probed, Sock, Typed, cgroup_id, probe, read};
use crate::maps::offset;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task<A> {
    base: *const u8,
    access: PhantomData<A>,
}

impl Task<Probed> {
    /// The one that runs now.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self {
            // SAFETY: the helper has no preconditions.
            base: unsafe { bpf_get_current_task() } as *const u8,
            access: PhantomData,
        }
    }
}

impl Task<Typed> {
    /// The one that runs now. Only where `Settings::typed_task` says that the kernel has the helper.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self {
            // SAFETY: the helper has no preconditions.
            base: unsafe { bpf_get_current_task_btf() }
                .cast::<u8>()
                .cast_const(),
            access: PhantomData,
        }
    }
}

/// Evaluates an expression with the task that runs now, by the cheaper way of access that this kernel
/// has: a helper call for each field adds up where a program runs for each connection.
macro_rules! with_current {
    (|$task:ident| $body:expr) => {
        if crate::maps::setting!(typed_task) != 0 {
            let $task = crate::kread::Task::<crate::kread::Typed>::current();
            $body
        } else {
            let $task = crate::kread::Task::<crate::kread::Probed>::current();
            $body
        }
    };
}
pub(crate) use with_current;

impl<A: Access> Task<A> {
    #[inline(always)]
    fn load<T: Copy>(self, field: Offset) -> Result<T, Loss> {
        // SAFETY: made by `current` only.
        unsafe { A::load(self.base, field) }
    }

    /// The name of its process' first thread: `top` shows it, and a thread pool does not multiply
    /// it.
    #[inline(always)]
    pub(crate) fn process_name(self) -> Result<[u8; 16], Loss> {
        if offset(Offset::TaskLeader) == 0 || offset(Offset::TaskComm) == 0 {
            return bpf_get_current_comm().map_err(|_| Loss::Unreadable);
        }
        let leader: *const u8 = self.load(Offset::TaskLeader)?;
        // SAFETY: a pointer that the same way of access yielded.
        unsafe { A::load_16(leader, Offset::TaskComm) }
    }

    /// `tgid`: the id of its process.
    #[inline(always)]
    pub(crate) fn process_id(self) -> Result<u32, Loss> {
        self.load(Offset::TaskTgid)
    }

    /// The socket behind one of its descriptors; `None` when there is none (any more).
    #[inline(always)]
    pub(crate) fn socket(self, descriptor: u32) -> Result<Option<Sock<Probed>>, Loss> {
        let files: *const u8 = self.load(Offset::TaskFiles)?;
        // SAFETY: pointers that the same way of access yielded, here and below.
        let table: *const u8 = unsafe { A::load(files, Offset::FilesTable)? };
        // SAFETY: see above.
        let size: u32 = unsafe { A::load(table, Offset::TableSize)? };
        if descriptor >= size {
            return Ok(None);
        }
        // SAFETY: see above. What this points to has no type that the verifier would follow.
        let entries: u64 = unsafe { A::load(table, Offset::TableEntries)? };
        let entry = entries.wrapping_add(u64::from(descriptor) * size_of::<u64>() as u64);
        let file: *const u8 = read(entry as *const u8)?;
        if file.is_null() {
            return Ok(None);
        }
        let socket: *const u8 = probe(file, Offset::FilePrivate)?;
        if socket.is_null() {
            return Ok(None);
        }
        let sock: *const u8 = probe(socket, Offset::SocketSock)?;
        // SAFETY: read by probe.
        Ok((!sock.is_null()).then(|| unsafe { Sock::new(sock) }))
    }

    /// Id of its cgroup in the hierarchy of a cgroup v1 controller; 0 when this kernel's tasks have
    /// no such field.
    #[inline(always)]
    pub(crate) fn cgroup_of(self, subsystem: u32) -> Result<u64, Loss> {
        if offset(Offset::TaskCgroups) == 0 {
            return Ok(0);
        }
        let set: *const u8 = self.load(Offset::TaskCgroups)?;
        let state: *const u8 = probe(
            set.wrapping_add(subsystem as usize * size_of::<u64>()),
            Offset::CssSetSubsystems,
        )?;
        cgroup_id(probe(state, Offset::CssCgroup)?)
    }
}
