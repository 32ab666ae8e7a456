//! What a scrape would show, as a reading. Folded series are left out: they are nobody's.

use std::{collections::HashMap, net::IpAddr};

use netobs_common::{
    kernel::state_name,
    ledger::{Reason, Stage},
    probe::Loss,
};

use crate::{
    ledger::{
        accepts::AcceptValues,
        listeners::{Binding, ListenerLabels, ListenerValues, address},
        owner::Owner,
        resets::ResetLabels,
    },
    metrics::View,
    top::{
        Connected, Connects, Listener, Listening, Lost, Reading, Reset, Retransmitted, Sockets, Who,
    },
};

/// Of all books; when, and what a diagnosis says, is added by the caller.
pub(super) fn of(view: &View<'_>) -> Reading {
    let who = |owner: &Owner| who(view, owner);
    let accepts: HashMap<(u32, IpAddr, u16), &AcceptValues> = view
        .accepts
        .series()
        .iter()
        .filter_map(|(key, values)| {
            let key = key?;
            let address = address(key.family, key.address);
            Some(((key.netns, address, key.port), values))
        })
        .collect();
    // Where inet_csk_accept is probed, each listener counts its own.
    let exact = view.listeners.counts_accepts();
    let listeners = view
        .listeners
        .series()
        .iter()
        .filter_map(|(labels, values)| {
            let labels = labels?;
            let key = (labels.owner.netns, labels.address, labels.port);
            let accepts = accepts.get(&key).copied();
            Some((
                listener(labels, who(&labels.owner)),
                listening(values, accepts, exact),
            ))
        });
    let retransmits = view.retransmits.series().iter();
    let retransmits = retransmits.filter_map(|(labels, values)| {
        let labels = labels?;
        let sockets = Sockets {
            who: who(&labels.owner),
            role: labels.role.name().to_owned(),
            port: labels.port,
        };
        let values = Retransmitted {
            segments: values.segments,
            failures: values.failures,
        };
        Some((sockets, values))
    });
    let connects = view.connects.series().iter();
    let connects = connects.filter_map(|(labels, values)| {
        let labels = labels?;
        let connects = Connects {
            who: who(&labels.owner),
            port: labels.port,
        };
        let values = Connected {
            waiting: values.waiting(),
            failures: values.failures,
            latency: values.latency,
        };
        Some((connects, values))
    });
    let resets = view.resets.series().iter().filter_map(|(labels, count)| {
        let labels = labels?;
        Some((reset(view, labels, who(&labels.owner)), *count))
    });
    Reading {
        listeners: listeners.collect(),
        retransmits: retransmits.collect(),
        connects: connects.collect(),
        resets: resets.collect(),
        namespaces: view.namespaces.len(),
        lost: lost(view),
        ..Reading::default()
    }
}

fn who(view: &View<'_>, owner: &Owner) -> Who {
    let workload = owner.workload;
    let text = |id: Option<String>| id.unwrap_or_default();
    let mut who = Who {
        netns: (owner.netns != 0).then_some(owner.netns),
        process: owner.process.to_string(),
        container_id: text(workload.container().map(|id| id.to_string())),
        pod_uid: text(workload.pod().map(|uid| uid.to_string())),
        ..Who::default()
    };
    if let Some(names) = view.names.of(workload) {
        who.namespace.clone_from(&names.namespace);
        who.pod.clone_from(&names.pod);
        who.container.clone_from(&names.container);
    }
    who
}

fn listener(labels: &ListenerLabels, who: Who) -> Listener {
    Listener {
        who,
        address: labels.address,
        port: labels.port,
    }
}

fn listening(values: &ListenerValues, accepts: Option<&AcceptValues>, exact: bool) -> Listening {
    let sockets = |binding: Binding| values.bindings.get(binding as usize).copied().unwrap_or(0);
    let mut drops_by = Vec::new();
    for (stage, row) in Stage::ALL.iter().zip(&values.counts.drops) {
        for (reason, drops) in Reason::ALL.iter().zip(row) {
            if *drops > 0 {
                drops_by.push((format!("{} {}", stage.name(), reason.name()), *drops));
            }
        }
    }
    Listening {
        sockets: values.sockets,
        queue: values.queue_length,
        peak: values.peak,
        limit: values.queue_limit,
        syn_queue: values.syn_queue,
        cut: if sockets(Binding::Somaxconn) > 0 {
            Some(true)
        } else {
            (sockets(Binding::ListenArgument) > 0).then_some(false)
        },
        drops: drops_by.iter().map(|(_, drops)| drops).sum(),
        overflows: values.counts.overflows.iter().sum(),
        drops_by,
        accepts: if exact {
            values.accepted
        } else {
            accepts.map_or(0, |accepts| accepts.accepted)
        },
        latency: accepts.map(|accepts| accepts.latency).unwrap_or_default(),
    }
}

fn reset(view: &View<'_>, labels: &ResetLabels, who: Who) -> Reset {
    Reset {
        sockets: Sockets {
            who,
            role: labels.role.name().to_owned(),
            port: labels.port,
        },
        direction: labels.direction.name().to_owned(),
        state: state_name(labels.state).to_owned(),
        reason: view
            .reset_reasons
            .name(labels.reason, labels.class)
            .to_owned(),
    }
}

fn lost(view: &View<'_>) -> Vec<Lost> {
    let programs = view.agent.counts.iter().flat_map(|(program, counts)| {
        let reasons = Loss::ALL.iter().zip(counts.lost);
        reasons.map(|(loss, count)| (program.name(), loss.name(), count))
    });
    let undecodable = ("events", "decode", view.agent.undecodable);
    programs
        .chain([undecodable])
        .filter(|(.., count)| *count > 0)
        .map(|(probe, reason, count)| Lost {
            probe: probe.to_owned(),
            reason: reason.to_owned(),
            count,
        })
        .collect()
}
