//! The sockets of a namespace, boiled down to what rules ask for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::audit::snapshot::{Established, Listener, PortUse, Sockets};
use crate::sys::sock_diag::{SockDiagError, StateFlags, TcpInfo, TcpSocket, for_each_tcp};

/// Sockets looked at in one namespace.
const MAX_SOCKETS: usize = 1_000_000;
/// Listeners kept.
const MAX_LISTENERS: usize = 20_000;
/// Destinations kept while counting, and at the end.
const MAX_DESTINATIONS: usize = 200_000;
const TOP_DESTINATIONS: usize = 100;
/// Doublings of the timeout from which a connection counts as stalled: some seconds.
const STALLED_BACKOFF: u8 = 4;

const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const SYN_RECV: u8 = 3;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;

/// Lists the sockets of the calling thread's namespace. `range` is `ip_local_port_range`.
pub(super) fn sockets(range: Option<(u16, u16)>) -> Result<Sockets, SockDiagError> {
    let mut tally = Tally {
        range,
        ..Tally::default()
    };
    for_each_tcp(&StateFlags::LISTEN, false, |socket| tally.listener(&socket))?;
    let mut rest = StateFlags::all();
    rest.remove(StateFlags::LISTEN | StateFlags::CLOSE);
    for_each_tcp(&rest, true, |socket| tally.connection(&socket))?;
    Ok(tally.finish())
}

/// Lists the listeners alone: for the start of a window.
pub(super) fn listeners() -> Result<Vec<Listener>, SockDiagError> {
    let mut tally = Tally::default();
    for_each_tcp(&StateFlags::LISTEN, false, |socket| tally.listener(&socket))?;
    Ok(tally.result.listeners)
}

#[derive(Default)]
struct Tally {
    range: Option<(u16, u16)>,
    result: Sockets,
    /// (local address, destination) to ports in use and those in `TIME_WAIT`.
    use_: HashMap<(IpAddr, SocketAddr), (u32, u32)>,
    /// Handshakes by local address and port.
    handshakes: HashMap<SocketAddr, u32>,
    seen: usize,
}

impl Tally {
    fn listener(&mut self, socket: &TcpSocket) -> bool {
        if self.result.listeners.len() == MAX_LISTENERS {
            self.result.truncated = true;
            return false;
        }
        if socket.state == LISTEN {
            self.result.listeners.push(Listener {
                address: socket.local.ip(),
                port: socket.local.port(),
                uid: socket.uid,
                inode: socket.inode,
                process: None,
                queue: socket.recv_queue,
                limit: socket.send_queue,
                syn_queue: 0,
                asked: None,
                drops_first: None,
                drops: socket.drops.unwrap_or(0),
            });
        }
        true
    }

    fn connection(&mut self, socket: &TcpSocket) -> bool {
        self.seen += 1;
        if self.seen > MAX_SOCKETS {
            self.result.truncated = true;
            return false;
        }
        match socket.state {
            SYN_RECV | NEW_SYN_RECV => {
                let count = self.handshakes.entry(socket.local).or_insert(0);
                *count = count.saturating_add(1);
                return true;
            }
            ESTABLISHED => established(&mut self.result.established, socket.info),
            TIME_WAIT => {
                let count = &mut self.result.established.time_wait;
                *count = count.saturating_add(1);
            }
            _ => {}
        }
        let local = self
            .range
            .is_some_and(|(low, high)| (low..=high).contains(&socket.local.port()));
        if local {
            let key = (socket.local.ip(), socket.remote);
            if self.use_.len() < MAX_DESTINATIONS || self.use_.contains_key(&key) {
                let (ports, waiting) = self.use_.entry(key).or_insert((0, 0));
                *ports = ports.saturating_add(1);
                *waiting = waiting.saturating_add(u32::from(socket.state == TIME_WAIT));
            } else {
                self.result.truncated = true;
            }
        }
        true
    }

    fn finish(mut self) -> Sockets {
        for listener in &mut self.result.listeners {
            listener.syn_queue = self
                .handshakes
                .iter()
                .filter(|(at, _)| serves(listener, at))
                .map(|(_, count)| *count)
                .fold(0, u32::saturating_add);
        }
        let mut port_use: Vec<PortUse> = self
            .use_
            .into_iter()
            .map(|((source, destination), (ports, time_wait))| PortUse {
                source,
                destination,
                ports,
                time_wait,
            })
            .collect();
        port_use.sort_by_key(|u| (std::cmp::Reverse(u.ports), u.destination, u.source));
        port_use.truncate(TOP_DESTINATIONS);
        self.result.port_use = port_use;
        self.result
    }
}

