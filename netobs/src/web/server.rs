//! Listening, accepting, and stopping in good order.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{sleep, sleep_until, timeout},
};

use super::{
    BindError, Limits, Surface, WebFile,
    connection::{self, stopped},
    gate::Gate,
    limits::Sparingly,
    listen::listen,
    pressure::Pressure,
    routes::Routes,
};

/// How long to leave the kernel alone after a failed accept: out of file descriptors, most likely,
/// which only time heals.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long until another connection is asked to give way, while the one that was asked, if there was
/// one, has not.
const PRESS_AGAIN: Duration = Duration::from_millis(50);

/// What the server needs to know besides its addresses.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the metrics. At `/` they take the place of the landing page.
    pub telemetry_path: String,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// TLS, users, headers and request rate; without it, plain HTTP for anybody.
    pub web_file: Option<Arc<WebFile>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            telemetry_path: "/metrics".to_owned(),
            limits: Limits::default(),
            web_file: None,
        }
    }
}

/// Why a bound server could not serve.
#[derive(Debug, Error)]
#[error("failed to hand the listening socket to the runtime")]
pub struct ServeError(#[from] io::Error);

/// Sockets that listen and do not answer yet: clients that connect wait.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<std::net::TcpListener>,
    options: Options,
}

impl Server {
    /// Listens on all `addresses`. Needs no runtime; meant to be called before anything is
    /// attached to the kernel, so that a port in use ends the start early.
    ///
    /// # Errors
    /// When any address cannot be had. None is kept then.
    pub fn bind(addresses: &[SocketAddr], options: Options) -> Result<Self, BindError> {
        Ok(Self {
            listeners: listen(addresses)?,
            options,
        })
    }

    /// The addresses in use, with the port that the kernel chose where port 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Answers with `surface` until `shutdown` completes, then stops accepting, lets running
    /// answers finish within [`Limits::drain_timeout`] and returns.
    ///
    /// Dropping the future stops at once.
    ///
    /// # Errors
    /// When the runtime refuses a socket; nothing was served then.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O and time drivers on.
    pub async fn serve<F>(self, surface: Arc<dyn Surface>, shutdown: F) -> Result<(), ServeError>
    where
        F: Future<Output = ()>,
    {
        let Options {
            telemetry_path,
            limits,
            web_file,
        } = self.options;
        let listeners: Vec<TcpListener> = self
            .listeners
            .into_iter()
            .map(TcpListener::from_std)
            .collect::<Result<_, _>>()?;
        let front = Arc::new(Front {
            gate: Arc::new(Gate::new(
                Routes::new(surface, telemetry_path, &limits),
                web_file,
                limits.handshakes_per_second,
            )),
            slots: Arc::new(Semaphore::new(limits.connections)),
            pressure: Arc::new(Pressure::default()),
            complaints: Sparingly::default(),
            limits,
        });
        let (stop, stopping) = watch::channel(false);
        let mut doors = JoinSet::new();
        for listener in listeners {
            doors.spawn(Arc::clone(&front).accept(listener, stopping.clone()));
        }
        shutdown.await;
        stop.send_replace(true);
        while let Some(ended) = doors.join_next().await {
            front.note_end(ended);
        }
        Ok(())
    }
}

/// What all listeners share.
struct Front {
    gate: Arc<Gate>,
    slots: Arc<Semaphore>,
    pressure: Arc<Pressure>,
    complaints: Sparingly,
    limits: Limits,
}

impl Front {
    /// Accepts on one listener until told to stop, then drains what it accepted.
    async fn accept(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut waiting: Option<TcpStream> = None;
        let mut press_at = tokio::time::Instant::now();
        let stop_template = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    self.note_end(ended);
                }
                // At most one accepted connection waits for a slot; the others stay with the
                // kernel, which bounds and times them itself.
                Ok(slot) = Arc::clone(&self.slots).acquire_owned(), if waiting.is_some() => {
                    if let Some(stream) = waiting.take() {
                        let served = connection::serve(
                            stream,
                            Arc::clone(&self.gate),
                            self.limits.clone(),
                            Arc::clone(&self.pressure),
                            stop_template.clone(),
                        );
                        connections.spawn(async move {
                            served.await;
                            drop(slot);
                        });
                    }
                }
                () = sleep_until(press_at), if waiting.is_some() => {
                    self.pressure.press();
                    press_at = tokio::time::Instant::now() + PRESS_AGAIN;
                }
                accepted = listener.accept(), if waiting.is_none() => match accepted {
                    Ok((stream, _)) => {
                        waiting = Some(stream);
                        press_at = tokio::time::Instant::now();
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
        drop((listener, waiting));
        let drained = timeout(self.limits.drain_timeout, async {
            while let Some(ended) = connections.join_next().await {
                self.note_end(ended);
            }
        });
        if drained.await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn pause(&self, error: &io::Error) {
        if self.complaints.allows(Instant::now()) {
            tracing::warn!(%error, "failed to accept a connection");
        }
        sleep(ACCEPT_PAUSE).await;
    }

    /// A task that panicked has already lost its connection; say so and go on.
    fn note_end(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
            && self.complaints.allows(Instant::now())
        {
            tracing::error!(%error, "a connection ended in a panic");
        }
    }
}
