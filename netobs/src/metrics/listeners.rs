//! Listener families.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use netobs_common::connection::{Latencies, ListenerKey};
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    View,
    family::{Family, Gauge, OWNER, Rendered, Value, families, owner, with_owner},
};
use crate::{
    ledger::{
        listeners::{
            Binding, CookieOutcome, ListenerLabels, ListenerValues, Reason, Stage, address,
        },
        owner::Names,
    },
    sys::{cgroup::Workload, owner::Comm},
};

families! {
    DROPS = Counter "netobs_tcp_listen_drops" owner ["local_address", "local_port", "stage", "reason"]
        "Connection attempts that a listener dropped, as TcpExt ListenDrops counts them, by the \
        packet that was dropped and why";
    OVERFLOWS = Counter "netobs_tcp_listen_overflows" owner ["local_address", "local_port", "stage"]
        "Listen drops because the accept queue was full, as TcpExt ListenOverflows counts them";
    LENGTH = Gauge "netobs_tcp_accept_queue_length" owner ["local_address", "local_port"]
        "Connections that wait for accept()";
    LIMIT = Gauge "netobs_tcp_accept_queue_limit" owner ["local_address", "local_port"]
        "The accept queue limit in force: the lesser of the listen() argument and somaxconn; the \
        queue holds one more before it overflows";
    BINDING = Gauge "netobs_tcp_accept_queue_binding_limit" owner ["local_address", "local_port", "limit"]
        "Listening sockets by what sets their accept queue limit: the listen_argument of the program, \
        somaxconn, which is lower, or unknown where listen() was not seen";
    PEAK = Gauge "netobs_tcp_accept_queue_peak_length" owner ["local_address", "local_port"]
        "Longest accept queue seen in the last full wall-clock minute";
    FILL = Buckets "netobs_tcp_accept_queue_fill_ratio" owner ["local_address", "local_port"]
        "Accept queue length over its limit, after each connection that enters it; ten times a second \
        where several sockets listen on the address and the kernel does not tell which one it enters";
    SYN_QUEUE = Gauge "netobs_tcp_syn_queue_length" owner ["local_address", "local_port"]
        "Connection requests that wait for the final ACK of their handshake";
    COOKIES = Counter "netobs_tcp_syn_cookies" owner ["local_address", "local_port", "outcome"]
        "SYN cookies: sent, received with the final ACK, failed (none or an old one); only where the \
        kernel lets them be seen, else netobs_netstat_total has the namespace's";
    ENQUEUES = Counter "netobs_tcp_accept_queue_enqueues" owner ["local_address", "local_port"]
        "Connections that entered the accept queue; only where the kernel lets it be seen";
    ACCEPTS = Counter "netobs_tcp_accepts" owner ["local_address", "local_port"]
        "Connections that accept() took from the queue";
    ACCEPT_LATENCY = Buckets "netobs_tcp_accept_latency_seconds" owner ["local_address", "local_port"]
        "Time that connections waited in the accept queue, from the end of their handshake to \
        accept()";
    SYN_DROPS = Counter "netobs_tcp_syn_drops" owner ["local_address", "local_port", "reason"]
        "SYNs for a listener that never reached it; time_wait: refused by a TIME_WAIT socket of an \
        earlier connection, which may leave the client without any answer";
}

pub(super) fn encode(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let (book, names) = (view.listeners, view.names);
    // The labels that all rows of a listener share, made once.
    let series: Vec<(Shared, &ListenerValues)> = book
        .series()
        .sorted()
        .map(|(labels, values)| {
            let (owner, listener) = common(labels, names);
            let all = with_owner(owner, listener);
            (Rendered::new(&LENGTH.labels, &all), values)
        })
        .collect();
    DROPS.encode_rendered(
        encoder,
        series.iter().flat_map(|(shared, values)| {
            Stage::ALL.into_iter().flat_map(move |stage| {
                Reason::ALL.into_iter().filter_map(move |reason| {
                    let drops = values.counts.drops[stage as usize][reason as usize];
                    let own = [stage.name(), reason.name()].map(Value::from);
                    (drops > 0 || is_usual(stage, reason)).then_some((shared, own, drops))
                })
            })
        }),
    )?;
    OVERFLOWS.encode_rendered(
        encoder,
        series.iter().flat_map(|(shared, values)| {
            Stage::ALL.into_iter().filter_map(move |stage| {
                let overflows = values.counts.overflows[stage as usize];
                let own = [Value::from(stage.name())];
                (overflows > 0 || is_usual(stage, Reason::AcceptQueueFull))
                    .then_some((shared, own, overflows))
            })
        }),
    )?;
    COOKIES.encode_rendered(
        encoder,
        series.iter().flat_map(|(shared, values)| {
            CookieOutcome::ALL.into_iter().filter_map(move |outcome| {
                let cookies = values.cookies[outcome as usize];
                let own = [Value::from(outcome.name())];
                (values.cookies != [0; 3]).then_some((shared, own, cookies))
            })
        }),
    )?;
    ENQUEUES.encode_rendered(
        encoder,
        series
            .iter()
            .filter(|(_, values)| values.enqueued > 0)
            .map(|(shared, values)| (shared, [], values.enqueued)),
    )?;
    accepts(view, encoder)?;
    let gauge = |family: Family<Gauge, { OWNER + 2 }>,
                 encoder: &mut DescriptorEncoder<'_>,
                 value: fn(&ListenerValues) -> u64| {
        // A listener that has closed has no queue; its counters stay a while.
        let open = series.iter().filter(|(_, values)| values.sockets > 0);
        family.encode_rendered(
            encoder,
            open.map(|(shared, values)| (shared, [], value(values))),
        )
    };
    gauge(LENGTH, encoder, |values| values.queue_length)?;
    gauge(LIMIT, encoder, |values| values.queue_limit)?;
    BINDING.encode_rendered(
        encoder,
        series.iter().flat_map(|(shared, values)| {
            Binding::ALL.into_iter().filter_map(move |binding| {
                let sockets = *values.bindings.get(binding as usize)?;
                (sockets > 0).then(|| (shared, [Value::from(binding.name())], sockets))
            })
        }),
    )?;
    gauge(PEAK, encoder, |values| values.peak)?;
    gauge(SYN_QUEUE, encoder, |values| values.syn_queue)?;
    FILL.encode_rendered(
        encoder,
        series
            .iter()
            .map(|(shared, values)| (shared, [], &values.fill)),
    )
}

