//! The agent's books of a namespace, held against the kernel's.

use std::fmt::Display;

use testbed::{Counters, Listener, Ns, wait_until, witness::wait_for};

use super::{Agent, Metrics, PATIENCE, metrics::Labels};

pub(crate) const DROPS: &str = "netobs_tcp_listen_drops_total";
pub(crate) const OVERFLOWS: &str = "netobs_tcp_listen_overflows_total";
pub(crate) const SEGMENTS: &str = "netobs_tcp_retransmitted_segments_total";
pub(crate) const FAILURES: &str = "netobs_tcp_retransmit_failures_total";
pub(crate) const UNATTRIBUTED: &str = "netobs_ledger_unattributed";
pub(crate) const NETSTAT: &str = "netobs_netstat_total";

/// The counters that are claimed to add up: group, name, and the agent's label for both.
pub(crate) const HELD: [(&str, &str, &str); 4] = [
    ("TcpExt", "ListenDrops", "TcpExt_ListenDrops"),
    ("TcpExt", "ListenOverflows", "TcpExt_ListenOverflows"),
    ("Tcp", "RetransSegs", "Tcp_RetransSegs"),
    ("TcpExt", "TCPSynRetrans", "TcpExt_TCPSynRetrans"),
];

/// What the kernel had counted in a namespace when its ledger began.
#[derive(Debug)]
pub(crate) struct Ledger {
    ns: Ns,
    begun: Option<Counters>,
}

impl Ledger {
    /// Of a namespace that is younger than the agent: it begins at zero.
    pub(crate) fn from_birth(ns: &Ns) -> Self {
        Self {
            ns: ns.clone(),
            begun: None,
        }
    }

    /// Of a namespace that is older than an agent to be started next.
    pub(crate) fn from_now(ns: &Ns) -> Self {
        Self {
            ns: ns.clone(),
            begun: Some(Counters::read_in(ns).unwrap()),
        }
    }

    /// What the kernel has counted since.
    pub(crate) fn counted(&self, group: &str, name: &str) -> u64 {
        self.since(&Counters::read_in(&self.ns).unwrap(), group, name)
    }

    fn since(&self, now: &Counters, group: &str, name: &str) -> u64 {
        match &self.begun {
            Some(begun) => now.since(begun).get(group, name),
            None => now.get(group, name),
        }
    }

    /// One scrape in which the namespace's books are closed: nothing is unattributed, and the sums
    /// of the families are what the kernel has counted. The namespace must come to rest: while its
    /// counters move (a timer may fire at any time), or the agent has not read them now, there is another
    /// scrape.
    pub(crate) fn balanced(&self, agent: &Agent) -> Metrics {
        let quiet = wait_for(PATIENCE, "a scrape during which nothing moves", || {
            let before = Counters::read_in(&self.ns)?;
            let metrics = settled(agent, &self.ns);
            let after = Counters::read_in(&self.ns)?;
            let netns = self.ns.inode();
            // Where the agent's way to the namespace has just ended, a scrape shows its last reading.
            let still = |(group, name, label): &(&str, &str, &str)| {
                let shown: Labels<'_> = &[("netns", &netns), ("counter", label)];
                let now = after.get(group, name);
                before.get(group, name) == now && metrics.sum(NETSTAT, shown) == now
            };
            Ok(HELD.iter().all(still).then_some((metrics, after)))
        });
        let (metrics, counters) = quiet.unwrap();
        self.holds_against(&counters, agent, &metrics);
        metrics
    }

    /// Demands of one scrape what [`Ledger::balanced`] says.
    pub(crate) fn holds(&self, agent: &Agent, metrics: &Metrics) {
        self.holds_against(&Counters::read_in(&self.ns).unwrap(), agent, metrics);
    }

