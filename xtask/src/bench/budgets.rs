//! The budgets, and whether a record keeps them.

use super::record::{Figure, Record, Unit};

/// On which side of its limit a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Below,
    Above,
}

/// What of a figure is held against the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Value,
    /// The ratio to what it was measured in turns with.
    Ratio,
}

/// One promise.
pub(super) struct Budget {
    pub(super) what: &'static str,
    case: &'static str,
    measure: &'static str,
    of: Of,
    side: Side,
    limit: f64,
    unit: Unit,
    /// A peer's figure of the same case: its measure and its name.
    peer: Option<(&'static str, &'static str)>,
    /// What limits the figure now; kept by hand.
    pub(super) limits: &'static str,
}

const fn value(
    what: &'static str,
    case: &'static str,
    measure: &'static str,
    limit: f64,
    unit: Unit,
) -> Budget {
    Budget {
        what,
        case,
        measure,
        of: Of::Value,
        side: Side::Below,
        limit,
        unit,
        peer: None,
        limits: "",
    }
}

/// A rate that must keep a part of what it is with nothing attached.
const fn kept(what: &'static str, case: &'static str, measure: &'static str, limit: f64) -> Budget {
    Budget {
        of: Of::Ratio,
        side: Side::Above,
        ..value(what, case, measure, limit, Unit::Part)
    }
}

impl Budget {
    const fn peer(self, measure: &'static str, name: &'static str) -> Self {
        Self {
            peer: Some((measure, name)),
            ..self
        }
    }

    const fn limited(self, limits: &'static str) -> Self {
        Self { limits, ..self }
    }

    const fn at_least(self) -> Self {
        Self {
            side: Side::Above,
            ..self
        }
    }

    /// The limit in words.
    pub(super) fn target(&self) -> String {
        let side = match self.side {
            Side::Below => "at most",
            Side::Above => "at least",
        };
        format!("{side} {}", self.unit.show(self.limit))
    }
}

/// Rates of a machine that is not quite quiet differ by this much from turn to turn: "no visible
/// cost" is less than it.
const VISIBLE: f64 = 0.98;

