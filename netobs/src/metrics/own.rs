//! Families about netobs itself: what it is, what watches, what was lost, what it costs.

use netobs_common::{
    ledger::ProbeCounts,
    probe::{Loss, Program},
};
use prometheus_client::encoding::DescriptorEncoder;

use super::{View, family::Family};
use crate::{
    bpf::RunStats,
    probes::{ProbeStatus, SignalInfo},
};

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct SelfView {
    /// Every probe.
    pub probes: Vec<ProbeStatus>,
    /// Every signal.
    pub signals: Vec<SignalInfo>,
    /// Counts of the programs that run.
    pub counts: Vec<(Program, ProbeCounts)>,
    /// Records of the ring that could not be decoded.
    pub undecodable: u64,
    /// Run-time statistics of the programs.
    pub runs: Vec<(&'static str, RunStats)>,
    /// Namespaces whose counters could not be read at the last try.
    pub unreadable_namespaces: u64,
    /// Listening sockets that are followed.
    pub listeners: u64,
    /// Seconds that the last scrape took to gather.
    pub gather_seconds: f64,
}

const BUILD_INFO: Family = Family {
    name: "netobs_build_info",
    help: "What this netobs was built from; the value is 1",
};
const ATTACHED: Family = Family {
    name: "netobs_probe_attached",
    help: "Whether a probe watches, and by which method; /status says why not",
};
const SIGNAL: Family = Family {
    name: "netobs_signal_info",
    help: "By which method each signal is served on this kernel, and how exact that is; the value is 1",
};
const EVENTS: Family = Family {
    name: "netobs_events",
    help: "Kernel events that a probe handled",
};
const LOST: Family = Family {
    name: "netobs_events_lost",
    help: "What a probe lost and why: ring_full loses an event's detail but not its count",
};
const FOLDED: Family = Family {
    name: "netobs_label_sets_folded",
    help: "Label sets that did not fit under the cap and went into the series labelled other",
};
const RUN_SECONDS: Family = Family {
    name: "netobs_bpf_run_seconds",
    help: "Time in a probe's kernel program, when the kernel keeps it (kernel.bpf_stats_enabled)",
};
const RUNS: Family = Family {
    name: "netobs_bpf_runs",
    help: "Runs of a probe's kernel program, when the kernel keeps them (kernel.bpf_stats_enabled)",
};
const UNREADABLE: Family = Family {
    name: "netobs_unreadable_namespaces",
    help: "Network namespaces whose counters could not be read: their ledger is not held",
};
const LISTENERS: Family = Family {
    name: "netobs_listeners",
    help: "Listening TCP sockets that are followed",
};
const GATHER: Family = Family {
    name: "netobs_scrape_gather_seconds",
    help: "Time that the last scrape took to gather its values",
};

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let agent = view.agent;
    BUILD_INFO.gauge(
        encoder,
        [(
            [
                ("version", env!("CARGO_PKG_VERSION").into()),
                (
                    "revision",
                    option_env!("NETOBS_REVISION").unwrap_or("").into(),
                ),
                ("rustc", option_env!("NETOBS_RUSTC").unwrap_or("").into()),
            ],
            1_u64,
        )],
    )?;
    ATTACHED.gauge(
        encoder,
        agent
            .probes
            .iter()
            .filter(|probe| probe.wanted)
            .map(|probe| {
                (
                    [
                        ("probe", probe.probe.into()),
                        ("method", probe.method.into()),
                    ],
                    probe.attached,
                )
            }),
    )?;
    SIGNAL.gauge(
        encoder,
        agent.signals.iter().map(|info| {
            (
                [
                    ("signal", info.signal.name().into()),
                    ("method", info.method.into()),
                    ("exactness", info.exactness.name().into()),
                ],
                1_u64,
            )
        }),
    )?;
    EVENTS.counter(
        encoder,
        agent
            .counts
            .iter()
            .map(|(program, counts)| ([("probe", program.name().into())], counts.events)),
    )?;
    let lost = agent.counts.iter().flat_map(|(program, counts)| {
        Loss::ALL.iter().zip(counts.lost).map(|(loss, lost)| {
            (
                [
                    ("probe", program.name().into()),
                    ("reason", loss.name().into()),
                ],
                lost,
            )
        })
    });
    let undecodable = (
        [("probe", "events".into()), ("reason", "decode".into())],
        agent.undecodable,
    );
    LOST.counter(encoder, lost.chain([undecodable]))?;
    FOLDED.counter(
        encoder,
        [
            (
                [("family", "netobs_tcp_listeners".into())],
                view.listeners.series().folded(),
            ),
            (
                [("family", "netobs_tcp_retransmitted_segments".into())],
                view.retransmits.series().folded(),
            ),
        ],
    )?;
    let kept = || agent.runs.iter().filter(|(_, stats)| stats.count > 0);
    RUN_SECONDS.counter(
        encoder,
        kept().map(|(program, stats)| ([("program", (*program).into())], stats.time.as_secs_f64())),
    )?;
    RUNS.counter(
        encoder,
        kept().map(|(program, stats)| ([("program", (*program).into())], stats.count)),
    )?;
    UNREADABLE.gauge(encoder, [([], agent.unreadable_namespaces)])?;
    LISTENERS.gauge(encoder, [([], agent.listeners)])?;
    GATHER.gauge(encoder, [([], agent.gather_seconds)])
}
