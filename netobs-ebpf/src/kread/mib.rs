//! The kernel's own counters of /proc/net/netstat, on this CPU.

use netobs_common::{offsets::Offset, probe::Loss};

use super::{Access, Sock, probe, read};
use crate::maps::{DISPLACEMENT, offset, setting};

/// What to add to a per-CPU pointer of the kernel to get this CPU's address.
///
/// The element of a per-CPU array lies at the array's per-CPU pointer plus just that, so the
/// difference of the two tells it, without the kernel's symbols and whatever `kptr_restrict` says.
#[inline(always)]
fn displacement() -> Result<u64, Loss> {
    let place = DISPLACEMENT.get_ptr_mut(0).ok_or(Loss::MapFull)?;
    // SAFETY: a live element that belongs to this CPU. An interrupt that comes in between writes
    // the same values: `laundry` is read back at once into each, and both are compared below.
    unsafe {
        if (*place).known != 0 {
            return Ok((*place).offset);
        }
        let element = launder(place.cast(), &raw mut (*place).laundry);
        let map = launder(
            (&raw const DISPLACEMENT).cast::<u8>(),
            &raw mut (*place).laundry,
        );
        let per_cpu: u64 = probe(map as *const u8, Offset::ArrayPerCpu)?;
        (*place).offset = element.wrapping_sub(per_cpu);
        (*place).known = 1;
        Ok((*place).offset)
    }
}

/// Makes a number of a pointer that the verifier would not let us calculate with.
///
/// # Safety
///
/// `laundry` must be in a live map element of this CPU.
#[inline(always)]
unsafe fn launder(pointer: *const u8, laundry: *mut u64) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        core::ptr::write_volatile(laundry.cast::<*const u8>(), pointer);
        core::ptr::read_volatile(laundry)
    }
}

/// This CPU's `struct linux_mib` of a namespace: the counters of /proc/net/netstat.
#[derive(Clone, Copy)]
pub(crate) struct Mib(u64);

impl Mib {
    /// The counters of the namespace of `sock`, on this CPU.
    #[inline(always)]
    pub(crate) fn of<A: Access>(sock: Sock<A>) -> Result<Self, Loss> {
        let place = DISPLACEMENT.get_ptr_mut(0).ok_or(Loss::MapFull)?;
        let pointer = sock.per_cpu_statistics()?;
        // SAFETY: a live element of this CPU; read back at once.
        let pointer = unsafe { launder(pointer, &raw mut (*place).laundry) };
        let counters = offset(Offset::MibCounters) as u64;
        Ok(Self(pointer + displacement()? + counters))
    }

    /// The counters at an address that [`Mib::address`] gave.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address)
    }

    /// Its address, to keep.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0
    }

    /// ListenOverflows and ListenDrops, which are neighbours.
    #[inline(always)]
    pub(crate) fn listen(self) -> Result<[u64; 2], Loss> {
        self.read(setting!(mib_listen))
    }

    /// SyncookiesSent, SyncookiesRecv and SyncookiesFailed, which are neighbours.
    #[inline(always)]
    pub(crate) fn cookies(self) -> Result<[u64; 3], Loss> {
        self.read(setting!(mib_cookies))
    }

    /// TCPReqQFullDrop.
    #[inline(always)]
    pub(crate) fn syn_queue_full(self) -> Result<u64, Loss> {
        self.read(setting!(mib_syn_queue_full))
    }

    #[inline(always)]
    fn read<T: Copy>(self, at: u32) -> Result<T, Loss> {
        read((self.0 + u64::from(at)) as *const u8)
    }
}
