//! One connection, from accept to close.

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    Limits,
    deadline::{Pulse, Watched},
    gate::{Gate, Opened},
    pressure::{Awaited, Pressure},
};

/// Least buffer that the HTTP library accepts.
const LEAST_BUFFER_BYTES: usize = 8 * 1024;

/// Serves `stream` until the client, a deadline or `stop` ends it, over TLS if that is asked for.
/// While the client has the next move, `pressure` can ask it to give way to a new one.
///
/// What goes wrong here is the client's doing and ends its connection; there is nobody to tell.
pub(super) async fn serve(
    stream: TcpStream,
    gate: Arc<Gate>,
    limits: Limits,
    pressure: Arc<Pressure>,
    mut stop: watch::Receiver<bool>,
) {
    let Ok(client) = stream.peer_addr().map(|address| address.ip()) else {
        return; // It is gone already.
    };
    let handshake = timeout(limits.header_timeout, gate.handshake(stream, &pressure));
    let opened = tokio::select! {
        biased;
        opened = handshake => opened,
        () = stopped(&mut stop) => return,
    };
    match opened {
        Ok(Some(Opened::Plain(stream))) => {
            answer(stream, client, gate, limits, pressure, stop).await;
        }
        Ok(Some(Opened::Tls(stream))) => {
            answer(*stream, client, gate, limits, pressure, stop).await;
        }
        Ok(None) | Err(_) => {}
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    client: IpAddr,
    gate: Arc<Gate>,
    limits: Limits,
    pressure: Arc<Pressure>,
    mut stop: watch::Receiver<bool>,
) {
    let buffer_bytes = limits.header_bytes.max(LEAST_BUFFER_BYTES);
    let header_bytes = limits.header_bytes;
    let pulse = Arc::new(Pulse::new(limits));
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&pulse)));
    let service = service_fn(|request| {
        pulse.answering();
        let (gate, pulse) = (Arc::clone(&gate), Arc::clone(&pulse));
        async move { Ok::<_, Infallible>(gate.respond(&request, client, pulse).await) }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None) // `Pulse` covers headers, answers and idle time alike.
        .max_header_size(header_bytes)
        .max_buf_size(buffer_bytes)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = false;
    loop {
        let (deadline, awaited) = (pulse.deadline(), pulse.awaited());
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = pulse.changed() => continue,
            () = sleep_until(deadline) => return,
            () = stopped(&mut stop), if !closing => {}
            () = pressure.asked(awaited.unwrap_or(Awaited::Rest)), if awaited.is_some() => {
                // Half a request would be waited for.
                if awaited == Some(Awaited::Rest) {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        closing = true;
    }
}

/// Completes when the server stops, also when it is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
