//! What the table tests of the rules share: a machine built from a few lines.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::find;
use crate::audit::finding::{Basis, Severity};
use crate::audit::kernel::Kernel;
use crate::audit::keys;
use crate::audit::persistent::Persistent;
use crate::audit::snapshot::{Counters, Defaults, Listener, Machine, Namespace, Sockets};
use crate::audit::subject::{Skip, Subject};
use crate::audit::value::Reading;

/// A machine with only what a test sets.
pub(super) struct Fixture(pub(super) Machine);

/// What a rule said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Pass,
    Found(Vec<(Severity, Basis)>),
    NotApplicable,
    Unreadable,
}

/// Shorthand for one problem.
pub(super) fn found(severity: Severity, basis: Basis) -> Said {
    Said::Found(vec![(severity, basis)])
}

impl Fixture {
    pub(super) fn new(settings: &[(&'static str, &str)]) -> Self {
        let mut host = Namespace::empty(4_026_531_840, true);
        put(&mut host, settings);
        host.sockets = Some(Sockets::default());
        Self(Machine {
            kernel: Kernel::parse("6.18.0"),
            defaults: Defaults::default(),
            page_size: 4096,
            persistent: Persistent::default(),
            host,
            others: Vec::new(),
            hidden_processes: 0,
        })
    }

    pub(super) fn kernel(mut self, release: &str) -> Self {
        self.0.kernel = Kernel::parse(release);
        self
    }

    pub(super) fn unreadable(mut self, key: &'static str) -> Self {
        self.0
            .host
            .settings
            .insert(key, Reading::Unreadable("permission denied".into()));
        self
    }

    /// Counters that moved by so much in a window of ten seconds.
    pub(super) fn moved(mut self, counters: &[(&str, u64)]) -> Self {
        let first = counters
            .iter()
            .map(|(n, _)| ((*n).to_owned(), 5))
            .collect::<Counters>();
        let last = counters
            .iter()
            .map(|(n, d)| ((*n).to_owned(), 5 + d))
            .collect();
        let window = &mut self.0.host.counters;
        (window.first, window.last) = (Some(first), last);
        window.length = Some(Duration::from_secs(10));
        self
    }

    /// Counters without a window.
    pub(super) fn totals(mut self, counters: &[(&str, u64)]) -> Self {
        self.0.host.counters.last = counters
            .iter()
            .map(|(n, d)| ((*n).to_owned(), *d))
            .collect();
        self
    }

    pub(super) fn listener(mut self, queue: u32, limit: u32, asked: Option<u32>) -> Self {
        let sockets = self.0.host.sockets.get_or_insert_default();
        sockets.listeners.push(Listener {
            asked,
            ..listener(queue, limit)
        });
        self
    }

    pub(super) fn sockets(mut self, change: impl FnOnce(&mut Sockets)) -> Self {
        change(self.0.host.sockets.get_or_insert_default());
        self
    }

    pub(super) fn other(mut self, settings: &[(&'static str, &str)]) -> Self {
        let mut ns = Namespace::empty(4_026_532_000, false);
        put(&mut ns, settings);
        self.0.others.push(ns);
        self
    }

    pub(super) fn host(mut self, change: impl FnOnce(&mut Namespace)) -> Self {
        change(&mut self.0.host);
        self
    }

    /// Applies rule `id` to the host, or to the first other namespace if there is one.
    pub(super) fn ask(&self, id: &str) -> Said {
        let rule = find(id).expect("a rule of that id");
        let ns = self.0.others.first().unwrap_or(&self.0.host);
        match (rule.check)(&Subject {
            machine: &self.0,
            ns,
        }) {
            Ok(problems) if problems.is_empty() => Said::Pass,
            Ok(problems) => {
                for p in &problems {
                    assert!(p.severity <= rule.severity, "{id} graver than it says");
                    assert!(
                        p.key.is_empty() || rule.keys.contains(&p.key),
                        "{id} about {}",
                        p.key
                    );
                    assert!(!p.message.is_empty() && !p.expected.is_empty(), "{id}");
                    assert!(
                        p.set.is_some() || !p.advice.is_empty(),
                        "{id} has no remedy"
                    );
                }
                Said::Found(problems.iter().map(|p| (p.severity, p.basis())).collect())
            }
            Err(Skip::NotApplicable(_)) => Said::NotApplicable,
            Err(Skip::Unreadable { .. }) => Said::Unreadable,
        }
    }
}

fn put(ns: &mut Namespace, settings: &[(&'static str, &str)]) {
    for (name, raw) in settings {
        let key = keys::find(name).expect("a known setting");
        ns.settings.insert(key.name, Reading::parse(key.kind, raw));
    }
}

/// A listener on port 80.
pub(super) fn listener(queue: u32, limit: u32) -> Listener {
    Listener {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: 80,
        uid: 0,
        inode: 1,
        process: Some("web".to_owned()),
        queue,
        limit,
        syn_queue: 0,
        asked: None,
        drops_first: Some(0),
        drops: 0,
    }
}
