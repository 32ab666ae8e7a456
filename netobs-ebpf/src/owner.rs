//! Whose a socket is: by what was remembered of it, else by the port that it is on.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid},
};
use netobs_common::{
    connection::{Connection, ListenerKey, Listening},
    kernel::UNIFIED_CGROUP,
    ledger::{Role, ServerPort},
    owner::Owner,
    probe::Loss,
};

use crate::{
    kread::{Access, Net, Probed, Sock, Task, Typed, is_listen, with_current},
    maps::{CONNECTIONS, LISTENERS, LISTENING, SERVER_PORTS, add_shared, setting},
};

/// The process that runs now. Only for hooks that run in a system call: in a softirq `current` is
/// whoever was interrupted.
#[inline(always)]
pub(crate) fn current(net: Net) -> Result<Owner, Loss> {
    let subsystem = setting!(cgroup_subsystem);
    let cgroup = if subsystem == UNIFIED_CGROUP {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_cgroup_id() }
    } else {
        Task::<Probed>::current().cgroup_of(subsystem)?
    };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the upper half is the process id"
    )]
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    Ok(Owner {
        cgroup,
        net: net.identity,
        netns: net.number,
        pid,
        comm: with_current!(|task| task.process_name())?,
    })
}

/// The process that sends a packet from a socket whose cgroup is `cgroup`, and that runs now. By no
/// helper that programs on sockets' packets do not have on every kernel.
#[inline(always)]
pub(crate) fn sender(cgroup: u64, net: Net) -> Result<Owner, Loss> {
    let task = Task::<Probed>::current();
    let subsystem = setting!(cgroup_subsystem);
    Ok(Owner {
        cgroup: if subsystem == UNIFIED_CGROUP {
            cgroup
        } else {
            task.cgroup_of(subsystem)?
        },
        net: net.identity,
        netns: net.number,
        pid: task.process_id()?,
        comm: task.process_name()?,
    })
}

/// What is known of a socket.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) owner: Owner,
    pub(crate) role: Role,
    /// When the connection began, ns; 0 when not known.
    pub(crate) begun_ns: u64,
}

impl Known {
    /// Since the connection began, ns; 0 when not known.
    #[inline(always)]
    pub(crate) fn age(&self, now: u64) -> u64 {
        if self.begun_ns == 0 {
            return 0;
        }
        now.wrapping_sub(self.begun_ns)
    }
}

/// Whose `sock` is, and which end. `local` is its local port, which a socket that is being closed
/// no longer tells by itself.
#[inline(always)]
pub(crate) fn of(sock: Sock<Typed>, local: u16) -> Result<Known, Loss> {
    let mut known = Known {
        owner: Owner::default(),
        role: Role::Client,
        begun_ns: 0,
    };
    find(sock, local, &mut known).map(|()| known)
}

/// Fills in what is known of a socket. The kernels up to 6.12 give a chain of calls 512 bytes of
/// stack: what is only needed here must be gone when the caller goes on.
#[inline(never)] // a stack of its own
fn find(sock: Sock<Typed>, local: u16, to: &mut Known) -> Result<(), Loss> {
    if is_listen(sock.state()?) {
        if let Some(listener) = LISTENERS.get_ptr(sock.address()) {
            // SAFETY: a live map element.
            to.owner = unsafe { (*listener).owner };
            to.role = Role::Server;
            return Ok(());
        }
    } else if let Some(known) = CONNECTIONS.get_ptr(sock.address()) {
        // SAFETY: a live map element.
        let known = unsafe { &*known };
        if known.peer == sock.peer()? {
            to.owner = known.owner;
            if known.role == Role::Server as u8 {
                to.role = Role::Server;
            }
            to.begun_ns = known.begun_ns;
            return Ok(());
        }
    }
    let net = sock.net()?;
    let mut key = sock.listener_key(net)?;
    key.port = local;
    if let Some((_, listening)) = listening(key) {
        // SAFETY: a live map element.
        to.owner = unsafe { (*listening).owner };
        to.role = Role::Server;
        return Ok(());
    }
    let port = ServerPort {
        netns: net.number,
        port: local.into(),
    };
    if setting!(cgroup_subsystem) == UNIFIED_CGROUP {
        to.owner.cgroup = sock.cgroup()?;
    }
    to.owner.net = net.identity;
    to.owner.netns = net.number;
    if SERVER_PORTS.get_ptr(port).is_some() {
        to.role = Role::Server;
    }
    Ok(())
}

/// As [`of`], for a TIME_WAIT or request socket, of which only what all sockets have can be read: it is
/// whose who listens on its local end is; else a client's, as far as is known.
#[inline(never)] // a stack of its own
pub(crate) fn find_small(sock: Sock<Typed>, local: u16, to: &mut Known) -> Result<(), Loss> {
    let net = sock.net()?;
    let mut key = sock.listener_key(net)?;
    key.port = local;
    let port = ServerPort {
        netns: net.number,
        port: local.into(),
    };
    if let Some((_, listening)) = listening(key) {
        // SAFETY: a live map element.
        to.owner = unsafe { (*listening).owner };
        to.role = Role::Server;
    } else if SERVER_PORTS.get_ptr(port).is_some() {
        to.role = Role::Server;
    }
    to.owner.net = net.identity;
    to.owner.netns = net.number;
    Ok(())
}

/// Who listens on the local end of a connection: on its very address, or on all.
#[inline(always)]
pub(crate) fn listening(mut key: ListenerKey) -> Option<(ListenerKey, *mut Listening)> {
    if let Some(found) = LISTENING.get_ptr_mut(key) {
        return Some((key, found));
    }
    key.address = [0; 16];
    LISTENING.get_ptr_mut(key).map(|found| (key, found))
}

/// Notes that one more socket, at `sk`, listens there.
#[inline(always)]
pub(crate) fn listens(key: ListenerKey, owner: Owner, sk: u64) -> Result<(), Loss> {
    if let Some(known) = LISTENING.get_ptr_mut(key) {
        // SAFETY: a live map element. Its owner is replaced whole only for a process that is known.
        unsafe {
            add_shared(&raw mut (*known).sockets, 1);
            (*known).sk = sk;
            if owner.pid != 0 {
                (*known).owner = owner;
            }
        }
        return Ok(());
    }
    let listening = Listening {
        owner,
        sockets: 1,
        sk,
    };
    LISTENING
        .insert(key, listening, BPF_ANY.into())
        .map_err(|_| Loss::MapFull)
}

/// Notes that one socket less listens there.
#[inline(always)]
pub(crate) fn listens_no_more(key: ListenerKey) {
    if let Some(known) = LISTENING.get_ptr_mut(key) {
        // SAFETY: a live map element; the sockets of one address are closed one after the other
        // or not at all: at worst an entry of an address on which nothing listens stays.
        unsafe {
            if (*known).sockets > 1 {
                (*known).sockets -= 1;
                return;
            }
        }
        let _ = LISTENING.remove(key);
    }
}

/// Remembers a connection that is older than the agent; its process is looked for later.
#[inline(always)]
pub(crate) fn remember_older<A: Access>(
    sock: Sock<A>,
    owner: Owner,
    role: Role,
) -> Result<(), Loss> {
    let connection = Connection {
        owner,
        peer: sock.peer()?,
        inode: sock.inode()?,
        role: role as u8,
        ..Connection::default()
    };
    match CONNECTIONS.insert(sock.address(), connection, BPF_NOEXIST.into()) {
        Err(errno) if errno != -17 => Err(Loss::MapFull), // EEXIST
        _ => Ok(()),
    }
}