    fn holds_against(&self, counters: &Counters, agent: &Agent, metrics: &Metrics) {
        let netns = self.ns.inode();
        let relevant = || {
            let own = |line: &&str| line.contains(&netns.to_string());
            let lines: Vec<&str> = metrics.text.lines().filter(own).collect();
            format!("{}\nthe agent said:\n{}", lines.join("\n"), agent.stderr())
        };
        let sums = [
            metrics.sum(DROPS, &[("netns", &netns)]),
            metrics.sum(OVERFLOWS, &[("netns", &netns)]),
            metrics.sum(SEGMENTS, &[("netns", &netns)]),
        ];
        let kernel = HELD.map(|(group, name, _)| self.since(counters, group, name));
        assert_eq!(sums, kernel[..3], "families against kernel: {}", relevant());
        for (group, name, label) in HELD {
            let labels: Labels<'_> = &[("netns", &netns), ("counter", &label)];
            assert_eq!(
                metrics.get(UNATTRIBUTED, labels),
                Some(0.0),
                "{name}: {}",
                relevant()
            );
            assert_eq!(
                metrics.sum(NETSTAT, labels),
                counters.get(group, name),
                "{name}: {}",
                relevant()
            );
        }
    }
}

/// Scrapes until the namespace's ledger is shown. Its first scrape may only discover it.
pub(crate) fn settled(agent: &Agent, ns: &Ns) -> Metrics {
    let what = format!("the ledger of {}", ns.name());
    agent.scrape_until(&what, |metrics| {
        let netns: Labels<'_> = &[("netns", &ns.inode())];
        metrics.all(UNATTRIBUTED, netns).count() == HELD.len()
    })
}

/// Waits until what was sent in a namespace is accounted for, as the end of its last socket may
/// come a moment after the test let go of it; then demands all of [`Ledger::holds`].
pub(crate) fn finally(ledger: &Ledger, agent: &Agent) -> Metrics {
    let netns = ledger.ns.inode();
    let mut last = None;
    let quiet = wait_until(PATIENCE, "the books to close", || {
        let metrics = settled(agent, &ledger.ns);
        let open = metrics
            .all(UNATTRIBUTED, &[("netns", &netns)])
            .any(|sample| sample.value != 0.0);
        last = Some(metrics);
        Ok(!open)
    });
    let metrics = last.expect("at least one scrape");
    // Whether or not they closed: `holds` has the better report.
    ledger.holds(agent, &metrics);
    quiet.unwrap();
    metrics
}

/// Drops of one listener by stage and reason, and nothing beside them but series that are zero.
pub(crate) fn drops_are(metrics: &Metrics, listener: &Listener, want: &[(&str, &str, u64)]) {
    let (netns, port) = (listener.ns().inode(), listener.port());
    let address = listener.address().ip();
    let labels: Labels<'_> = &[
        ("netns", &netns),
        ("local_port", &port),
        ("local_address", &address),
    ];
    let mut got: Vec<(String, String, u64)> = metrics
        .all(DROPS, labels)
        .filter(|sample| sample.value != 0.0)
        .map(|sample| {
            let label = |name: &str| sample.labels[name].clone();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts of a test are small"
            )]
            let value = sample.value as u64;
            (label("stage"), label("reason"), value)
        })
        .collect();
    got.sort();
    let mut want: Vec<(String, String, u64)> = want
        .iter()
        .map(|(stage, reason, n)| ((*stage).to_owned(), (*reason).to_owned(), *n))
        .collect();
    want.sort();
    assert_eq!(
        got,
        want,
        "drops of {}\n{}",
        listener.address(),
        metrics.text
    );
}

/// A gauge of one listener.
pub(crate) fn gauge(metrics: &Metrics, name: &str, listener: &Listener) -> f64 {
    let labels: [(&str, &dyn Display); 3] = [
        ("netns", &listener.ns().inode()),
        ("local_port", &listener.port()),
        ("local_address", &listener.address().ip()),
    ];
    let value = metrics.get(name, &labels);
    value.unwrap_or_else(|| panic!("no {name} of {}\n{}", listener.address(), metrics.text))
}

/// What was lost of counts: not runs that the kernel skipped because an interrupt came while the same
/// program ran on that CPU (under load that happens to any tracing program, and is counted), and not
/// events that found the ring full, which no count hangs on: storms of other tests fill it for all that
/// share an agent.
pub(crate) fn lost(metrics: &Metrics) -> u64 {
    let of = |labels: Labels<'_>| metrics.sum("netobs_events_lost_total", labels);
    of(&[]) - of(&[("reason", &"recursion")]) - of(&[("reason", &"ring_full")])
}
