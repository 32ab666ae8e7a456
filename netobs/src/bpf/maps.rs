//! Typed handles of the maps that `netobs_common::names` lists.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, Queue, RingBuf},
};
use netobs_common::{
    burst::BurstKey,
    connection::{
        AcceptCounts, ConnectCounts, ConnectKey, Connection, Latencies, ListenerKey, Listening,
    },
    event::EventKind,
    ledger::{
        ListenerReading, ProbeCounts, ResetKey, RetransmitCounts, RetransmitKey, ServerPort, Turn,
    },
    names,
    probe::{Program, Relieved},
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
    turns: PerCpuArray<MapData, Turn>,
    retransmits: Counts<RetransmitKey, RetransmitCounts>,
    connects: Counts<ConnectKey, ConnectCounts>,
    accepts: Counts<ListenerKey, AcceptCounts>,
    resets: Counts<ResetKey, u64>,
    connections: HashMap<MapData, u64, Connection>,
    listening: HashMap<MapData, ListenerKey, Listening>,
    wanted: Array<MapData, u64>,
    closed_listeners: Queue<MapData, ListenerReading>,
    server_ports: HashMap<MapData, ServerPort, u32>,
    baselined: Array<MapData, u32>,
    bursts: HashMap<MapData, BurstKey, u64>,
    listeners: OwnedFd,
    connections_fd: OwnedFd,
    dns: Option<DnsMaps>,
    ring: Option<Ring>,
}

/// Most entries taken from one map in one look; a second look takes the rest.
pub(super) const MOST: usize = 65_536;

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ObjectError> {
        let listeners = descriptor(ebpf, names::LISTENERS)?;
        let connections_fd = descriptor(ebpf, names::CONNECTIONS)?;
        Ok(Self {
            probe_counts: typed(ebpf, names::PROBE_COUNTS)?,
            turns: typed(ebpf, names::TURNS)?,
            retransmits: Counts(names::RETRANSMITS, typed(ebpf, names::RETRANSMITS)?),
            connects: Counts(names::CONNECTS, typed(ebpf, names::CONNECTS)?),
            accepts: Counts(names::ACCEPTS, typed(ebpf, names::ACCEPTS)?),
            resets: Counts(names::RESETS, typed(ebpf, names::RESETS)?),
            connections: typed(ebpf, names::CONNECTIONS)?,
            listening: typed(ebpf, names::LISTENING)?,
            wanted: typed(ebpf, names::WANTED)?,
            closed_listeners: typed(ebpf, names::CLOSED_LISTENERS)?,
            server_ports: typed(ebpf, names::SERVER_PORTS)?,
            baselined: typed(ebpf, names::BASELINED)?,
            bursts: typed(ebpf, names::BURSTS)?,
            listeners,
            connections_fd,
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

    pub(super) fn connections_fd(&self) -> BorrowedFd<'_> {
        self.connections_fd.as_fd()
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

    /// How many runs of a program that the kernel skipped another one has taken over.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn stood_in(&self, program: Program) -> Result<u64, MapError> {
        let Some(relieved) = Relieved::of(program) else {
            return Ok(0);
        };
        let per_cpu = self
            .turns
            .get(&(relieved as u32), 0)
            .map_err(|source| error(names::TURNS, "read", source))?;
        Ok(per_cpu.iter().map(|turn| turn.stood_in).sum())
    }

    /// Retransmissions.
    pub fn retransmits(&mut self) -> &mut Counts<RetransmitKey, RetransmitCounts> {
        &mut self.retransmits
    }

    /// Outgoing handshakes.
    pub fn connects(&mut self) -> &mut Counts<ConnectKey, ConnectCounts> {
        &mut self.connects
    }

    /// Waits in accept queues.
    pub fn accepts(&mut self) -> &mut Counts<ListenerKey, AcceptCounts> {
        &mut self.accepts
    }

    /// Resets.
    pub fn resets(&mut self) -> &mut Counts<ResetKey, u64> {
        &mut self.resets
    }

    /// Asks the kernel side for every event of these kinds, not only those that tell of trouble.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn want(&mut self, kinds: &[EventKind]) -> Result<(), MapError> {
        let mask = kinds.iter().fold(0, |mask, kind| mask | 1 << *kind as u32);
        self.wanted
            .set(0, mask, 0)
            .map_err(|source| error(names::WANTED, "write", source))
    }

    /// Tells the kernel side who listens on an address, where it could not see it itself.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; an address on which nothing listens any more is no error.
    pub fn set_listening(
        &mut self,
        key: &ListenerKey,
        owner: netobs_common::owner::Owner,
    ) -> Result<(), MapError> {
        let Ok(known) = self.listening.get(key, 0) else {
            return Ok(());
        };
        let listening = Listening { owner, ..known };
        replace(&mut self.listening, names::LISTENING, key, listening)
    }

    /// Tells the kernel side whose a connection is that is older than the agent.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; a connection that is gone meanwhile is no error.
    pub fn set_connection_owner(
        &mut self,
        sk: u64,
        known: &Connection,
        owner: netobs_common::owner::Owner,
    ) -> Result<(), MapError> {
        let connection = Connection { owner, ..*known };
        replace(&mut self.connections, names::CONNECTIONS, &sk, connection)
    }

    /// Connections that are remembered, at most `most`, by the address of their socket.
    pub fn connections(&self, most: usize) -> impl Iterator<Item = (u64, Connection)> + '_ {
        self.connections.iter().take(most).filter_map(Result::ok)
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
                Err(source) if is_missing(&source) => return Ok(()),
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
                Err(source) if is_missing(&source) => {}
                Err(source) => return Err(error(names::SERVER_PORTS, "delete from", source)),
            }
        }
        Ok(())
    }

    /// Takes the counts of bins before this one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what has been taken until then is in `out`.
    pub fn take_bursts(
        &mut self,
        before: u32,
        out: &mut Vec<(BurstKey, u64)>,
    ) -> Result<(), MapError> {
        let over: Vec<BurstKey> = self
            .bursts
            .keys()
            .take(MOST)
            .filter_map(Result::ok)
            .filter(|key| key.bin < before)
            .collect();
        for key in over {
            let count = self
                .bursts
                .get(&key, 0)
                .map_err(|source| error(names::BURSTS, "read", source))?;
            match self.bursts.remove(&key) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => out.push((key, count)),
                Err(source) => return Err(error(names::BURSTS, "delete from", source)),
            }
        }
        Ok(())
    }

    /// Whether a socket that has retransmitted found no room in the kernel side's map.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn lacked_room(&self) -> Result<bool, MapError> {
        let flag = self.baselined.get(&1, 0);
        flag.map(|flag| flag != 0)
            .map_err(|source| error(names::BASELINED, "read", source))
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