/// The labels of an owner and of a listener, as text.
type Shared = Rendered<{ OWNER + 2 }>;

/// Accepted connections are counted by address: each belongs to the listeners there.
fn accepts(view: &View<'_>, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let mut by_label: BTreeMap<Option<ListenerLabels>, (u64, Latencies)> = BTreeMap::new();
    let mut sum = |labels: Option<ListenerLabels>, accepted: u64, latency: Option<&Latencies>| {
        let entry = by_label.entry(labels).or_default();
        entry.0 += accepted;
        for (bucket, more) in entry
            .1
            .buckets
            .iter_mut()
            .zip(latency.iter().flat_map(|l| l.buckets))
        {
            *bucket += more;
        }
        entry.1.sum_ns += latency.map_or(0, |latency| latency.sum_ns);
    };
    let owners = by_address(view);
    let labels_of = |key: Option<&ListenerKey>| {
        let key = key?;
        let address = address(key.family, key.address);
        owners.get(&(key.netns, address, key.port)).copied()
    };
    for (key, values) in view.accepts.series().iter() {
        let labels = labels_of(key);
        // Where inet_csk_accept is probed, each listener counts its own.
        let exact = labels.is_some() && view.listeners.counts_accepts();
        sum(
            labels,
            if exact { 0 } else { values.accepted },
            Some(&values.latency),
        );
    }
    for (labels, values) in view.listeners.series().iter() {
        if values.accepted > 0 {
            sum(labels.copied(), values.accepted, None);
        }
    }
    let rows: Vec<_> = by_label
        .iter()
        .map(|(labels, values)| {
            let (owner, listener) = common(labels.as_ref(), view.names);
            (with_owner(owner, listener), values)
        })
        .collect();
    ACCEPTS.encode(
        encoder,
        rows.iter()
            .filter(|(_, (accepted, _))| *accepted > 0)
            .map(|(labels, (accepted, _))| (labels.clone(), *accepted)),
    )?;
    ACCEPT_LATENCY.encode(
        encoder,
        rows.iter()
            .filter(|(_, (_, latency))| latency.count() > 0)
            .map(|(labels, (_, latency))| (labels.clone(), latency)),
    )?;
    let mut refused: BTreeMap<Option<ListenerLabels>, u64> = BTreeMap::new();
    for (key, values) in view.accepts.series().iter() {
        if values.refused_in_time_wait > 0 {
            *refused.entry(labels_of(key)).or_default() += values.refused_in_time_wait;
        }
    }
    SYN_DROPS.encode(
        encoder,
        refused.iter().map(|(labels, refused)| {
            let (owner, [address, port]) = common(labels.as_ref(), view.names);
            let own = [address, port, "time_wait".into()];
            (with_owner(owner, own), *refused)
        }),
    )
}

/// Who listens on each address. Where those of several processes do (SO_REUSEPORT), which of them took
/// a connection is not known: it is the address's, under no process's name.
fn by_address(view: &View<'_>) -> HashMap<(u32, IpAddr, u16), ListenerLabels> {
    let mut owners: HashMap<_, (ListenerLabels, bool)> = HashMap::new();
    for (labels, values) in view.listeners.series().iter() {
        let Some(labels) = labels else { continue };
        let listens = values.sockets > 0;
        let key = (labels.owner.netns, labels.address, labels.port);
        owners
            .entry(key)
            .and_modify(|(known, known_listens)| match (*known_listens, listens) {
                (true, true) | (false, false) => *known = common_of(known, labels),
                (true, false) => {} // gone, and shown for a while
                (false, true) => (*known, *known_listens) = (*labels, true),
            })
            .or_insert((*labels, listens));
    }
    let owners = owners.into_iter();
    owners.map(|(key, (labels, _))| (key, labels)).collect()
}

/// What two listeners on one address have in common.
fn common_of(one: &ListenerLabels, other: &ListenerLabels) -> ListenerLabels {
    let mut both = *one;
    if one.owner.process != other.owner.process {
        both.owner.process = Comm::default();
    }
    if one.owner.workload != other.owner.workload {
        both.owner.workload = Workload::default();
    }
    both
}

/// Labels of an owner, and of a listener.
type Common<'a> = ([Value<'a>; OWNER], [Value<'a>; 2]);

pub(super) fn common(labels: Option<&ListenerLabels>, names: &dyn Names) -> Common<'static> {
    let listener = match labels {
        Some(labels) => [labels.address.into(), labels.port.into()],
        None => ["other"; 2].map(Value::from),
    };
    (owner(labels.map(|labels| &labels.owner), names), listener)
}

/// Whether a row is shown before anything has been counted in it: `rate()` and `increase()` do not
/// see the rise of a counter whose first sample is not 0, and the first overflow matters most.
fn is_usual(stage: Stage, reason: Reason) -> bool {
    reason == Reason::AcceptQueueFull && stage != Stage::Other
}
