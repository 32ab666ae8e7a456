//! One TCP connection, by hand: the port is bound before the SYN goes out, so that the kernel's
//! events can be told apart from those of others, and the socket outlives a failure for as long as
//! it takes to ask the kernel what it did.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    cause::ErrorType,
    course::Course,
    kernel::Ends,
    outcome::{Connection, Transport},
};
use crate::sys::tcp_info::TcpInfo;

/// Connects to `remote`, at most until `until`. The stream is `None` when there is none; the reason
/// stands in the first part.
pub(super) async fn open(
    course: &Course<'_>,
    remote: SocketAddr,
    until: Instant,
) -> (Connection, Option<TcpStream>) {
    let mut attempt = Connection {
        local: None,
        remote,
        start: course.now(),
        length: Duration::ZERO,
        error_type: None,
        syns_sent: None,
        retransmits_after: None,
        rtt: None,
    };
    let result = try_open(course, &mut attempt, until).await;
    attempt.length = course.now().saturating_sub(attempt.start);
    match result {
        Ok(stream) => (attempt, Some(stream)),
        Err(error) => {
            attempt.error_type = Some(ErrorType::of_io(&error));
            (attempt, None)
        }
    }
}

async fn try_open(
    course: &Course<'_>,
    attempt: &mut Connection,
    until: Instant,
) -> io::Result<TcpStream> {
    let remote = attempt.remote;
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    // What is measured is the first packet, not how long it waits for a fuller one.
    socket.set_tcp_nodelay(true)?;
    attempt.local = socket.local_addr()?.as_socket();
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The address is chosen by the route when connecting; the port is known from here on.
    socket.bind(&SocketAddr::new(any, 0).into())?;
    attempt.local = socket.local_addr()?.as_socket();
    if let Some(local) = attempt.local {
        course.kernel.watch(Ends {
            local,
            remote,
            transport: Transport::Tcp,
        });
    }
    attempt.start = course.now();
    match socket.connect(&remote.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    attempt.local = socket.local_addr()?.as_socket();
    let stream = TcpStream::from_std(socket.into())?;
    let ready = timeout_at(until, stream.writable()).await;
    let result = match ready {
        Ok(Ok(())) => stream
            .take_error()
            .and_then(|error| error.map_or(Ok(()), Err)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Ok(info) = TcpInfo::of(&stream) {
        attempt.syns_sent = info.total_retransmits.checked_add(1);
        attempt.rtt = result.is_ok().then_some(info.rtt);
    }
    result.map(|()| stream)
}

/// Completes what is known of a connection with what the kernel says at its end.
pub(super) fn close(attempt: &mut Connection, info: TcpInfo) {
    let syns = attempt.syns_sent.unwrap_or(1);
    attempt.retransmits_after = Some(
        info.total_retransmits
            .saturating_sub(syns.saturating_sub(1)),
    );
    if !info.rtt.is_zero() {
        attempt.rtt = Some(info.rtt);
    }
}