/// Replaces an element; one that is gone is no error.
fn replace<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
    value: V,
) -> Result<(), MapError> {
    /// `BPF_EXIST` of include/uapi/linux/bpf.h: only replace.
    const BPF_EXIST: u64 = 2;
    match map.insert(key, value, BPF_EXIST) {
        Err(source) if !is_missing(&source) => Err(error(name, "write", source)),
        _ => Ok(()),
    }
}

/// A per-CPU hash of counts.
pub struct Counts<K: aya::Pod, C: aya::Pod>(&'static str, PerCpuHashMap<MapData, K, C>);

impl<K: aya::Pod, C: aya::Pod + Sum> Counts<K, C> {
    /// Every key with its counts, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn read(&self) -> Result<Vec<(K, C)>, MapError> {
        self.1
            .iter()
            .take(MOST)
            .map(|entry| {
                let (key, per_cpu) = entry.map_err(|source| error(self.0, "read", source))?;
                let mut sum = C::NOTHING;
                per_cpu.iter().for_each(|cpu| sum.add(cpu));
                Ok((key, sum))
            })
            .collect()
    }

    /// Forgets a key whose series is no longer exported.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; a key that is gone already is no error.
    pub fn forget(&mut self, key: &K) -> Result<(), MapError> {
        match self.1.remove(key) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(source) if is_missing(&source) => Ok(()),
            Err(source) => Err(error(self.0, "delete from", source)),
        }
    }
}

/// Counts that add up over CPUs.
pub trait Sum {
    /// Zeros.
    const NOTHING: Self;
    /// Adds another CPU's.
    fn add(&mut self, other: &Self);
}

impl Sum for u64 {
    const NOTHING: Self = 0;
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

impl Sum for RetransmitCounts {
    const NOTHING: Self = Self {
        segments: 0,
        failures: 0,
        syn_segments: 0,
    };
    fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.failures += other.failures;
        self.syn_segments += other.syn_segments;
    }
}

impl Sum for Latencies {
    const NOTHING: Self = Self::NONE;
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.sum_ns += other.sum_ns;
    }
}

impl Sum for ConnectCounts {
    const NOTHING: Self = Self::NONE;
    fn add(&mut self, other: &Self) {
        self.begun += other.begun;
        self.latency.add(&other.latency);
        for (sum, more) in self.failures.iter_mut().zip(other.failures) {
            *sum += more;
        }
    }
}

impl Sum for AcceptCounts {
    const NOTHING: Self = Self::NONE;
    fn add(&mut self, other: &Self) {
        self.established += other.established;
        self.accepted += other.accepted;
        self.refused_in_time_wait += other.refused_in_time_wait;
        self.latency.add(&other.latency);
    }
}

/// A descriptor of a hash, for an iterator over it.
fn descriptor(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, ObjectError> {
    let Some(Map::HashMap(map)) = ebpf.map(name) else {
        return Err(ObjectError::Map(name));
    };
    let copy = map.fd().as_fd().try_clone_to_owned();
    copy.map_err(|_| ObjectError::Map(name))
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

/// An empty queue, or a key that is gone, answers `ENOENT`, which aya passes on as a system call error.
fn is_missing(error: &aya::maps::MapError) -> bool {
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

impl AsFd for Ring {
    /// Becomes readable, once, when a quarter of the ring begins to wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