/// Every budget, in the order of the report.
pub(super) const BUDGETS: &[Budget] = &[
    kept("connect/accept/close storm", "storm", "connections", 0.97)
        .peer("connections", "bpftrace count")
        .limited(
        "Ten state changes per connection (both ends are here), each of which the kernel takes to two programs \
         by indirect calls; for five of them both leave at once. The others remember or forget the \
         connection in maps.",
    ),
    kept("overflow flood: rate", "overflow", "drops", VISIBLE).limited(
        "A dropped SYN leaves by `consume_skb`, where nothing is attached: the listener's own \
         `sk_drops` is read ten times a second. With `--probe sys_exit_accept`, which slows every system \
         call, 5 % less.",
    ),
    value(
        "overflow flood: every drop counted",
        "overflow",
        "drops that are counted",
        1.0,
        Unit::Part,
    )
    .at_least()
    .limited("Counts come from the socket itself, so no rate is too high."),
    kept("bulk transfer, lossless", "bulk", "lossless", VISIBLE)
        .peer("lossless", "bpftrace count")
        .limited("Nothing is attached to the path of a packet."),
    kept("bulk transfer, 1 % loss", "bulk", "1 % loss", VISIBLE)
        .peer("1 % loss", "bpftrace count")
        .limited("One program run per retransmission."),
    kept("HTTP, connections kept", "http", "requests, kept", VISIBLE)
        .peer("requests, kept", "bpftrace count")
        .limited(
        "No program runs as long as connections stay open: what is left is the agent's own ten looks a second \
         on the two cores that serve and ask.",
    ),
    kept(
        "HTTP, a connection each",
        "http",
        "requests, one each",
        0.97,
    )
    .peer("requests, one each", "bpftrace count")
    .limited("As the storm, with a web server's own work beside it."),
    value(
        "CPU per 1,000 events read",
        "cpu",
        "1,000 retransmissions",
        0.5,
        Unit::Milliseconds,
    )
    .peer("1,000 retransmissions", "bpftrace print")
    .limited("Ten looks a second whatever happens; an event is decoded where it lies in the ring."),
    value(
        "kernel time per retransmitted SYN-ACK",
        "kernel",
        "per SYN-ACK retransmitted",
        500.0,
        Unit::Nanoseconds,
    )
    .peer("per SYN-ACK retransmitted", "bpftrace count")
    .limited(
        "The lookups of listener, label set and burst, the ring, and `kfree_skb`, whose two programs run for \
         the packet that is dropped in the flood; each run costs some 50 ns, the kernel's own clock \
         readings included.",
    ),
    value(
        "kernel time per retransmitted segment",
        "kernel",
        "per SYN retransmitted",
        500.0,
        Unit::Nanoseconds,
    )
    .peer("per SYN retransmitted", "bpftrace count")
    .limited(
        "Four hash lookups (connection, socket, label set, burst), the ring, and the two \
         programs of `kfree_skb` for the packet that the test drops. The first two take some 80 %, since \
         with thousands of sockets bucket and entry are in no cache. Both in one entry was built: 26 % less \
         once each socket has been met, 7 to 12 % more before, and 13 % more for the verifier; it was left \
         out.",
    ),
    value(
        "ring loss at 50,000 events/s",
        "rates",
        "50000/s: lost from the ring",
        0.0,
        Unit::Part,
    )
    .limited("The ring holds a tenth of a second of them."),
    value(
        "every event counted, at 50,000/s",
        "rates",
        "50000/s: counted",
        1.0,
        Unit::Part,
    )
    .at_least()
    .peer("50000/s: counted", "bpftrace print")
    .limited("Counts are kept in maps and do not go through the ring."),
    value(
        "every event counted, at the highest rate",
        "rates",
        "most: counted",
        1.0,
        Unit::Part,
    )
    .at_least()
    .peer("most: counted", "bpftrace print")
    .limited("As above; what the ring loses is detail, and is counted as lost."),
    value(
        "start to attached",
        "start",
        "attached",
        150.0,
        Unit::Milliseconds,
    )
    .peer("attached", "bpftrace count")
    .limited(
        "The kernel's symbols, which the kernel formats for each reader, all 120,000 of them, in 50 ms: nothing \
         else is waited for until then, and reading cannot stop early, because pieces of a function may be \
         anywhere in the text. Then the verifier, whose 70 ms are shared by the CPUs, 20 of them for \
         `inet_sock_set_state`.",
    ),
    value(
        "resident at rest",
        "idle",
        "resident, 1 listeners, 1 namespaces",
        12.0,
        Unit::Megabytes,
    )
    .peer("resident, alone", "bpftrace count")
    .limited(
        "2 MB are the ring (mapped twice), 2 MB the heap; the rest are the pages of the code that is in use.",
    ),
    value(
        "resident with 100,000 sockets tracked",
        "memory",
        "resident, 100000 sockets",
        25.0,
        Unit::Megabytes,
    )
    .limited("Sockets are tracked in maps of the kernel; the agent keeps none."),
    value(
        "growth over a million connections",
        "memory",
        "growth over a million connections",
        0.5,
        Unit::Megabytes,
    )
    .limited("Nothing is kept of a connection that is gone."),
    value(
        "idle CPU, 100 listeners in 50 namespaces",
        "idle",
        "CPU of one core, 100 listeners, 50 namespaces",
        0.002,
        Unit::Part,
    )
    .peer("CPU of one core, alone", "bpftrace count")
    .limited(
        "Ten wake-ups a second, of which bpftrace's figure is one without work, and at each a question \
         whether a packet was received. Once a second listeners are read and the books gone through, and \
         every 5 s processes listed. Where packets arrive all the time, listeners are read at each wake-up: \
         then it is some 0.15 points more.",
    ),
    value(
        "idle wake-ups, 100 listeners in 50 namespaces",
        "idle",
        "wake-ups, 100 listeners, 50 namespaces",
        20.0,
        Unit::PerSecond,
    )
    .peer("wake-ups, alone", "bpftrace count")
    .limited("Ten looks a second, one wake-up each."),
    value(
        "scrape of 1,000 series: CPU",
        "scrape",
        "CPU, 1000 series",
        2.0,
        Unit::Milliseconds,
    )
    .peer("CPU, netstat", "node_exporter")
    .limited(
        "0.5 ms is the same for any number of series (the counters of every namespace, read twice); the rest is \
         0.3 us for the 180 bytes of each. The labels of a listener are made into text once a scrape for its \
         30 series (it was 0.6 us when each made its own); kept until the next scrape, that one making would be \
         saved, for some 200 bytes a listener.",
    ),
    value(
        "scrape of 1,000 series: elapsed",
        "scrape",
        "elapsed, 1000 series",
        5.0,
        Unit::Milliseconds,
    )
    .peer("elapsed, netstat", "node_exporter")
    .limited("As the CPU time: nothing is waited for."),
    value("static binary", "size", "static", 10.0, Unit::Megabytes)
        .peer("dynamic", "rezolus")
        .limited(
            "TLS, the HTTP server, command line and auditor; the eBPF object is a small part.",
        ),
];

