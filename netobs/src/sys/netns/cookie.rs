//! A namespace's cookie: a number that, unlike its inode number, no other namespace ever gets.

use std::os::fd::AsRawFd as _;

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h), from 5.14 on.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the calling thread's namespace; `None` where the kernel does not tell it.
#[must_use]
pub fn of_this_thread() -> Option<u64> {
    // Any socket belongs to the namespace it was made in; this kind is one that the agent is left
    // the right to make.
    let socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to the value, and the length itself.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (answer == 0 && length == 8 && cookie != 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_what_it_is() {
        let Some(cookie) = of_this_thread() else {
            eprintln!("skipped: this kernel does not tell the cookie");
            return;
        };
        assert_eq!(of_this_thread(), Some(cookie));
    }
}
