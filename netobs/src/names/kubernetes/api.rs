//! What is read of the API's objects (k8s.io/api/core/v1). Everything else in them is skipped.

use serde::Deserialize;

use crate::names::table::Pod as Named;
use crate::sys::cgroup::{ContainerId, PodUid};

/// A list of pods.
#[derive(Debug, Deserialize)]
pub(super) struct PodList {
    pub(super) metadata: ListMeta,
    items: Option<Vec<Pod>>,
}

/// Where a watch goes on from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
}

/// What a line of a watch is about; the object is read in a second step, when that is known.
#[derive(Debug, Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Debug, Deserialize)]
struct Of<T> {
    object: T,
}

/// A line of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// A pod is new or has changed.
    Applied(Pod),
    /// A pod is no more.
    Deleted(Pod),
    /// Nothing new up to here.
    Bookmark(ListMeta),
    /// The watch is over; the status says why, as in HTTP.
    Error(u16),
    /// Of a later API.
    Unknown,
}

#[derive(Debug, Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

#[derive(Debug, Deserialize)]
struct Status {
    code: Option<u16>,
}

/// A pod.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    status: Option<PodStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: String,
    resource_version: Option<String>,
    annotations: Option<Annotations>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    /// The uid that the kubelet knows a static pod by.
    #[serde(rename = "kubernetes.io/config.hash")]
    hash: Option<String>,
    /// Whether this object mirrors a static pod.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Deserialize)]
struct ContainerStatus {
    name: String,
    /// `containerd://ID`; empty before it was made.
    #[serde(rename = "containerID")]
    id: Option<String>,
    #[serde(rename = "lastState")]
    last: Option<State>,
}

#[derive(Debug, Deserialize)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Deserialize)]
struct Terminated {
    #[serde(rename = "containerID")]
    id: Option<String>,
}

impl PodList {
    /// The pods as the table takes them.
    pub(super) fn named(self) -> (ListMeta, Vec<Named>) {
        let pods = self.items.into_iter().flatten().map(|pod| pod.named());
        (self.metadata, pods.collect())
    }
}

impl Event {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> serde_json::Result<Self> {
        Ok(
            match serde_json::from_slice::<Kind>(line)?.r#type.as_str() {
                "ADDED" | "MODIFIED" => Self::Applied(object(line)?),
                "DELETED" => Self::Deleted(object(line)?),
                "BOOKMARK" => Self::Bookmark(object::<Bookmark>(line)?.metadata),
                "ERROR" => Self::Error(object::<Status>(line)?.code.unwrap_or_default()),
                _ => Self::Unknown,
            },
        )
    }
}

fn object<'a, T: Deserialize<'a>>(line: &'a [u8]) -> serde_json::Result<T> {
    Ok(serde_json::from_slice::<Of<T>>(line)?.object)
}

impl Pod {
    /// What the API calls it by.
    pub(super) fn key(&self) -> &str {
        &self.metadata.uid
    }

    /// Where a watch goes on from, after this.
    pub(super) fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }

    /// As the table takes it.
    pub(super) fn named(self) -> Named {
        let metadata = self.metadata;
        let hash = metadata
            .annotations
            .and_then(|all| all.mirror.and(all.hash));
        let mut containers = Vec::new();
        if let Some(status) = self.status {
            let all = [
                status.container_statuses,
                status.init_container_statuses,
                status.ephemeral_container_statuses,
            ];
            for status in all.into_iter().flatten().flatten() {
                let last = status.last.and_then(|last| last.terminated?.id);
                for id in [status.id, last].into_iter().flatten() {
                    containers.extend(container(&id).map(|id| (id, status.name.clone())));
                }
            }
        }
        Named {
            uid: PodUid::parse(hash.as_deref().unwrap_or(&metadata.uid)),
            key: metadata.uid,
            sandbox: None,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name,
            containers,
        }
    }
}

/// Takes the id out of `RUNTIME://ID`.
fn container(id: &str) -> Option<ContainerId> {
    ContainerId::from_hex(id.split_once("://")?.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3e4b1c0ff5a9d2778696a5b4c3d2e1f00123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    const UID: &str = "6af3c1f0-35d9-4e0d-92c5-8d5fb5e2e7aa";
    const HASH: &str = "5f9d9b7a1c3e4d2b8a6f0e1d2c3b4a59";

    fn applied(object: &serde_json::Value) -> Named {
        let line = serde_json::json!({"type": "MODIFIED", "object": object}).to_string();
        match Event::parse(line.as_bytes()).unwrap() {
            Event::Applied(pod) => pod.named(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pods_containers_of_all_kinds_are_named() {
        let pod = applied(&serde_json::json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "web-1", "namespace": "shop", "uid": UID, "resourceVersion": "7",
                "annotations": {"kubernetes.io/config.hash": HASH}, "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "nginx"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "nginx", "containerID": format!("containerd://{ID}"),
                     "lastState": {"terminated": {"containerID": format!("containerd://{OTHER}")}}},
                    {"name": "waiting", "containerID": "", "lastState": {}},
                    {"name": "odd", "containerID": "docker:short"}],
                "initContainerStatuses": [
                    {"name": "setup", "containerID": format!("cri-o://{OTHER}"), "lastState": null}],
                "ephemeralContainerStatuses": null
            }
        }));
        let named = |id, name: &str| (ContainerId::from_hex(id).unwrap(), name.to_owned());
        assert_eq!(
            pod.containers,
            [
                named(ID, "nginx"),
                named(OTHER, "nginx"),
                named(OTHER, "setup")
            ]
        );
        // The annotation alone makes no static pod.
        assert_eq!(pod.uid, PodUid::parse(UID));
        assert_eq!(
            (pod.key.as_str(), pod.namespace.as_str(), pod.name.as_str()),
            (UID, "shop", "web-1")
        );
    }

    #[test]
    fn a_static_pod_is_known_by_the_hash_of_its_file() {
        let pod = applied(&serde_json::json!({
            "metadata": {"name": "etcd-node", "namespace": "kube-system", "uid": UID, "annotations":
                {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}}
        }));
        assert_eq!(pod.uid, PodUid::parse(HASH));
        assert_eq!(pod.key, UID);
    }

    #[test]
    fn what_a_line_is_about() {
        let parse = |line: &str| Event::parse(line.as_bytes());
        assert!(matches!(
            parse(r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9","creationTimestamp":null},"spec":{"containers":null},"status":{}}}"#),
            Ok(Event::Bookmark(meta)) if meta.resource_version == "9"
        ));
        assert!(matches!(
            parse(
                r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","reason":"Expired","code":410}}"#
            ),
            Ok(Event::Error(410))
        ));
        assert!(matches!(
            parse(r#"{"type":"LATER","object":7}"#),
            Ok(Event::Unknown)
        ));
        assert!(parse(r#"{"type":"ADDED","object":7}"#).is_err());
        assert!(parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::parse(&line);
        }
    }
}
