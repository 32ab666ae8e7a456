//! The thread that asks.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Error, Names, Settings, cri, kubernetes, source::Source};

/// The sources, ready to be asked.
pub struct Resolver {
    settings: Settings,
    runtime: Runtime,
    names: Names,
}

/// The sources being asked; it ends when this is dropped.
#[derive(Debug)]
pub struct Naming {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Makes ready what the settings name; nothing when they name none. To be called before rights
    /// are given up.
    ///
    /// # Errors
    /// When the system refuses what it takes to wait for answers.
    pub fn prepare(settings: Settings) -> Result<Option<Self>, Error> {
        let sources = [
            settings.cri_socket.is_some().then_some("cri"),
            settings.kubernetes.is_some().then_some("kubernetes"),
        ];
        let names = Names {
            sources: sources
                .into_iter()
                .flatten()
                .map(|name| Arc::new(Source::new(name)))
                .collect(),
        };
        if names.sources.is_empty() {
            return Ok(None);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            // For the name of the API server, where it is none of an address.
            .max_blocking_threads(1)
            .build()
            .map_err(Error::Thread)?;
        Ok(Some(Self {
            settings,
            runtime,
            names,
        }))
    }

    /// What will be known.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// Begins to ask.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(self) -> Result<Naming, Error> {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || self.run(stopped))
            .map_err(Error::Thread)?;
        Ok(Naming {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn run(self, stopped: oneshot::Receiver<()>) {
        let mut sources = self.names.sources.into_iter();
        let settings = self.settings;
        self.runtime.block_on(async move {
            let mut following = JoinSet::new();
            if let Some(path) = settings.cri_socket
                && let Some(source) = sources.next()
            {
                following.spawn(cri::follow(cri::Socket(path), source));
            }
            if let Some(access) = settings.kubernetes
                && let Some(source) = sources.next()
            {
                following.spawn(kubernetes::follow(access, source));
            }
            // Sent or dropped, both mean stop.
            let _ = stopped.await;
        });
        self.runtime.shutdown_background();
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by then.
            let _ = thread.join();
        }
    }
}
