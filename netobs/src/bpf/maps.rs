//! Typed handles of the maps that `netobs_common::names` lists.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, Queue, RingBuf},
};
use netobs_common::{
    ledger::{ListenerReading, ProbeCounts, RetransmitCounts, RetransmitKey, ServerPort},
    names,
    probe::Program,
};
use thiserror::Error;

use super::{dns::DnsMaps, object::ObjectError};

/// A map could not be read or written.
#[derive(Debug, Error)]
#[error("failed to {operation} map {name}")]
pub struct MapError {
    name: &'static str,
    operation: &'static str,
    source: aya::maps::MapError,
}

/// Every map that the agent uses, except the ring.
pub struct Maps {
    probe_counts: PerCpuArray<MapData, ProbeCounts>,
    retransmits: PerCpuHashMap<MapData, RetransmitKey, RetransmitCounts>,
    closed_listeners: Queue<MapData, ListenerReading>,
    server_ports: HashMap<MapData, ServerPort, u32>,
    baselined: Array<MapData, u32>,
    listeners: OwnedFd,
    dns: Option<DnsMaps>,
    ring: Option<Ring>,
}

/// Most entries taken from one map in one look; a second look takes the rest.
pub(super) const MOST: usize = 65_536;

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ObjectError> {
        let Some(Map::HashMap(listeners)) = ebpf.map(names::LISTENERS) else {
            return Err(ObjectError::Map(names::LISTENERS));
        };
        let listeners = listeners
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|_| ObjectError::Map(names::LISTENERS))?;
        Ok(Self {
            probe_counts: typed(ebpf, names::PROBE_COUNTS)?,
            retransmits: typed(ebpf, names::RETRANSMITS)?,
            closed_listeners: typed(ebpf, names::CLOSED_LISTENERS)?,
            server_ports: typed(ebpf, names::SERVER_PORTS)?,
            baselined: typed(ebpf, names::BASELINED)?,
            listeners,
            dns: Some(DnsMaps::take(ebpf)?),
            ring: Some(Ring(typed(ebpf, names::EVENTS)?)),
        })
    }

    /// The event ring; can be taken once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// The maps of the probe `dns`; can be taken once.
    pub fn take_dns(&mut self) -> Option<DnsMaps> {
        self.dns.take()
    }

    pub(super) fn listeners_fd(&self) -> BorrowedFd<'_> {
        self.listeners.as_fd()
    }

    /// What a program did and lost, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn probe_counts(&self, program: Program) -> Result<ProbeCounts, MapError> {
        let per_cpu = self
            .probe_counts
            .get(&(program as u32), 0)
            .map_err(|source| error(names::PROBE_COUNTS, "read", source))?;
        Ok(per_cpu.iter().fold(ProbeCounts::default(), |mut sum, cpu| {
            sum.events += cpu.events;
            for (total, lost) in sum.lost.iter_mut().zip(cpu.lost) {
                *total += lost;
            }
            sum
        }))
    }

    /// Retransmissions by key, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn retransmits(&self) -> Result<Vec<(RetransmitKey, RetransmitCounts)>, MapError> {
        self.retransmits
            .iter()
            .take(MOST)
            .map(|entry| {
                let (key, per_cpu) =
                    entry.map_err(|source| error(names::RETRANSMITS, "read", source))?;
                let sum = per_cpu
                    .iter()
                    .fold(RetransmitCounts::default(), |sum, cpu| RetransmitCounts {
                        segments: sum.segments + cpu.segments,
                        failures: sum.failures + cpu.failures,
                        syn_segments: sum.syn_segments + cpu.syn_segments,
                    });
                Ok((key, sum))
            })
            .collect()
    }

    /// Forgets a key whose series is no longer exported.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; a key that is gone already is no error.
    pub fn forget_retransmits(&mut self, key: &RetransmitKey) -> Result<(), MapError> {
        match self.retransmits.remove(key) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(error(names::RETRANSMITS, "delete from", source)),
        }
    }

    /// Takes the final readings of listeners that have gone since the last call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn take_closed_listeners(
        &mut self,
        out: &mut Vec<ListenerReading>,
    ) -> Result<(), MapError> {
        for _ in 0..MOST {
            match self.closed_listeners.pop(0) {
                Ok(reading) => out.push(reading),
                Err(aya::maps::MapError::ElementNotFound | aya::maps::MapError::KeyNotFound) => {
                    return Ok(());
                }
                Err(source) if is_empty(&source) => return Ok(()),
                Err(source) => return Err(error(names::CLOSED_LISTENERS, "pop from", source)),
            }
        }
        Ok(())
    }

    /// Forgets the server ports of a namespace that is gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget_server_ports(&mut self, netns: u32) -> Result<(), MapError> {
        let gone: Vec<ServerPort> = self
            .server_ports
            .keys()
            .take(MOST)
            .filter_map(Result::ok)
            .filter(|port| port.netns == netns)
            .collect();
        for port in gone {
            match self.server_ports.remove(&port) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(source) => return Err(error(names::SERVER_PORTS, "delete from", source)),
            }
        }
        Ok(())
    }

    /// Tells the kernel side that every socket that existed before has been seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_baselined(&mut self) -> Result<(), MapError> {
        self.baselined
            .set(0, 1, 0)
            .map_err(|source| error(names::BASELINED, "write", source))
    }
}

/// Takes a map out of the object, as the type that the contract says.
pub(super) fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, ObjectError> {
    let map = ebpf.take_map(name).ok_or(ObjectError::Map(name))?;
    T::try_from(map).map_err(|source| ObjectError::MapType { name, source })
}

pub(super) fn error(
    name: &'static str,
    operation: &'static str,
    source: aya::maps::MapError,
) -> MapError {
    MapError {
        name,
        operation,
        source,
    }
}

/// An empty queue answers `ENOENT`, which aya passes on as a system call error.
fn is_empty(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::SyscallError(call)
        if call.io_error.raw_os_error() == Some(libc::ENOENT))
}

/// The event ring.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// Hands every waiting record to `visit`, and returns how many there were.
    pub fn drain(&mut self, mut visit: impl FnMut(&[u8])) -> u64 {
        let mut records = 0;
        while let Some(record) = self.0.next() {
            visit(&record);
            records += 1;
        }
        records
    }
}

impl AsRawFd for Ring {
    /// Becomes readable when a quarter of the ring waits.
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
