//! Names by container and pod: pure, and bounded.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::owner::PodName;
use crate::sys::cgroup::{ContainerId, PodUid, Workload};

/// How long names outlive their pod. Series of what is gone stay for two minutes; a little longer,
/// so that none loses its labels just before it goes.
pub(super) const LINGER: Duration = Duration::from_secs(150);
/// Containers and pods together. A kubelet is made for 110 pods; some run a thousand.
const ENTRY_LIMIT: usize = 16_384;
/// Longest name; that of a DNS subdomain.
const NAME_BYTES: usize = 253;

/// A pod as a source tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// What the source itself calls it by; never another pod's.
    pub(super) key: String,
    /// As in the path of its cgroup.
    pub(super) uid: Option<PodUid>,
    /// The container that holds its namespaces, where the source knows of it.
    pub(super) sandbox: Option<ContainerId>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) containers: Vec<(ContainerId, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    Container(ContainerId),
    Pod(PodUid),
}

#[derive(Debug)]
struct Entry {
    name: Arc<PodName>,
    uid: Option<PodUid>,
    /// The pod's.
    key: Arc<str>,
    gone: Option<Instant>,
}

/// What one source knows.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Id, Entry>,
    refused: u64,
}

impl Table {
    /// The names of a workload: of its container, else of its pod.
    pub(super) fn lookup(&self, workload: Workload, now: Instant) -> Option<&Arc<PodName>> {
        let container = workload.container().and_then(|id| {
            let entry = self.get(Id::Container(id), now)?;
            // Ids are cut short; a pod that is another one's says that they met by chance.
            let other = |(a, b)| a != b;
            (!entry.uid.zip(workload.pod()).is_some_and(other)).then_some(entry)
        });
        let entry = container.or_else(|| self.get(Id::Pod(workload.pod()?), now))?;
        Some(&entry.name)
    }

    fn get(&self, id: Id, now: Instant) -> Option<&Entry> {
        self.entries.get(&id).filter(|entry| !entry.is_over(now))
    }

    /// Containers and pods with a name, those that linger included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Containers and pods that were left out, since they are too many or oddly named.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes the pods that there are: all others are gone.
    pub(super) fn replace(&mut self, pods: &[Pod], now: Instant) {
        for entry in self.entries.values_mut() {
            entry.leave(now);
        }
        self.sweep(now);
        self.make_room(pods);
        for pod in pods {
            self.put(pod);
        }
    }

    /// Takes a pod that is new or has changed.
    pub(super) fn insert(&mut self, pod: &Pod, now: Instant) {
        self.remove(&pod.key, now);
        self.make_room(std::slice::from_ref(pod));
        self.put(pod);
    }

    /// Takes away the names of a pod, after a while.
    pub(super) fn remove(&mut self, key: &str, now: Instant) {
        for entry in self.entries.values_mut() {
            if &*entry.key == key {
                entry.leave(now);
            }
        }
        self.sweep(now);
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !entry.is_over(now));
    }

    /// What lingers gives way to what is there.
    fn make_room(&mut self, pods: &[Pod]) {
        let coming: usize = pods.iter().map(|pod| 2 + pod.containers.len()).sum();
        if self.entries.len() + coming > ENTRY_LIMIT {
            let kept: HashSet<Id> = pods.iter().flat_map(Pod::ids).map(|(id, _)| id).collect();
            self.entries
                .retain(|id, entry| entry.gone.is_none() || kept.contains(id));
        }
    }

    fn put(&mut self, pod: &Pod) {
        if !is_name(&pod.namespace) || !is_name(&pod.name) {
            self.refused += 1;
            return;
        }
        let key: Arc<str> = pod.key.as_str().into();
        for (id, container) in pod.ids() {
            if !(container.is_empty() || is_name(container)) {
                self.refused += 1;
                continue;
            }
            self.put_one(id, container, pod, &key);
        }
    }

    fn put_one(&mut self, id: Id, container: &str, pod: &Pod, key: &Arc<str>) {
        if self.entries.len() >= ENTRY_LIMIT && !self.entries.contains_key(&id) {
            self.refused += 1;
            return;
        }
        let unchanged = |name: &PodName| {
            name.namespace == pod.namespace && name.pod == pod.name && name.container == container
        };
        match self.entries.entry(id) {
            MapEntry::Occupied(mut known) if unchanged(&known.get().name) => {
                let known = known.get_mut();
                known.gone = None;
                known.uid = pod.uid;
                known.key = Arc::clone(key);
            }
            place => {
                place.insert_entry(Entry {
                    name: Arc::new(PodName {
                        namespace: pod.namespace.clone(),
                        pod: pod.name.clone(),
                        container: container.to_owned(),
                    }),
                    uid: pod.uid,
                    key: Arc::clone(key),
                    gone: None,
                });
            }
        }
    }
}

impl Pod {
    /// What it is known by, each with the name of a container or none.
    fn ids(&self) -> impl Iterator<Item = (Id, &str)> {
        let whole = [self.sandbox.map(Id::Container), self.uid.map(Id::Pod)];
        let containers = self.containers.iter();
        let containers = containers.map(|(id, name)| (Id::Container(*id), name.as_str()));
        let whole = whole.into_iter().flatten().map(|id| (id, ""));
        whole.chain(containers)
    }
}

