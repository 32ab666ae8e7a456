//! Name lookups: queries to UDP port 53 and their answers, of every socket of every container.
//!
//! kernel: net/ipv4/ip_output.c `ip_finish_output`, net/ipv6/ip6_output.c `ip6_finish_output` and
//! net/core/filter.c `sk_filter_trim_cap`, which run the programs of the socket's cgroup and of all
//! above it: `skb->data` is at the IP header, and `skb->sk` is the socket.
//! cost: every packet of every socket passes here. Of one that is not UDP: one comparison of its
//! length, its version, its protocol.
//! blind: TCP, TLS and HTTPS; IPv6 packets with extension headers; packets that are only forwarded;
//! queries of unconnected sockets that are sent to another port than 53 by address translation in
//! their own namespace.
//!
//! A program here decides over packets, too: it says yes to each.

use aya_ebpf::{
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use netobs_common::{
    dns::{DNS_PORT, LookupKey},
    event::Endpoints,
    kernel::UNIFIED_CGROUP,
    owner::OwnerKey,
    probe::{Loss, Program},
};

use crate::{
    emit::{Handled, finish},
    kread::{Net, Sock},
    lookups::{self, Question},
    maps::setting,
    owner,
};

/// Let the packet through.
const PASS: i32 = 1;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// `AF_INET` and `AF_INET6`.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Length of an IP header without options, of version 4 and 6.
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Length of a UDP header and of a DNS message's header.
const UDP_BYTES: usize = 8;
const DNS_BYTES: usize = 12;
/// Flags of a DNS message: it is a response; which kind of request it is about.
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;

#[cgroup_skb(egress)]
fn dns_egress(ctx: SkBuffContext) -> i32 {
    if let Some(message) = udp(&ctx).and_then(|at| message(&ctx, at))
        && (message.destination == DNS_PORT || message.connected_to() == DNS_PORT)
    {
        finish(
            Program::Dns,
            try_query(&ctx, &message).map(|()| Handled::Event),
        );
    }
    PASS
}

#[cgroup_skb(ingress)]
fn dns_ingress(ctx: SkBuffContext) -> i32 {
    if let Some(message) = udp(&ctx).and_then(|at| message(&ctx, at))
        && message.source == DNS_PORT
    {
        finish(
            Program::Dns,
            try_answer(&ctx, &message).map(|()| Handled::Event),
        );
    }
    PASS
}

/// Where the UDP header of a packet begins; `None` when it has none.
#[inline(always)]
fn udp(ctx: &SkBuffContext) -> Option<usize> {
    // SAFETY: fields of the context.
    let (data, end) = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    if data + IPV4_BYTES > end {
        return None;
    }
    // SAFETY: the packet has that many bytes, as the verifier saw.
    let (first, next_v4, next_v6) = unsafe {
        let byte = |at: usize| core::ptr::read_volatile((data + at) as *const u8);
        let first = byte(0);
        match first >> 4 {
            4 => (first, byte(9), 0),
            6 => (first, 0, byte(6)),
            _ => return None,
        }
    };
    if next_v4 == UDP {
        Some(usize::from(first & 0x0f) * 4)
    } else if next_v6 == UDP {
        Some(IPV6_BYTES)
    } else {
        None
    }
}

/// The socket of a packet, and what DNS needs of its headers.
struct Message {
    /// Where the UDP header begins.
    at: usize,
    socket: *mut aya_ebpf::bindings::bpf_sock,
    source: u16,
    destination: u16,
}

#[inline(always)]
fn message(ctx: &SkBuffContext, at: usize) -> Option<Message> {
    let [source, destination]: [u16; 2] = ctx.load(at).ok()?;
    // SAFETY: a field of the context.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    Some(Message {
        at,
        socket,
        source: u16::from_be(source),
        destination: u16::from_be(destination),
    })
}

