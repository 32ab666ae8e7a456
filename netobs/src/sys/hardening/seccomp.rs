//! The system calls that the agent needs once it observes, and no others.
//!
//! What is not listed fails with EPERM: the agent goes on, and the failure shows where it is felt.
//! The list was made from traces of the running agent under scrapes, namespaces that come and go,
//! TLS, reloads and a stop, with and without glibc's fallbacks. Not on it, so refused: starting
//! programs, sockets but netlink's (those that listen are open) and those of the kinds that
//! [`Outgoing`] allows, opening a file for writing or changing one in any way, mounts, other
//! processes' memory, loading programs into the kernel, `keyctl`, `io_uring`, user namespaces.

use std::{collections::BTreeMap, os::fd::RawFd};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use thiserror::Error;

use super::Outgoing;

/// Why system calls are not filtered.
#[derive(Debug, Error)]
pub(super) enum FilterError {
    /// The list cannot be translated, for this machine for one.
    #[error("failed to compile the system call filter ({0})")]
    Compile(BackendError),
    /// The kernel refused the filter.
    #[error("failed to install the system call filter ({0})")]
    Install(seccompiler::Error),
}

/// Calls that are allowed whatever their arguments.
const ALWAYS: &[libc::c_long] = &[
    // Reading, and answering on connections that came in.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_fcntl,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Of the kinds of socket that `limited` allows.
    libc::SYS_bind,
    libc::SYS_connect,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Memory; see also `LIMITED`.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill, // abort()
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Facts about the machine and the process.
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_prlimit64,
];

/// The same under the names that only this architecture still has.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[libc::c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[libc::c_long] = &[];

/// `enum bpf_cmd` (include/uapi/linux/bpf.h): reading and keeping maps, reading iterators, and
/// statistics of programs that are open already. Not among them: loading, attaching, opening by number.
const BPF_COMMANDS: &[u64] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    33, // BPF_ITER_CREATE
];

/// `PERF_EVENT_IOC_DISABLE`: how a classic tracepoint is let go of.
const PERF_EVENT_IOC_DISABLE: u64 = 0x2401;

/// What `netobs top` asks of its terminal, and how it gives it back as it was: `TCGETS`, `TCSETS` and
/// the same with more speeds, `TIOCGWINSZ` (include/uapi/asm-generic/ioctls.h). Not among them is
/// `TIOCSTI`, which types for the user. Elsewhere, none of the descriptors is a terminal, or it is one
/// that the agent only writes messages to.
const TERMINAL: [u64; 5] = [0x5401, 0x5402, 0x802c_542a, 0x402c_542b, 0x5413];

/// How the standard library finds out what the CPU can do (include/uapi/linux/prctl.h).
const PR_GET_AUXV: u64 = 0x4155_5856;

/// Everything that must not be set in the flags of a file that is only read.
const WRITING: libc::c_int = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// A condition on the low 32 bits of one argument.
enum Arg {
    Is(u8, u64),
    /// These bits are all clear.
    Without(u8, u64),
    /// These bits are all set.
    With(u8, u64),
}

impl Arg {
    fn condition(&self) -> Result<SeccompCondition, BackendError> {
        let (index, operator, value) = match *self {
            Self::Is(index, value) => (index, SeccompCmpOp::Eq, value),
            Self::Without(index, bits) => (index, SeccompCmpOp::MaskedEq(bits), 0),
            Self::With(index, bits) => (index, SeccompCmpOp::MaskedEq(bits), bits),
        };
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    }
}

/// Flags as the filter compares them: 32 bits, no sign.
const fn bits(flags: libc::c_int) -> u64 {
    flags.cast_unsigned() as u64
}