/// A budget and what was found.
pub(super) struct Verdict<'a> {
    pub(super) budget: &'static Budget,
    figure: &'a Figure,
    value: f64,
    pub(super) peer: Option<&'a Figure>,
}

/// The budgets of which the record has figures.
pub(super) fn verdicts(record: &Record) -> impl Iterator<Item = Verdict<'_>> {
    BUDGETS.iter().filter_map(|budget| {
        let figure = record.find(budget.case, budget.measure, "netobs")?;
        let value = match budget.of {
            Of::Value => figure.value.median,
            Of::Ratio => figure.ratio.as_ref()?.value.median,
        };
        let peer = budget
            .peer
            .and_then(|(measure, name)| record.find(budget.case, measure, name));
        Some(Verdict {
            budget,
            figure,
            value,
            peer,
        })
    })
}

impl Verdict<'_> {
    /// Whether the budget is kept. A count that must be whole may differ by what floats do.
    pub(super) fn met(&self) -> bool {
        let slack = self.budget.limit.abs() * 1e-9;
        match self.budget.side {
            Side::Below => self.value <= self.budget.limit + slack,
            Side::Above => self.value >= self.budget.limit - slack,
        }
    }

    pub(super) fn found(&self) -> String {
        match self.budget.of {
            Of::Value => self.figure.unit.show(self.figure.value.median),
            Of::Ratio => format!(
                "{} of {}",
                Unit::Part.show(self.value),
                self.figure
                    .ratio
                    .as_ref()
                    .map_or("nothing", |ratio| ratio.to.as_str())
            ),
        }
    }

    /// `met`, or by how much it is missed.
    pub(super) fn words(&self) -> String {
        if self.met() {
            return "met".to_owned();
        }
        if self.budget.limit == 0.0 {
            return format!("missed: {}", self.found());
        }
        let factor = match self.budget.side {
            Side::Below => self.value / self.budget.limit,
            Side::Above => self.budget.limit / self.value,
        };
        if factor < 2.0 {
            format!("missed by {:.1} %", (factor - 1.0) * 100.0)
        } else {
            format!("missed {factor:.1} times")
        }
    }

    /// The peer's name and figure.
    pub(super) fn peers(&self) -> Option<String> {
        let peer = self.peer?;
        Some(match (self.budget.of, &peer.ratio) {
            (Of::Ratio, Some(ratio)) => {
                format!("{}: {}", peer.subject, Unit::Part.show(ratio.value.median))
            }
            _ => format!("{}: {}", peer.subject, peer.unit.show(peer.value.median)),
        })
    }

    /// The agent's figure over the peer's, where they are of one kind.
    pub(super) fn to_peer(&self) -> Option<f64> {
        let peer = self.peer?;
        let theirs = match self.budget.of {
            Of::Value => peer.value.median,
            Of::Ratio => peer.ratio.as_ref()?.value.median,
        };
        (peer.unit == self.figure.unit && theirs != 0.0).then(|| self.value / theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::CASES;

    #[test]
    fn every_budget_names_a_case_and_says_what_limits_it() {
        for budget in BUDGETS {
            assert!(
                CASES.iter().any(|case| case.name == budget.case),
                "{}",
                budget.what
            );
            assert!(!budget.limits.is_empty(), "{}", budget.what);
        }
    }
}
