//! The memory of this process: the allocator's, and that of its code.

use std::fs;

/// Lets all threads share one arena. glibc gives each thread its own, of which what was freed stays
/// with the process; here threads allocate one after the other, and none is in a hurry.
///
/// Before any thread is started. Other allocators know nothing of it.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; a refusal leaves things as they are.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Lets go of the pages of code that are in memory. What is used again comes back from the page cache
/// at the first use; most of what starting takes (types, symbols, the loader, flags) is not.
pub fn release_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, end) in maps.lines().filter_map(code) {
        // SAFETY: by the kernel's word a private mapping of a file that nobody can write to, neither now
        // nor (as relocations) before: each page of it is the file's, and is read from there again. A
        // refusal leaves things as they are.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                end - start,
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// The addresses of a line of `/proc/self/maps` (proc_pid_maps(5)), if it is code of a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let parse = |address| usize::from_str_radix(address, 16).ok();
    let (start, end) = (parse(start)?, parse(end)?);
    (is_code && is_file && start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go() {
        let of = |rest: &str| code(&format!("7f0000001000-7f0000003000 {rest}"));
        let there = Some((0x7f00_0000_1000, 0x7f00_0000_3000));
        assert_eq!(of("r-xp 00001000 08:01 77    /usr/bin/netobs"), there);
        assert_eq!(of("r--p 00001000 08:01 77    /usr/bin/netobs"), None);
        assert_eq!(of("rw-p 00001000 08:01 77    /usr/bin/netobs"), None);
        assert_eq!(of("rwxp 00001000 08:01 77    /usr/bin/netobs"), None);
        assert_eq!(of("r-xs 00001000 08:01 77    /usr/bin/netobs"), None);
        assert_eq!(of("r-xp 00000000 00:00 0     [vdso]"), None);
        assert_eq!(of("r-xp 00000000 00:00 0"), None);
        assert_eq!(code("7f0000003000-7f0000001000 r-xp 0 08:01 77 /x"), None);
        assert_eq!(code("nonsense"), None);
        assert_eq!(code(""), None);
    }

    #[test]
    fn code_runs_on_when_its_pages_were_let_go() {
        release_code();
        assert_eq!("7".parse(), Ok(7));
    }
}
