//! Names from the container runtime, through the socket that the kubelet uses.
//!
//! The runtime is asked every ten seconds, and sooner when a name is missing: two calls over a new
//! connection, so that a runtime that was restarted is not noticed. Its stream of events
//! (`GetContainerEvents`) is not used: many runtimes hand each event to one of those that listen,
//! and the kubelet may be another (containerd/containerd#7318, cri-o/cri-o#6466).

mod client;
mod proto;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::client::Lists;
use super::{Backoff, Connect, Error, Source, table::Pod};
use crate::sys::cgroup::{ContainerId, PodUid};

/// How often the runtime is asked anyway.
const INTERVAL: Duration = Duration::from_secs(10);
/// The least time from one question to the next.
const SPACING: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtime's socket.
#[derive(Debug)]
pub(super) struct Socket(pub(super) PathBuf);

impl Connect for Socket {
    type Io = UnixStream;

    async fn connect(&self) -> Result<UnixStream, Error> {
        UnixStream::connect(&self.0)
            .await
            .map_err(|source| Error::Connect {
                to: self.0.display().to_string(),
                source,
            })
    }
}

/// Keeps `source` up to date for ever.
pub(super) async fn follow(socket: impl Connect, source: Arc<Source>) {
    let mut backoff = Backoff::default();
    loop {
        let asked = Instant::now();
        let answer = timeout(PATIENCE, async {
            client::lists(socket.connect().await?).await
        });
        match answer.await.unwrap_or(Err(Error::TimedOut)) {
            Ok(lists) => {
                source.replace(&pods(&lists));
                backoff.reset();
                sleep_until(asked + SPACING).await;
                tokio::select! {
                    () = sleep_until(asked + INTERVAL) => {}
                    () = source.wanted() => {}
                }
            }
            Err(error) => {
                source.failed(&error);
                sleep(backoff.delay()).await;
            }
        }
    }
}

/// Puts sandboxes and their containers together.
fn pods(lists: &Lists) -> Vec<Pod> {
    let mut pods: Vec<Pod> = Vec::with_capacity(lists.sandboxes.items.len());
    let mut by_sandbox = std::collections::HashMap::new();
    for sandbox in &lists.sandboxes.items {
        let Some(metadata) = &sandbox.metadata else {
            continue;
        };
        by_sandbox.insert(sandbox.id.as_str(), pods.len());
        pods.push(Pod {
            key: sandbox.id.clone(),
            uid: PodUid::parse(&metadata.uid),
            sandbox: ContainerId::from_hex(&sandbox.id),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            containers: Vec::new(),
        });
    }
    for container in &lists.containers.containers {
        let pod = by_sandbox
            .get(container.pod_sandbox_id.as_str())
            .and_then(|at| pods.get_mut(*at));
        let id = ContainerId::from_hex(&container.id);
        if let (Some(pod), Some(id), Some(metadata)) = (pod, id, &container.metadata) {
            pod.containers.push((id, metadata.name.clone()));
        }
    }
    pods
}