impl Message {
    /// The port that the socket is connected to, 0 when it is not. Address translation in its own
    /// namespace has not changed it.
    #[inline(always)]
    fn connected_to(&self) -> u16 {
        // SAFETY: a field of a socket that the verifier tracks.
        u16::from_be(unsafe { core::ptr::read_volatile(&raw const (*self.socket).dst_port) })
    }

    #[inline(always)]
    fn net(&self) -> Result<Net, Loss> {
        Sock::of_bpf_sock(self.socket.cast_const().cast())?.net()
    }
}

/// Id, flags and number of answers of a DNS message.
struct Header {
    id: u16,
    flags: u16,
    answers: u16,
}

#[inline(always)]
fn header(ctx: &SkBuffContext, at: usize) -> Option<Header> {
    let [id, flags, _, answers, _, _]: [u16; 6] = ctx.load(at + UDP_BYTES).ok()?;
    Some(Header {
        id: u16::from_be(id),
        flags: u16::from_be(flags),
        answers: u16::from_be(answers),
    })
}

#[inline(always)]
fn key(ctx: &SkBuffContext, id: u16) -> LookupKey {
    LookupKey {
        // SAFETY: the context of a program of this type.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
        id: id.into(),
        reserved: 0,
    }
}

#[inline(always)]
fn cgroup(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the context of a program of this type.
    unsafe { bpf_skb_cgroup_id(ctx.skb.skb) }
}

/// Messages that are no standard query have their event counted, and nothing else.
#[inline(always)]
fn try_query(ctx: &SkBuffContext, message: &Message) -> Result<(), Loss> {
    // A socket sends in its process's context, so `current` is who asks.
    let owner = owner::sender(cgroup(ctx), message.net()?)?;
    let Some(header) = header(ctx, message.at) else {
        return lookups::malformed(&owner.key());
    };
    if header.flags & (QR | OPCODE) != 0 {
        return Ok(());
    }
    let question = Question {
        at: message.at + UDP_BYTES + DNS_BYTES,
        id: header.id,
    };
    let ends = |ends: &mut Endpoints| {
        (ends.local_port, ends.remote_port) = (message.source, message.destination);
        addresses(ctx, ends)
    };
    lookups::ask(ctx, &key(ctx, header.id), &owner, &question, ends)
}

/// Fills in the addresses of an outgoing packet.
#[inline(always)]
fn addresses(ctx: &SkBuffContext, ends: &mut Endpoints) -> Result<(), Loss> {
    let unreadable = |_| Loss::Unreadable;
    let version: u8 = ctx.load(0).map_err(unreadable)?;
    if version >> 4 == 6 {
        ends.family = AF_INET6;
        ends.local_address = ctx.load(8).map_err(unreadable)?;
        ends.remote_address = ctx.load(24).map_err(unreadable)?;
    } else {
        ends.family = AF_INET;
        let [local, remote]: [[u8; 4]; 2] = ctx.load(12).map_err(unreadable)?;
        ends.local_address[..4].copy_from_slice(&local);
        ends.remote_address[..4].copy_from_slice(&remote);
    }
    Ok(())
}

#[inline(always)]
fn try_answer(ctx: &SkBuffContext, message: &Message) -> Result<(), Loss> {
    // An interrupt brings it: whose it is, is known from the query, else by the socket only.
    let net = message.net()?;
    let nobody = OwnerKey {
        cgroup: if setting!(cgroup_subsystem) == UNIFIED_CGROUP {
            cgroup(ctx)
        } else {
            0
        },
        net: net.identity,
        netns: net.number,
        reserved: 0,
        comm: [0; 16],
    };
    let Some(header) = header(ctx, message.at) else {
        return lookups::malformed(&nobody);
    };
    if header.flags & QR == 0 || header.flags & OPCODE != 0 {
        return Ok(());
    }
    let answer = lookups::Answer {
        flags: header.flags,
        answers: header.answers,
    };
    lookups::answered(&key(ctx, header.id), &nobody, answer)
}
