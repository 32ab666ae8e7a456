//! The bytes of BTF: a copy, or the kernel's own pages.

use std::{
    fs::File,
    ops::Deref,
    os::fd::AsRawFd as _,
    ptr::{self, NonNull},
};

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum Bytes {
    Read(Vec<u8>),
    Mapped(Mapping),
}

impl Bytes {
    /// Maps the first `length` bytes of the file in which the kernel shows its own BTF; `None` when it does
    /// not let it be mapped (kernel/bpf/sysfs_btf.c `btf_sysfs_vmlinux_mmap`, since 6.16). Not for a file
    /// that others may cut short.
    pub(super) fn map(file: &File, length: usize) -> Option<Self> {
        if length == 0 {
            return None;
        }
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = NonNull::new(start.cast())?;
        Some(Self::Mapped(Mapping { start, length }))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            // SAFETY: mapped for reading until it is dropped, so long, and nobody writes to it.
            Self::Mapped(Mapping { start, length }) => unsafe {
                std::slice::from_raw_parts(start.as_ptr(), *length)
            },
        }
    }
}

/// Pages that are read and nothing else.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: bytes that do not change, and belong to this alone.
unsafe impl Send for Mapping {}
// SAFETY: likewise.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length, and no reference to it is left.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::btf::VMLINUX;

    #[test]
    fn what_is_mapped_is_what_is_read() {
        let (Ok(file), Ok(read)) = (File::open(VMLINUX), std::fs::read(VMLINUX)) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let Some(mapped) = Bytes::map(&file, read.len()) else {
            eprintln!("skipped: this kernel does not let its BTF be mapped");
            return;
        };
        assert!(*mapped == *read);
    }

    #[test]
    fn nothing_is_not_mapped() {
        let file = File::open("/dev/null").unwrap();
        assert!(Bytes::map(&file, 0).is_none());
    }
}
