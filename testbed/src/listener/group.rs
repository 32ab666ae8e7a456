//! Several listeners on one port (`SO_REUSEPORT`).

use std::{net::SocketAddr, os::fd::AsFd};

use anyhow::{Context, Result, ensure};

use super::{Listener, options};
use crate::netns::Ns;

/// `BPF_RET | BPF_K`: the classic BPF program that returns a constant.
const RETURN_CONSTANT: u16 = 0x06;

/// Listeners that share a port. The kernel spreads connections by hash; [`ListenGroup::steer`]
/// sends them all to one member.
#[derive(Debug)]
pub struct ListenGroup {
    members: Vec<Listener>,
}

impl ListenGroup {
    /// Opens `count` listeners on the same port, which the first one chooses if it is 0.
    ///
    /// # Errors
    /// When `count` is 0, or a listener cannot be opened.
    pub fn open(ns: &Ns, address: SocketAddr, backlog: u16, count: usize) -> Result<Self> {
        ensure!(count > 0, "a group of no listeners");
        let mut members: Vec<Listener> = Vec::with_capacity(count);
        for _ in 0..count {
            let address = members.first().map_or(address, Listener::address);
            members.push(
                Listener::builder(address)
                    .backlog(backlog)
                    .reuse_port()
                    .open(ns)?,
            );
        }
        Ok(Self { members })
    }

    /// The members, in the order in which the kernel numbers them.
    #[must_use]
    pub fn members(&self) -> &[Listener] {
        &self.members
    }

    /// Sends every SYN from now on to one member (`SO_ATTACH_REUSEPORT_CBPF`).
    ///
    /// # Errors
    /// When there is no such member or the kernel refuses the program.
    pub fn steer(&self, member: usize) -> Result<&Listener> {
        let chosen = self.members.get(member).context("no such member")?;
        let mut program = libc::sock_filter {
            code: RETURN_CONSTANT,
            jt: 0,
            jf: 0,
            k: u32::try_from(member).context("the member's number")?,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: std::ptr::from_mut(&mut program),
        };
        let name = libc::SO_ATTACH_REUSEPORT_CBPF;
        options::set(&chosen.as_fd(), libc::SOL_SOCKET, name, program)
            .context("attach a reuseport program")?;
        Ok(chosen)
    }

    /// Returns to spreading by hash (`SO_DETACH_REUSEPORT_BPF`, since 5.3).
    ///
    /// # Errors
    /// When nothing was steered.
    pub fn spread(&self) -> Result<()> {
        let any = self.members.first().context("a group of no listeners")?;
        options::set(
            &any.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            0_i32,
        )
        .context("detach the reuseport program")
    }

    /// Closes one member; the others stay.
    ///
    /// The kernel moves the last member into its number.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn close(&mut self, member: usize) -> Result<()> {
        ensure!(member < self.members.len(), "no such member");
        drop(self.members.swap_remove(member));
        Ok(())
    }
}
