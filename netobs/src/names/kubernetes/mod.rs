//! Names from the Kubernetes API: the pods of this node, listed once and then watched.
//!
//! The API server sends what has changed, from a version on. When it has forgotten that version
//! (status 410) the pods are listed anew. Only pods of this node are asked for
//! (`fieldSelector=spec.nodeName`), and it takes the rights to list and to watch pods.
//!
//! A client library would bring types for all of the API; what is read here are six fields of one
//! object, so it is hyper and serde.

mod access;
mod api;
mod client;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::access::Access;
use self::api::{Event, PodList};
use super::{Backoff, Connect, Error, Source};

/// Largest list. A pod is a few dozen KiB at worst, and a node has a few hundred.
const LIST_BYTES: usize = 32 << 20;
/// Largest object, with room: etcd takes no more than 1.5 MiB.
const EVENT_BYTES: usize = 4 << 20;
/// How long a list may take.
const LIST_PATIENCE: Duration = Duration::from_secs(60);
/// After how long the server is to end a watch; the kubelet and others ask for 5 to 10 minutes.
const WATCH: Duration = Duration::from_secs(300);
/// A watch that nobody ended by then has no other side any more.
const WATCH_PATIENCE: Duration = Duration::from_secs(330);
/// A watch that ends sooner counts as a failure: they must not follow upon each other.
const SHORT: Duration = Duration::from_secs(5);

/// The API server.
trait Server: Connect {
    /// Its host, as in a URL.
    fn host(&self) -> String;
    /// What lets us in.
    fn token(&self) -> Result<String, Error>;
    /// Whose pods are asked for.
    fn node(&self) -> &str;
}

impl Server for Access {
    fn host(&self) -> String {
        self.authority_of_url()
    }

    fn token(&self) -> Result<String, Error> {
        Self::token(self)
    }

    fn node(&self) -> &str {
        Self::node(self)
    }
}

/// Keeps `source` up to date for ever.
pub(super) async fn follow(access: Access, source: Arc<Source>) {
    follow_server(&access, &source).await;
}

async fn follow_server(server: &impl Server, source: &Source) {
    let mut backoff = Backoff::default();
    let mut version = None;
    // Whether a list may be of what the server has at hand.
    let mut cached = true;
    loop {
        let from = match version.take() {
            Some(version) => version,
            None => match list(server, source, cached).await {
                Ok(version) => version,
                Err(error) => {
                    source.failed(&error);
                    sleep(backoff.delay()).await;
                    continue;
                }
            },
        };
        let begun = Instant::now();
        let mut at = from;
        let ended = watch(server, source, &mut at).await;
        if begun.elapsed() >= SHORT {
            backoff.reset();
        }
        match ended {
            Ok(()) => {
                cached = true;
                version = Some(at);
            }
            // Forgotten, so the version is.
            Err(Error::Expired) => cached = false,
            Err(error) => {
                source.failed(&error);
                // It could be of what it goes on from; a list mends that, too.
                version =
                    (!matches!(error, Error::Malformed(_) | Error::TooLarge { .. })).then_some(at);
            }
        }
        if begun.elapsed() < SHORT {
            sleep(backoff.delay()).await;
        }
    }
}

/// Takes all pods of the node; returns the version that a watch goes on from.
async fn list(server: &impl Server, source: &Source, cached: bool) -> Result<String, Error> {
    // Version 0 is whatever the server has at hand: a fleet that starts anew costs it little. What
    // it has at hand can be what was forgotten a moment ago.
    let path = format!(
        "/api/v1/pods?fieldSelector=spec.nodeName%3D{}{}",
        server.node(),
        if cached { "&resourceVersion=0" } else { "" },
    );
    let answer = client::get(server, &path, LIST_PATIENCE).await?;
    let text = answer.whole(LIST_BYTES).await?;
    let list: PodList = serde_json::from_slice(&text).map_err(Error::Malformed)?;
    drop(text);
    let (meta, pods) = list.named();
    source.replace(&pods);
    Ok(meta.resource_version)
}

/// Takes what changes until the server ends the watch, and moves `version` along.
async fn watch(server: &impl Server, source: &Source, version: &mut String) -> Result<(), Error> {
    let path = format!(
        "/api/v1/pods?watch=1&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3D{}\
         &resourceVersion={}&timeoutSeconds={}",
        server.node(),
        encoded(version),
        WATCH.as_secs(),
    );
    let answer = client::get(server, &path, WATCH_PATIENCE).await?;
    source.works();
    let mut lines = answer.lines(EVENT_BYTES);
    while let Some(line) = lines.next().await? {
        match Event::parse(&line).map_err(Error::Malformed)? {
            Event::Applied(pod) => {
                move_to(version, pod.version());
                source.insert(&pod.named());
            }
            Event::Deleted(pod) => {
                move_to(version, pod.version());
                source.remove(pod.key());
            }
            Event::Bookmark(meta) => move_to(version, Some(&meta.resource_version)),
            Event::Error(410) => return Err(Error::Expired),
            Event::Error(status) => return Err(Error::Status { status }),
            Event::Unknown => {}
        }
    }
    Ok(())
}

fn move_to(version: &mut String, to: Option<&str>) {
    if let Some(to) = to.filter(|to| !to.is_empty()) {
        to.clone_into(version);
    }
}

/// A version is any text to us; in practice it is a number.
fn encoded(version: &str) -> String {
    version
        .bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
