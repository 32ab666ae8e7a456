//! The only code that reads kernel memory.
//!
//! Two ways of access: [`Typed`] for pointers whose type the verifier knows (arguments of `tp_btf`
//! programs and what they lead to): a plain load, checked at load time against the kernel's BTF and
//! faulting to zero; and [`Probed`] for addresses kept in maps: `bpf_probe_read_kernel`.

mod mib;
mod task;

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_probe_read_kernel, generated::bpf_skc_to_tcp_sock};
use netobs_common::{
    connection::ListenerKey,
    event::Endpoints,
    kernel::{TCP_LISTEN, identity},
    offsets::Offset,
    owner::Owner,
    probe::Loss,
};

pub(crate) use mib::Mib;
pub(crate) use task::{Task, with_current};

use crate::maps::{offset, setting};

/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`.
const IPPROTO_TCP: u16 = 6;

/// How to load from a kernel address.
pub(crate) trait Access: Copy {
    /// Loads the `T` at `base` + offset of `field`.
    ///
    /// # Safety
    ///
    /// For [`Typed`], `base` must be a pointer that the verifier tracks.
    unsafe fn load<T: Copy>(base: *const u8, field: Offset) -> Result<T, Loss>;

    /// Loads 16 bytes: an address, a name.
    ///
    /// # Safety
    ///
    /// As for [`Access::load`].
    unsafe fn load_16(base: *const u8, field: Offset) -> Result<[u8; 16], Loss>;

    /// Loads two fields of 32 bits, which are neighbours on most kernels.
    ///
    /// # Safety
    ///
    /// As for [`Access::load`].
    #[inline(always)]
    unsafe fn load_two(base: *const u8, one: Offset, next: Offset) -> Result<[u32; 2], Loss> {
        // SAFETY: the caller's contract.
        unsafe { Ok([Self::load(base, one)?, Self::load(base, next)?]) }
    }
}

/// Plain loads.
#[derive(Clone, Copy)]
pub(crate) struct Typed;

/// Loads through the helper.
#[derive(Clone, Copy)]
pub(crate) struct Probed;

impl Access for Typed {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const u8, field: Offset) -> Result<T, Loss> {
        // SAFETY: the verifier accepts the program only if the load lies within the type; volatile
        // keeps its width, which the verifier checks too.
        Ok(unsafe { core::ptr::read_volatile(base.add(offset(field)).cast::<T>()) })
    }

    #[inline(always)]
    unsafe fn load_16(base: *const u8, field: Offset) -> Result<[u8; 16], Loss> {
        // SAFETY: as above. Two words: the verifier takes words out of an array of bytes
        // (kernel/bpf/btf.c `btf_struct_walk`), but nothing wider.
        unsafe {
            let words = base.add(offset(field)).cast::<u64>();
            let words = [words.read_volatile(), words.add(1).read_volatile()];
            Ok(core::mem::transmute::<[u64; 2], [u8; 16]>(words))
        }
    }
}

impl Access for Probed {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const u8, field: Offset) -> Result<T, Loss> {
        // SAFETY: the helper checks the address and reports a fault.
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset(field)).cast::<T>()) }
            .map_err(|_| Loss::Unreadable)
    }

    #[inline(always)]
    unsafe fn load_16(base: *const u8, field: Offset) -> Result<[u8; 16], Loss> {
        // SAFETY: the caller's contract.
        unsafe { Self::load(base, field) }
    }

    #[inline(always)]
    unsafe fn load_two(base: *const u8, one: Offset, next: Offset) -> Result<[u32; 2], Loss> {
        // SAFETY: the caller's contract.
        unsafe {
            if offset(next) == offset(one) + size_of::<u32>() {
                return Self::load(base, one);
            }
            Ok([Self::load(base, one)?, Self::load(base, next)?])
        }
    }
}

/// Loads through the helper whatever the way of access: for what a typed load cannot take.
#[inline(always)]
fn probe<T: Copy>(base: *const u8, field: Offset) -> Result<T, Loss> {
    // SAFETY: `Probed` has no precondition.
    unsafe { Probed::load(base, field) }
}

/// Reads a value of any alignment.
#[inline(always)]
fn read<T: Copy>(address: *const u8) -> Result<T, Loss> {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_kernel(address.cast::<T>()) }.map_err(|_| Loss::Unreadable)
}

/// A network namespace.
#[derive(Clone, Copy)]
pub(crate) struct Net {
    /// Inode number: used again after the namespace's end.
    pub(crate) number: u32,
    /// See [`identity`]: not used again.
    pub(crate) identity: u64,
}

impl Net {
    /// # Safety
    ///
    /// For [`Typed`], `net` must be a pointer to a `struct net` that the verifier tracks.
    #[inline(always)]
    unsafe fn read<A: Access>(net: *const u8) -> Result<Self, Loss> {
        // SAFETY: the caller's contract; the identity's field is there, as the agent has said.
        unsafe {
            let number = A::load(net, Offset::NetInum)?;
            let kind = setting_of_identity();
            let identity = if kind == identity::COOKIE {
                A::load(net, Offset::NetCookie)?
            } else if kind == identity::HASH_MIX {
                A::load::<u32>(net, Offset::NetHashMix)?.into()
            } else {
                0
            };
            Ok(Self { number, identity })
        }
    }

    /// The namespace of what somebody owns.
    #[inline(always)]
    pub(crate) fn of(owner: &Owner) -> Self {
        Self {
            number: owner.netns,
            identity: owner.net,
        }
    }
}

#[inline(always)]
fn setting_of_identity() -> u32 {
    setting!(net_identity)
}

/// A `struct sock`, or anything that begins with one.
#[derive(Clone, Copy)]
pub(crate) struct Sock<A> {
    base: *const u8,
    access: PhantomData<A>,
}

impl<A: Access> Sock<A> {
    /// # Safety
    ///
    /// For [`Typed`], `base` must be a non-null pointer to a `struct sock` (or `tcp_sock`) that the
    /// verifier tracks.
    #[inline(always)]
    pub(crate) unsafe fn new(base: *const u8) -> Self {
        Self {
            base,
            access: PhantomData,
        }
    }

    /// Its address, as an identifier.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.base as u64
    }

    #[inline(always)]
    fn load<T: Copy>(self, field: Offset) -> Result<T, Loss> {
        // SAFETY: `new`'s contract.
        unsafe { A::load(self.base, field) }
    }

    #[inline(always)]
    fn load_16(self, field: Offset) -> Result<[u8; 16], Loss> {
        // SAFETY: `new`'s contract.
        unsafe { A::load_16(self.base, field) }
    }

    /// `skc_state`.
    #[inline(always)]
    pub(crate) fn state(self) -> Result<u8, Loss> {
        self.load(Offset::SkState)
    }

    /// `skc_refcnt`: 0 from the socket's end until its memory is another one's.
    #[inline(always)]
    pub(crate) fn references(self) -> Result<u32, Loss> {
        self.load(Offset::SkReferences)
    }

    /// Whether `sk_protocol` is TCP: not so for MPTCP's user-facing socket, DCCP, SCTP.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> Result<bool, Loss> {
        Ok(self.load::<u16>(Offset::SkProtocol)? == IPPROTO_TCP)
    }

    /// Its network namespace.
    #[inline(always)]
    pub(crate) fn net(self) -> Result<Net, Loss> {
        // SAFETY: a pointer that the same way of access yielded.
        unsafe { Net::read::<A>(self.load(Offset::SkNet)?) }
    }

    /// Address of this CPU's-to-be counters of its namespace: a per-CPU pointer, not yet displaced.
    #[inline(always)]
    pub(crate) fn per_cpu_statistics(self) -> Result<*const u8, Loss> {
        let net: *const u8 = self.load(Offset::SkNet)?;
        // SAFETY: a pointer that the same way of access yielded.
        unsafe { A::load(net, Offset::NetStatistics) }
    }

    /// `skc_listener`: of a request, the listener that it belongs to.
    #[inline(always)]
    pub(crate) fn listener(self) -> Result<*const u8, Loss> {
        self.load(Offset::SkListener)
    }

    /// `skc_num`, host byte order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Result<u16, Loss> {
        self.load(Offset::SkLocalPort)
    }

    /// The local port, also of a connection that has been reset, whose `skc_num` is given back (a
    /// connection in an accept queue may have been): `inet_sport` stays.
    #[inline(always)]
    pub(crate) fn own_port(self) -> Result<u16, Loss> {
        match self.local_port()? {
            // Behind `struct sock`: a typed load through a `struct sock` pointer would be refused.
            0 => Ok(u16::from_be(probe(self.base, Offset::InetLocalPort)?)),
            port => Ok(port),
        }
    }

    /// `skc_dport`, turned to host byte order.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> Result<u16, Loss> {
        Ok(u16::from_be(self.load(Offset::SkRemotePort)?))
    }

    /// Remote port << 32 | `skc_daddr`.
    #[inline(always)]
    pub(crate) fn peer(self) -> Result<u64, Loss> {
        let address: u32 = self.load(Offset::SkRemoteAddress)?;
        Ok(u64::from(self.remote_port()?) << 32 | u64::from(address))
    }

    /// Its local end, as the key of a listener on that very address.
    #[inline(always)]
    pub(crate) fn listener_key(self, net: Net) -> Result<ListenerKey, Loss> {
        let family = self.load::<u16>(Offset::SkFamily)?;
        let mut key = ListenerKey {
            net: net.identity,
            netns: net.number,
            port: self.own_port()?,
            family,
            address: [0; 16],
        };
        if family == AF_INET6 {
            key.address = self.load_16(Offset::SkLocalAddress6)?;
        } else if family == AF_INET {
            key.address[..4]
                .copy_from_slice(&self.load::<u32>(Offset::SkLocalAddress)?.to_ne_bytes());
        }
        Ok(key)
    }

    /// Fills in both addresses and ports; `ends` must be zeros.
    #[inline(always)]
    pub(crate) fn ends(self, ends: &mut Endpoints) -> Result<(), Loss> {
        let family = self.load::<u16>(Offset::SkFamily)?;
        ends.local_port = self.own_port()?;
        ends.remote_port = self.remote_port()?;
        ends.family = family;
        if family == AF_INET6 {
            ends.local_address = self.load_16(Offset::SkLocalAddress6)?;
            ends.remote_address = self.load_16(Offset::SkRemoteAddress6)?;
        } else if family == AF_INET {
            ends.local_address[..4]
                .copy_from_slice(&self.load::<u32>(Offset::SkLocalAddress)?.to_ne_bytes());
            ends.remote_address[..4]
                .copy_from_slice(&self.load::<u32>(Offset::SkRemoteAddress)?.to_ne_bytes());
        }
        Ok(())
    }

    /// `sk_drops`, wrapping.
    #[inline(always)]
    pub(crate) fn drops(self) -> Result<u32, Loss> {
        self.load(Offset::SkDrops)
    }

    /// `sk_ack_backlog` and `sk_max_ack_backlog`: the accept queue's length and limit.
    #[inline(always)]
    pub(crate) fn accept_queue(self) -> Result<[u32; 2], Loss> {
        // SAFETY: `new`'s contract.
        unsafe { A::load_two(self.base, Offset::SkAckBacklog, Offset::SkMaxAckBacklog) }
    }

    /// `sk_ack_backlog`.
    #[inline(always)]
    pub(crate) fn ack_backlog(self) -> Result<u32, Loss> {
        self.load(Offset::SkAckBacklog)
    }

    /// `sk_max_ack_backlog`.
    #[inline(always)]
    pub(crate) fn max_ack_backlog(self) -> Result<u32, Loss> {
        self.load(Offset::SkMaxAckBacklog)
    }

    /// `icsk_accept_queue.qlen`, of a listener.
    #[inline(always)]
    pub(crate) fn syn_queue(self) -> Result<u32, Loss> {
        // Behind `struct sock`: a typed load through a `struct sock` pointer would be refused.
        probe(self.base, Offset::IcskQueueLength)
    }

    /// `sk_err`: 0 or a positive errno.
    #[inline(always)]
    pub(crate) fn error(self) -> Result<u32, Loss> {
        self.load(Offset::SkErr)
    }

    /// Id of the cgroup that the socket was made in, by `sk_cgrp_data`; 0 when it has none or this
    /// kernel keeps none.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> Result<u64, Loss> {
        if offset(Offset::SkCgroup) == 0 {
            return Ok(0);
        }
        let data: u64 = probe(self.base, Offset::SkCgroup)?;
        // Up to 5.14 the lowest bit says that this is a class of cgroup v1, and the next one is a
        // flag (include/linux/cgroup-defs.h).
        if data & 1 != 0 || data == 0 {
            return Ok(0);
        }
        cgroup_id((data & !3) as *const u8)
    }

    /// Inode number of the socket's file, 0 when it has none.
    #[inline(always)]
    pub(crate) fn inode(self) -> Result<u64, Loss> {
        let socket: *const u8 = self.load(Offset::SkSocket)?;
        if socket.is_null() {
            return Ok(0);
        }
        probe(
            socket.wrapping_sub(offset(Offset::SocketAllocSocket)),
            Offset::SocketInode,
        )
    }
}

impl Sock<Probed> {
    /// `total_retrans` of a TCP socket: segments.
    #[inline(always)]
    pub(crate) fn sent_again(self) -> Result<u32, Loss> {
        self.load(Offset::TpTotalRetrans)
    }

    /// The socket behind a `struct bpf_sock`: to the verifier another type, in truth its address.
    #[inline(always)]
    pub(crate) fn of_bpf_sock(socket: *const u8) -> Result<Self, Loss> {
        // SAFETY: copies the pointer from this program's own stack, where it is held, and so makes
        // a number of it; the helper reports a fault.
        let address = unsafe { bpf_probe_read_kernel((&raw const socket).cast::<u64>()) }
            .map_err(|_| Loss::Unreadable)?;
        Ok(Self {
            base: address as *const u8,
            access: PhantomData,
        })
    }
}

impl Sock<Typed> {
    /// The same socket as a `struct tcp_sock`; `None` for request and TIME_WAIT sockets, and for
    /// other protocols.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the verifier demands a pointer to a socket, which `new`'s contract promises.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.base.cast_mut().cast()) };
        (!tcp.is_null()).then_some(TcpSock {
            base: tcp.cast::<u8>().cast_const(),
        })
    }
}

/// A `struct tcp_sock` that the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock {
    base: *const u8,
}

impl TcpSock {
    #[inline(always)]
    fn load<T: Copy>(self, field: Offset) -> Result<T, Loss> {
        // SAFETY: made by `Sock::tcp` only.
        unsafe { Typed::load(self.base, field) }
    }

    /// The `struct sock` that it begins with.
    #[inline(always)]
    pub(crate) fn sock(self) -> Sock<Typed> {
        // SAFETY: `struct tcp_sock` begins with a `struct sock`, and the verifier follows.
        unsafe { Sock::new(self.base) }
    }

    /// The local port, host byte order: `inet_sport`, which stays when `skc_num` is given back.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Result<u16, Loss> {
        Ok(u16::from_be(self.load(Offset::InetLocalPort)?))
    }

    /// `total_retrans`: segments.
    #[inline(always)]
    pub(crate) fn total_retrans(self) -> Result<u32, Loss> {
        self.load(Offset::TpTotalRetrans)
    }

    /// `srtt_us`, without its three fractional bits: microseconds.
    #[inline(always)]
    pub(crate) fn srtt_us(self) -> Result<u32, Loss> {
        Ok(self.load::<u32>(Offset::TpSrtt)? >> 3)
    }

    /// `snd_cwnd`, segments.
    #[inline(always)]
    pub(crate) fn snd_cwnd(self) -> Result<u32, Loss> {
        self.load(Offset::TpSndCwnd)
    }

    /// `icsk_ca_state`: the low five bits of its byte (the agent refuses another layout).
    #[inline(always)]
    pub(crate) fn ca_state(self) -> Result<u8, Loss> {
        Ok(self.load::<u8>(Offset::IcskCaState)? & 0x1f)
    }

    /// `icsk_pending`: which timer is armed.
    #[inline(always)]
    pub(crate) fn pending(self) -> Result<u8, Loss> {
        self.load(Offset::IcskPending)
    }

    /// `segs_out`: segments sent, SYNs included.
    #[inline(always)]
    pub(crate) fn segments_sent(self) -> Result<u32, Loss> {
        self.load(Offset::TpSegsOut)
    }

    /// Since data was last sent or received, ns.
    #[inline(always)]
    pub(crate) fn idle_ns(self) -> Result<u64, Loss> {
        let (sent, received): (u32, u32) = (
            self.load(Offset::TpLastSent)?,
            self.load(Offset::TpLastReceived)?,
        );
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the stamps are 32 bits wide"
        )]
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_jiffies64() } as u32;
        let idle = now.wrapping_sub(sent).min(now.wrapping_sub(received));
        Ok(u64::from(idle) * u64::from(setting!(jiffy_ns)))
    }

    /// `bytes_acked`.
    #[inline(always)]
    pub(crate) fn bytes_acked(self) -> Result<u64, Loss> {
        self.load(Offset::TpBytesAcked)
    }

    /// `bytes_received`.
    #[inline(always)]
    pub(crate) fn bytes_received(self) -> Result<u64, Loss> {
        self.load(Offset::TpBytesReceived)
    }

    /// `icsk_retransmits`.
    #[inline(always)]
    pub(crate) fn timeouts(self) -> Result<u8, Loss> {
        self.load(Offset::IcskRetransmits)
    }
}

/// A `struct sk_buff` that the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct Skb {
    base: *const u8,
}

impl Skb {
    /// # Safety
    ///
    /// `base` must be a non-null pointer to a `struct sk_buff` that the verifier tracks.
    #[inline(always)]
    pub(crate) unsafe fn new(base: *const u8) -> Self {
        Self { base }
    }

    /// A field of the `struct tcp_skb_cb` in `skb->cb`.
    #[inline(always)]
    fn control<T: Copy>(self, field: Offset) -> Result<T, Loss> {
        // SAFETY: `new`'s contract; the field lies within `cb`, an array of bytes out of which the verifier
        // takes wider values too.
        unsafe { Typed::load(self.base.add(offset(Offset::SkbCb)), field) }
    }

    /// `tcp_gso_segs`, at least 1.
    #[inline(always)]
    pub(crate) fn tcp_segments(self) -> Result<u32, Loss> {
        Ok(u32::from(self.control::<u16>(Offset::CbGsoSegs)?.max(1)))
    }

    /// Whether the SYN flag is in `tcp_flags` (its low byte: the field grew to 16 bits in 6.18).
    #[inline(always)]
    pub(crate) fn is_syn(self) -> Result<bool, Loss> {
        Ok(self.control::<u8>(Offset::CbFlags)? & 0x02 != 0)
    }

    /// The network namespace of the device that it came by.
    #[inline(always)]
    pub(crate) fn net(self) -> Result<Net, Loss> {
        let device: *const u8 = probe(self.base, Offset::SkbDevice)?;
        // SAFETY: `Probed` has no precondition.
        unsafe { Net::read::<Probed>(probe(device, Offset::DeviceNet)?) }
    }

    /// Whether its TCP header has SYN and not ACK.
    #[inline(always)]
    pub(crate) fn asks_to_connect(self) -> Result<bool, Loss> {
        const FLAGS: usize = 13; // RFC 9293, 3.1
        let flags: u8 = read(self.header(Offset::SkbTransportHeader)?.wrapping_add(FLAGS))?;
        Ok(flags & 0x12 == 0x02)
    }

    /// Fills in both ends as the receiver sees them; `ends` must be zeros.
    #[inline(always)]
    pub(crate) fn ends(self, ends: &mut Endpoints) -> Result<(), Loss> {
        let network = self.header(Offset::SkbNetworkHeader)?;
        let version: u8 = read(network)?;
        if version >> 4 == 6 {
            ends.family = AF_INET6; // RFC 8200, 3
            ends.remote_address = read(network.wrapping_add(8))?;
            ends.local_address = read(network.wrapping_add(24))?;
        } else {
            ends.family = AF_INET; // RFC 791, 3.1
            let addresses: [[u8; 4]; 2] = read(network.wrapping_add(12))?;
            ends.remote_address[..4].copy_from_slice(&addresses[0]);
            ends.local_address[..4].copy_from_slice(&addresses[1]);
        }
        let ports: [u16; 2] = read(self.header(Offset::SkbTransportHeader)?)?;
        ends.remote_port = u16::from_be(ports[0]);
        ends.local_port = u16::from_be(ports[1]);
        Ok(())
    }

    #[inline(always)]
    fn header(self, which: Offset) -> Result<*const u8, Loss> {
        let head: *const u8 = probe(self.base, Offset::SkbHead)?;
        let at: u16 = probe(self.base, which)?;
        Ok(head.wrapping_add(at as usize))
    }

    /// max(1, `gso_segs`): what `sk_drops_add` adds for this packet.
    #[inline(always)]
    pub(crate) fn drop_weight(self) -> Result<u64, Loss> {
        // SAFETY: `new`'s contract.
        let (head, end) = unsafe {
            (
                Typed::load::<*const u8>(self.base, Offset::SkbHead)?,
                Typed::load::<u32>(self.base, Offset::SkbEnd)?,
            )
        };
        let segments: u16 = probe(head.wrapping_add(end as usize), Offset::ShinfoGsoSegs)?;
        Ok(u64::from(segments.max(1)))
    }
}

/// A `struct sk_buff` at an address that the verifier knows nothing about; address 0 is none.
#[derive(Clone, Copy)]
pub(crate) struct Packet(u64);

impl Packet {
    /// The packet at an address, or none at 0.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address)
    }

    /// Its address.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0
    }

    /// Fills in where it came from (remote) and went to (local); `ends` must be zeros.
    #[inline(always)]
    pub(crate) fn ends(self, ends: &mut Endpoints) -> Result<(), Loss> {
        // Headers are read through the helper, whatever the verifier knows of the packet.
        let packet = Skb {
            base: self.0 as *const u8,
        };
        packet.ends(ends)
    }
}

/// A `struct request_sock` that the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    base: *const u8,
}

impl Request {
    /// # Safety
    ///
    /// `base` must be a non-null pointer to a `struct request_sock` that the verifier tracks.
    #[inline(always)]
    pub(crate) unsafe fn new(base: *const u8) -> Self {
        Self { base }
    }

    /// `num_retrans`: how often its SYN-ACK had been sent again before.
    #[inline(always)]
    pub(crate) fn num_retrans(self) -> Result<u8, Loss> {
        // SAFETY: `new`'s contract.
        unsafe { Typed::load(self.base, Offset::RskNumRetrans) }
    }

    /// Fills in the remote end.
    #[inline(always)]
    pub(crate) fn remote(self, ends: &mut Endpoints) -> Result<(), Loss> {
        // SAFETY: `new`'s contract, here and below.
        ends.remote_port = u16::from_be(unsafe { Typed::load(self.base, Offset::RskRemotePort)? });
        if ends.family == AF_INET6 {
            // SAFETY: see above.
            ends.remote_address = unsafe { Typed::load_16(self.base, Offset::RskRemoteAddress6)? };
        } else {
            // SAFETY: see above.
            let v4: u32 = unsafe { Typed::load(self.base, Offset::RskRemoteAddress)? };
            ends.remote_address[..4].copy_from_slice(&v4.to_ne_bytes());
        }
        Ok(())
    }
}

/// Id of a cgroup: its directory's inode number.
#[inline(always)]
fn cgroup_id(cgroup: *const u8) -> Result<u64, Loss> {
    let node: *const u8 = probe(cgroup, Offset::CgroupNode)?;
    probe(node, Offset::CgroupNodeId)
}

/// Whether a state is that of a listener.
#[inline(always)]
pub(crate) fn is_listen(state: u8) -> bool {
    state == TCP_LISTEN
}

/// Which list of functions a return address lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// See `Settings::discard_ranges`.
    Discard,
    /// See `Settings::cookie_ranges`.
    Cookie,
    /// Neither.
    Elsewhere,
}

/// Classifies the `location` of a `kfree_skb` event.
#[inline(always)]
pub(crate) fn place(location: u64) -> Place {
    macro_rules! within {
        ($ranges:ident: $($index:literal)+) => {
            $(
                (location >= setting!($ranges[$index].start)
                    && location < setting!($ranges[$index].end))
            )||+
        };
    }
    // Unrolled, with constant indices: the verifier then reads constants and prunes the empty ones.
    if within!(discard_ranges: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) {
        Place::Discard
    } else if within!(cookie_ranges: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) {
        Place::Cookie
    } else {
        Place::Elsewhere
    }
}
