//! Connections whose end no program was run for: they would stay for ever.
//!
//! No kernel of the usual distributions skips `tcp_destroy_sock`, which fires with softirqs off and is not
//! nested in itself; one was seen that does (ARCHITECTURE.md, "Runs that the kernel would skip").
//!
//! kernel: kernel/bpf/map_iter.c `bpf_iter__bpf_map_elem`, over the `CONNECTIONS` map.
//! cost: two reads per connection that is there, when the agent asks, once a minute or more rarely;
//! nothing in between.

use netobs_common::{
    connection::Connection,
    kernel::TCP_CLOSE,
    probe::{Loss, Program},
};

use crate::{
    emit::{Handled, finish},
    kread::{Probed, Sock},
    maps::CONNECTIONS,
    retransmits,
};

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
struct IterMapElem {
    meta: *const u8,
    map: *const u8,
    key: *const u64,
    value: *const Connection,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
fn gone_sockets(ctx: *mut core::ffi::c_void) -> i32 {
    finish(Program::GoneSockets, try_gone_sockets(ctx.cast()));
    0
}

#[allow(
    clippy::manual_unwrap_or,
    clippy::manual_unwrap_or_default,
    reason = "of closures the compiler makes comparisons with registers that the verifier finds unset"
)]
#[inline(always)]
fn try_gone_sockets(ctx: *const IterMapElem) -> Result<Handled, Loss> {
    // SAFETY: the context of an `iter/bpf_map_elem` program.
    let (key, value) = unsafe { ((*ctx).key, (*ctx).value) };
    if key.is_null() || value.is_null() {
        return Ok(Handled::NotOurs); // the end
    }
    // SAFETY: not null; the verifier holds the size against the map's when it is attached. `Probed`
    // reads memory safely, whatever is there now.
    let (sock, connection) = unsafe { (Sock::<Probed>::new(*key as *const u8), *value) };
    // What cannot be read is no socket.
    let references = match sock.references() {
        Ok(references) => references,
        Err(_) => 0,
    };
    let peer = match sock.peer() {
        Ok(peer) => peer,
        Err(_) => !connection.peer,
    };
    let (is_gone, is_itself) = (references == 0, peer == connection.peer);
    if !is_gone && is_itself {
        return Ok(Handled::NotOurs);
    }
    // Its end was not seen: that would have taken it out before the last reference went. Whoever takes it
    // out settles.
    if CONNECTIONS.remove(sock.address()).is_err() {
        return Ok(Handled::NotOurs);
    }
    // Memory of sockets is not cleared when it is given back.
    let is_whole = is_gone && is_itself && sock.state()? == TCP_CLOSE;
    retransmits::settle_gone(sock, &connection, is_whole).map(|()| Handled::Event)
}