/// Calls that are allowed with certain arguments only.
fn limited(outgoing: Outgoing) -> Vec<(libc::c_long, Arg)> {
    let mut limited = vec![
        // The auditor asks the kernel for sockets (sock_diag).
        (libc::SYS_socket, Arg::Is(0, bits(libc::AF_NETLINK))),
        (libc::SYS_openat, Arg::Without(2, bits(WRITING))),
        (libc::SYS_mmap, Arg::Without(2, bits(libc::PROT_EXEC))),
        (libc::SYS_mprotect, Arg::Without(2, bits(libc::PROT_EXEC))),
        // Threads, not processes.
        (libc::SYS_clone, Arg::With(0, bits(libc::CLONE_THREAD))),
        (libc::SYS_setns, Arg::Is(1, bits(libc::CLONE_NEWNET))),
        (libc::SYS_prctl, Arg::Is(0, bits(libc::PR_SET_NAME))),
        (libc::SYS_prctl, Arg::Is(0, PR_GET_AUXV)),
        (libc::SYS_ioctl, Arg::Is(1, libc::FIONBIO)),
        (libc::SYS_ioctl, Arg::Is(1, PERF_EVENT_IOC_DISABLE)),
    ];
    limited.extend(TERMINAL.map(|request| (libc::SYS_ioctl, Arg::Is(1, request))));
    let kinds = [
        (libc::AF_UNIX, outgoing.unix),
        (libc::AF_INET, outgoing.internet),
        (libc::AF_INET6, outgoing.internet),
    ];
    for (kind, _) in kinds.into_iter().filter(|(_, allowed)| *allowed) {
        limited.push((libc::SYS_socket, Arg::Is(0, bits(kind))));
    }
    #[cfg(target_arch = "x86_64")]
    limited.push((libc::SYS_open, Arg::Without(1, bits(WRITING))));
    limited.extend(
        BPF_COMMANDS
            .iter()
            .map(|command| (libc::SYS_bpf, Arg::Is(0, *command))),
    );
    limited
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, mismatch, matched, arch)?.try_into()
}

/// How a new file is made through the descriptor of a folder. The filter sees the descriptor and the
/// flags but not the name, which with a leading slash would be anywhere: what is kept out is to open
/// anything that exists.
const NEW_FILE: libc::c_int =
    libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// What it takes to make and remove files in a folder.
fn writing(folder: RawFd) -> Result<[(libc::c_long, SeccompRule); 2], BackendError> {
    let through = || Arg::Is(0, bits(folder)).condition();
    let new = vec![through()?, Arg::With(2, bits(NEW_FILE)).condition()?];
    Ok([
        (libc::SYS_openat, SeccompRule::new(new)?),
        (libc::SYS_unlinkat, SeccompRule::new(vec![through()?])?),
    ])
}

fn programs(outgoing: Outgoing, writes_in: Option<RawFd>) -> Result<[BpfProgram; 2], BackendError> {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALWAYS.iter().chain(ALWAYS_HERE) {
        allowed.insert(*call, Vec::new());
    }
    for (call, arg) in limited(outgoing) {
        let rule = SeccompRule::new(vec![arg.condition()?])?;
        allowed.entry(call).or_default().push(rule);
    }
    if let Some(folder) = writes_in {
        for (call, rule) in writing(folder)? {
            allowed.entry(call).or_default().push(rule);
        }
    }
    if outgoing.internet {
        // The thread that measures gives up what the others keep; none can gain anything by it.
        allowed.insert(libc::SYS_capset, Vec::new());
    }
    // Its flags are in memory, where a filter cannot look. With this answer the C library takes
    // `clone`, whose flags are an argument; hence a filter of its own, and a place in the list.
    allowed.insert(libc::SYS_clone3, Vec::new());
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        compile(
            unknown,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        )?,
        compile(
            allowed,
            SeccompAction::Errno(libc::EPERM.unsigned_abs()),
            SeccompAction::Allow,
        )?,
    ])
}

/// Filters the system calls of all threads from now on. Sets `no_new_privs` as well.
pub(super) fn install(outgoing: Outgoing, writes_in: Option<RawFd>) -> Result<(), FilterError> {
    for program in &programs(outgoing, writes_in).map_err(FilterError::Compile)? {
        install_one(program)?;
    }
    Ok(())
}

/// Lets the calling thread open nothing by name from now on: it is told that there is no such file.
/// Sets its `no_new_privs` as well.
pub(super) fn hide_files() -> Result<(), FilterError> {
    #[cfg(target_arch = "x86_64")]
    const CALLS: [libc::c_long; 3] = [libc::SYS_openat, libc::SYS_openat2, libc::SYS_open];
    #[cfg(not(target_arch = "x86_64"))]
    const CALLS: [libc::c_long; 2] = [libc::SYS_openat, libc::SYS_openat2];
    let program = compile(
        CALLS.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOENT.unsigned_abs()),
    );
    let program = program.map_err(FilterError::Compile)?;
    seccompiler::apply_filter(&program).map_err(FilterError::Install)
}