impl Entry {
    fn leave(&mut self, now: Instant) {
        self.gone.get_or_insert(now);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.gone
            .is_some_and(|gone| now.saturating_duration_since(gone) >= LINGER)
    }
}

/// Whether this can be a name. Kubernetes' are narrower; a runtime's own tools are not so strict.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ContainerId {
        ContainerId::from_hex(&format!("{number:012x}{:052x}", 0)).unwrap()
    }

    fn uid(number: u32) -> PodUid {
        PodUid::parse(&format!("{number:08x}-0000-0000-0000-000000000000")).unwrap()
    }

    /// Pod N has the sandbox 10 N and the containers 10 N + 1 and so on.
    fn pod(number: u32, containers: u32) -> Pod {
        Pod {
            key: format!("key-{number}"),
            uid: Some(uid(number)),
            sandbox: Some(id(10 * number)),
            namespace: "shop".to_owned(),
            name: format!("web-{number}"),
            containers: (1..=containers)
                .map(|at| (id(10 * number + at), format!("c{at}")))
                .collect(),
        }
    }

    fn shown(table: &Table, workload: Workload, now: Instant) -> Option<String> {
        let name = table.lookup(workload, now)?;
        Some(format!(
            "{}/{}/{}",
            name.namespace, name.pod, name.container
        ))
    }

    #[test]
    fn a_container_has_its_names_and_a_pod_as_a_whole_no_containers() {
        let now = Instant::now();
        let mut table = Table::default();
        table.replace(&[pod(1, 2), pod(2, 1)], now);
        let of = |container: Option<u32>, pod: Option<u32>| {
            shown(&table, Workload::new(container.map(id), pod.map(uid)), now)
        };
        assert_eq!(of(Some(11), Some(1)).unwrap(), "shop/web-1/c1");
        assert_eq!(of(Some(12), None).unwrap(), "shop/web-1/c2");
        assert_eq!(of(Some(10), Some(1)).unwrap(), "shop/web-1/");
        assert_eq!(of(Some(99), Some(2)).unwrap(), "shop/web-2/");
        assert_eq!(of(None, Some(2)).unwrap(), "shop/web-2/");
        assert_eq!(of(Some(99), None), None);
        assert_eq!(of(None, None), None);
        // Two ids that are the same as far as they go: the pod is believed.
        assert_eq!(of(Some(11), Some(2)).unwrap(), "shop/web-2/");
        assert_eq!(of(Some(11), Some(3)), None);
    }

    #[test]
    fn names_of_what_is_gone_go_after_a_while() {
        let begin = Instant::now();
        let mut table = Table::default();
        let one = Workload::new(Some(id(11)), Some(uid(1)));
        table.replace(&[pod(1, 1), pod(2, 1)], begin);
        table.replace(&[pod(2, 1)], begin + Duration::from_secs(10));
        // That it is still gone later on does not prolong it.
        table.replace(&[pod(2, 1)], begin + Duration::from_secs(100));
        let last = begin + Duration::from_secs(9) + LINGER;
        assert!(shown(&table, one, last).is_some());
        let over = begin + Duration::from_secs(10) + LINGER;
        assert_eq!(shown(&table, one, over), None);
        table.sweep(over);
        assert_eq!(table.len(), 3);
        // It may come back.
        table.insert(&pod(1, 1), over);
        assert!(shown(&table, one, over + LINGER).is_some());
        table.remove("key-1", over);
        table.remove("key-7", over);
        assert!(shown(&table, one, over).is_some());
        assert_eq!(shown(&table, one, over + LINGER), None);
    }

    #[test]
    fn a_container_that_is_started_anew_has_a_new_id() {
        let begin = Instant::now();
        let mut table = Table::default();
        table.insert(&pod(1, 1), begin);
        let mut again = pod(1, 0);
        again.containers = vec![(id(15), "c1".to_owned())];
        table.insert(&again, begin);
        let of = |container, now| shown(&table, Workload::new(Some(id(container)), None), now);
        assert_eq!(of(11, begin).unwrap(), "shop/web-1/c1");
        assert_eq!(of(15, begin).unwrap(), "shop/web-1/c1");
        assert_eq!(of(11, begin + LINGER), None);
        assert_eq!(of(15, begin + LINGER).unwrap(), "shop/web-1/c1");
    }

    #[test]
    fn odd_names_and_too_many_are_left_out() {
        let now = Instant::now();
        let mut table = Table::default();
        let mut odd = pod(1, 2);
        odd.containers[0].1 = "a b".to_owned();
        table.insert(&odd, now);
        assert_eq!((table.len(), table.refused()), (3, 1));
        for name in ["", "two\nlines", "\u{fc}", &"x".repeat(254)] {
            let name = name.to_owned();
            table.insert(&Pod { name, ..pod(2, 1) }, now);
        }
        assert_eq!((table.len(), table.refused()), (3, 5));

        let number = u32::try_from(ENTRY_LIMIT).unwrap();
        let many: Vec<Pod> = (0..number).map(|number| pod(number, 1)).collect();
        table.replace(&many, now);
        assert_eq!(table.len(), ENTRY_LIMIT);
        // What has gone before gives way.
        let later = now + Duration::from_secs(1);
        table.replace(&[], now);
        table.replace(&[pod(number, 1)], later);
        let newest = Workload::new(Some(id(10 * number + 1)), None);
        assert!(shown(&table, newest, later).is_some());
    }
}
