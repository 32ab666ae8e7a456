//! The allocator's memory.

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