/// Whether a handshake at `at` can be this listener's: its port, and its address or any. With
/// several listeners on one port each is given all of them: an upper bound.
fn serves(listener: &Listener, at: &SocketAddr) -> bool {
    listener.port == at.port() && (listener.address.is_unspecified() || listener.address == at.ip())
}

fn established(sum: &mut Established, info: Option<TcpInfo>) {
    let Some(info) = info else { return };
    sum.count = sum.count.saturating_add(1);
    let missing = |option: u8| u32::from(info.options & option == 0);
    sum.without_timestamps = sum
        .without_timestamps
        .saturating_add(missing(TcpInfo::TIMESTAMPS));
    sum.without_window_scaling = sum
        .without_window_scaling
        .saturating_add(missing(TcpInfo::WINDOW_SCALING));
    // A tenth of the sending time, once there was a second of it.
    if let (Some(busy), Some(limited)) = (info.busy_us, info.sndbuf_limited_us)
        && busy >= 1_000_000
        && limited.saturating_mul(10) >= busy
    {
        sum.send_buffer_limited = sum.send_buffer_limited.saturating_add(1);
    }
    // An idle peer that is gone stalls as well; small segments rule out the path MTU.
    if info.backoff >= STALLED_BACKOFF
        && info.unacked > 0
        && info.snd_mss.saturating_add(100) > info.pmtu
    {
        sum.stalled = sum.stalled.saturating_add(1);
    }
    let product = u128::from(info.delivery_rate.unwrap_or(0)) * u128::from(info.rtt_us) / 1_000_000;
    sum.largest_bdp_bytes = sum
        .largest_bdp_bytes
        .max(u64::try_from(product).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::{Tally, established};
    use crate::audit::snapshot::Established;
    use crate::sys::sock_diag::{TcpInfo, TcpSocket};

    fn socket(state: u8, local: &str, remote: &str) -> TcpSocket {
        TcpSocket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            recv_queue: 3,
            send_queue: 16,
            uid: 0,
            inode: 7,
            cookie: 1,
            drops: Some(9),
            info: None,
        }
    }

    #[test]
    fn sockets_are_counted_by_listener_and_destination() {
        let mut tally = Tally {
            range: Some((1000, 2000)),
            ..Tally::default()
        };
        assert!(tally.listener(&socket(10, "0.0.0.0:80", "0.0.0.0:0")));
        for (state, local, remote) in [
            (12, "10.0.0.1:80", "10.9.9.9:5"),
            (3, "10.0.0.1:81", "10.9.9.9:5"),
            (1, "10.0.0.1:1000", "10.0.0.2:443"),
            (6, "10.0.0.1:1001", "10.0.0.2:443"),
            (1, "10.0.0.1:1002", "10.0.0.3:443"),
            (1, "10.0.0.1:2001", "10.0.0.2:443"),
        ] {
            assert!(tally.connection(&socket(state, local, remote)));
        }
        let sockets = tally.finish();
        let listener = &sockets.listeners[0];
        assert_eq!((listener.queue, listener.limit, listener.drops), (3, 16, 9));
        assert_eq!(listener.syn_queue, 1);
        let used: Vec<_> = sockets
            .port_use
            .iter()
            .map(|u| (u.ports, u.time_wait))
            .collect();
        assert_eq!(used, [(2, 1), (1, 0)]);
        assert_eq!(sockets.established.time_wait, 1);
    }

    #[test]
    fn connections_are_summed_up() {
        let mut sum = Established::default();
        established(&mut sum, None);
        established(
            &mut sum,
            Some(TcpInfo {
                backoff: 5,
                options: TcpInfo::WINDOW_SCALING,
                snd_mss: 1448,
                unacked: 3,
                pmtu: 1500,
                rtt_us: 50_000,
                delivery_rate: Some(100_000_000),
                busy_us: Some(10_000_000),
                sndbuf_limited_us: Some(1_000_000),
            }),
        );
        let want = Established {
            count: 1,
            without_timestamps: 1,
            without_window_scaling: 0,
            send_buffer_limited: 1,
            stalled: 1,
            largest_bdp_bytes: 5_000_000,
            time_wait: 0,
        };
        assert_eq!(sum, want);
    }
}
