//! Families about netobs itself: what it is, what watches, what was lost, what it costs.

use netobs_common::{
    ledger::ProbeCounts,
    probe::{Loss, Program},
};
use prometheus_client::encoding::DescriptorEncoder;

use super::{View, family::families};
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
    /// Run-time statistics by probe, over its programs.
    pub runs: Vec<(&'static str, RunStats)>,
    /// Namespaces whose counters could not be read at the last try.
    pub unreadable_namespaces: u64,
    /// Listening sockets that are followed.
    pub listeners: u64,
    /// Seconds that the last scrape took to gather.
    pub gather_seconds: f64,
    /// Whether the latest reading of the configuration could be used.
    pub reload_successful: bool,
    /// When one could last be used, in seconds since 1970.
    pub reload_succeeded_at: u64,
}

families! {
    BUILD_INFO = Gauge "netobs_build_info" ["version", "revision", "rustc"]
        "What this netobs was built from; the value is 1";
    ATTACHED = Gauge "netobs_probe_attached" ["probe", "method"]
        "Whether a probe watches, and by which method; /status says why not";
    SIGNAL = Gauge "netobs_signal_info" ["signal", "method", "exactness"]
        "By which method each signal is served on this kernel, and how exact that is; the value is 1";
    EVENTS = Counter "netobs_events" ["probe"]
        "Kernel events that a probe handled";
    LOST = Counter "netobs_events_lost" ["probe", "reason"]
        "What a probe lost and why: ring_full loses an event's detail but not its count; recursion is \
        a run that the kernel skipped; decode is a record of no probe in particular";
    FOLDED = Counter "netobs_label_sets_folded" ["family"]
        "Label sets that did not fit under the cap and went into the series labelled other";
    RUN_SECONDS = Counter "netobs_bpf_run_seconds" ["probe"]
        "Time in a probe's kernel program, when the kernel keeps it (kernel.bpf_stats_enabled)";
    RUNS = Counter "netobs_bpf_runs" ["probe"]
        "Runs of a probe's kernel program, when the kernel keeps them (kernel.bpf_stats_enabled)";
    UNREADABLE = Gauge "netobs_unreadable_namespaces" []
        "Network namespaces whose counters could not be read: their ledger is not held";
    LISTENERS = Gauge "netobs_listeners" []
        "Listening TCP sockets that are followed";
    GATHER = Gauge "netobs_scrape_gather_seconds" []
        "Time that the last scrape took to gather its values";
    RELOADED = Gauge "netobs_config_last_reload_successful" []
        "Whether the configuration could be used when it was last read; 0: the one before it is in force";
    RELOADED_AT = Gauge "netobs_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was read, seconds since 1970";
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let agent = view.agent;
    BUILD_INFO.encode(
        encoder,
        [(
            [
                env!("CARGO_PKG_VERSION").into(),
                option_env!("NETOBS_REVISION").unwrap_or("").into(),
                option_env!("NETOBS_RUSTC").unwrap_or("").into(),
            ],
            1_u64,
        )],
    )?;
    ATTACHED.encode(
        encoder,
        agent
            .probes
            .iter()
            .filter(|probe| probe.wanted)
            .map(|probe| ([probe.probe.into(), probe.method.into()], probe.attached)),
    )?;
    SIGNAL.encode(
        encoder,
        agent.signals.iter().map(|info| {
            (
                [
                    info.signal.name().into(),
                    info.method.into(),
                    info.exactness.name().into(),
                ],
                1_u64,
            )
        }),
    )?;
    EVENTS.encode(
        encoder,
        agent
            .counts
            .iter()
            .map(|(program, counts)| ([program.name().into()], counts.events)),
    )?;
    let lost = agent.counts.iter().flat_map(|(program, counts)| {
        Loss::ALL
            .iter()
            .zip(counts.lost)
            .map(|(loss, lost)| ([program.name().into(), loss.name().into()], lost))
    });
    let skipped = agent
        .runs
        .iter()
        .map(|(probe, stats)| ([(*probe).into(), "recursion".into()], stats.skipped));
    let undecodable = (["".into(), "decode".into()], agent.undecodable);
    LOST.encode(encoder, lost.chain(skipped).chain([undecodable]))?;
    FOLDED.encode(
        encoder,
        [
            (
                ["netobs_tcp_listen_drops".into()],
                view.listeners.series().folded(),
            ),
            (
                ["netobs_tcp_retransmitted_segments".into()],
                view.retransmits.series().folded(),
            ),
            (
                ["netobs_tcp_connects".into()],
                view.connects.series().folded(),
            ),
            (["netobs_tcp_resets".into()], view.resets.series().folded()),
        ]
        .into_iter()
        .chain(view.dns.into_iter().flat_map(|book| {
            [
                (
                    ["netobs_dns_lookup_duration_seconds".into()],
                    book.answers().folded(),
                ),
                (["netobs_dns_queries".into()], book.counts().folded()),
            ]
        })),
    )?;
    let kept = || agent.runs.iter().filter(|(_, stats)| stats.count > 0);
    RUN_SECONDS.encode(
        encoder,
        kept().map(|(probe, stats)| ([(*probe).into()], stats.time.as_secs_f64())),
    )?;
    RUNS.encode(
        encoder,
        kept().map(|(probe, stats)| ([(*probe).into()], stats.count)),
    )?;
    UNREADABLE.encode(encoder, [([], agent.unreadable_namespaces)])?;
    LISTENERS.encode(encoder, [([], agent.listeners)])?;
    GATHER.encode(encoder, [([], agent.gather_seconds)])?;
    RELOADED.encode(encoder, [([], agent.reload_successful)])?;
    RELOADED_AT.encode(encoder, [([], agent.reload_succeeded_at)])
}