/// The second call of `seccomp` would be refused by a first filter that does not list it, so the
/// list comes last.
fn install_one(program: &BpfProgram) -> Result<(), FilterError> {
    seccompiler::apply_filter_all_threads(program).map_err(FilterError::Install)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_filter_compiles_and_fits() {
        let all = Outgoing {
            unix: true,
            internet: true,
        };
        for program in programs(all, Some(7)).unwrap() {
            assert!(program.len() < 4096, "{}", program.len());
        }
    }

    /// In a process of its own: a filter cannot be taken off again.
    #[test]
    fn a_filtered_process_reads_and_can_do_no_more() {
        const CHILD: &str = "NETOBS_TEST_SECCOMP_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let name =
                "sys::hardening::seccomp::tests::a_filtered_process_reads_and_can_do_no_more";
            let folder = tempfile::tempdir().unwrap();
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, folder.path())
                .output()
                .unwrap();
            assert!(child.status.success(), "{child:?}");
            return;
        }
        let folder = std::path::PathBuf::from(std::env::var_os(CHILD).unwrap());
        let own = std::env::current_exe().unwrap();
        let inside = std::fs::File::open(&folder).unwrap();
        // Of the kinds that connect, one is allowed and the others are not.
        let outgoing = Outgoing {
            unix: true,
            internet: false,
        };
        install(outgoing, Some(inside.as_raw_fd())).unwrap();
        let refused = |error: std::io::Error| error.raw_os_error() == Some(libc::EPERM);

        assert!(std::fs::read("/proc/self/status").is_ok());
        assert!(std::fs::read_link("/proc/self/ns/net").is_ok());
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);

        assert!(refused(
            std::process::Command::new(own).spawn().unwrap_err()
        ));
        assert!(refused(
            std::fs::File::create(folder.join("x")).unwrap_err()
        ));
        assert_writes_inside(&inside, &folder);
        assert!(refused(std::fs::create_dir(folder.join("y")).unwrap_err()));
        assert!(refused(std::fs::remove_dir(&folder).unwrap_err()));
        assert!(refused(
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err()
        ));
        assert!(refused(
            std::net::TcpStream::connect("127.0.0.1:9").unwrap_err()
        ));
        let missing = std::os::unix::net::UnixStream::connect(folder.join("z"));
        assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        // SAFETY: no pointers that the kernel would look at before it refuses.
        let calls = unsafe {
            [
                libc::syscall(libc::SYS_bpf, 5, 0, 0), // BPF_PROG_LOAD
                libc::syscall(libc::SYS_setns, 0, libc::CLONE_NEWNS),
                libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
                libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0),
                libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0),
                libc::syscall(libc::SYS_kill, 0, 0),
                libc::syscall(libc::SYS_mprotect, 0, 0, libc::PROT_EXEC),
                libc::syscall(libc::SYS_io_uring_setup, 1, 0),
            ]
        };
        assert_eq!(calls, [-1; 8]);
    }

    /// New files can be made and removed through the descriptor, and none can be changed.
    fn assert_writes_inside(inside: &std::fs::File, folder: &std::path::Path) {
        use nix::{
            fcntl::{OFlag, openat},
            sys::stat::Mode,
            unistd::{UnlinkatFlags, unlinkat},
        };
        let new = OFlag::from_bits_truncate(NEW_FILE);
        let made = openat(inside, "z", new, Mode::S_IRUSR).unwrap();
        let again = openat(inside, "z", new, Mode::S_IRUSR);
        assert_eq!(again.unwrap_err(), nix::Error::EEXIST);
        for flags in [OFlag::O_WRONLY, OFlag::O_WRONLY | OFlag::O_TRUNC] {
            let change = openat(inside, "z", flags, Mode::empty());
            assert_eq!(change.unwrap_err(), nix::Error::EPERM, "{flags:?}");
        }
        nix::unistd::write(&made, b"x").unwrap();
        unlinkat(inside, "z", UnlinkatFlags::NoRemoveDir).unwrap();
        let elsewhere = std::fs::remove_file(folder.join("z"));
        assert_eq!(elsewhere.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn no_call_is_both_free_and_limited() {
        for (call, _) in limited(Outgoing::default()) {
            assert!(
                !ALWAYS.contains(&call) && !ALWAYS_HERE.contains(&call),
                "{call}"
            );
        }
    }

    #[test]
    fn every_way_to_write_is_in_the_mask() {
        for flags in [
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_RDONLY | libc::O_CREAT,
            libc::O_RDONLY | libc::O_TRUNC,
            libc::O_TMPFILE | libc::O_RDWR,
        ] {
            assert_ne!(flags & WRITING, 0, "{flags:o}");
        }
        let reading = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY | libc::O_NONBLOCK;
        assert_eq!(reading & WRITING, 0);
    }
}
