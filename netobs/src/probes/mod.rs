//! The table of probes: what each observes, what it needs, what it costs, how exact it is.
//!
//! A probe has an ordered list of methods; at start the first that this kernel can carry out is
//! used, and the reasons why the others were not are kept and shown.

mod existing_sockets;
mod facts;
mod inet_sock_set_state;
mod kfree_skb;
mod listener_readings;
mod signals;
mod tcp_destroy_sock;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;

pub use facts::{BtfSource, KernelFacts, Missing, Requirement};
use netobs_common::{offsets::Offset, probe::Program};
use serde::Serialize;
pub use signals::{Exactness, Signal, SignalInfo, signals};

use crate::bpf::{Attachment, Object};

/// One thing that the kernel side watches.
#[derive(Debug)]
pub struct Probe {
    /// Its name in flags, metrics, messages and documentation.
    pub name: &'static str,
    /// What it observes, one line.
    pub observes: &'static str,
    /// How often it runs.
    pub cost: &'static str,
    /// What is lost to the user without it.
    pub without: &'static str,
    /// Ways to observe it, best first.
    pub methods: &'static [Method],
}

/// One way to carry out a probe.
#[derive(Debug)]
pub struct Method {
    /// The program of the eBPF object.
    pub program: Program,
    /// Where it is attached.
    pub attachment: Attachment,
    /// Fields whose place must be known.
    pub offsets: &'static [Offset],
    /// What else the kernel must have.
    pub also: Requirement,
}

/// Every probe, in the order in which they are attached: what counts packets before what finds the
/// listeners that the packets are counted against.
pub static PROBES: &[&Probe] = &[
    &tcp_retransmit_skb::PROBE,
    &tcp_retransmit_synack::PROBE,
    &kfree_skb::PROBE,
    &tcp_destroy_sock::PROBE,
    &inet_sock_set_state::PROBE,
    &existing_sockets::PROBE,
    &listener_readings::PROBE,
];

/// Names of all probes, for checking what the user typed.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROBES.iter().map(|probe| probe.name).collect()
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// [`Probe::name`].
    pub probe: &'static str,
    /// The method in use, or the preferred one when none is.
    pub method: &'static str,
    /// Whether it watches.
    pub attached: bool,
    /// The program that runs, when one does.
    #[serde(skip)]
    pub program: Option<Program>,
    /// Why better methods are not in use, best first.
    pub reasons: Vec<MethodFailure>,
    /// What is lost to the user, when it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<&'static str>,
}

/// Why a method is not in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MethodFailure {
    /// The method.
    pub method: &'static str,
    /// What failed, with its causes.
    pub reason: String,
    /// What to do about it, when something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Which probes the user wants: all but these.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names.
    pub except: Vec<String>,
}

impl Selection {
    fn wants(&self, name: &str) -> bool {
        !self.except.iter().any(|except| except == name)
    }
}

impl ProbeStatus {
    /// Notes that it could not be put to use after all.
    pub fn fail(&mut self, error: &dyn std::error::Error) {
        self.attached = false;
        self.program = None;
        self.reasons.push(MethodFailure {
            method: self.method,
            reason: chain(error),
            remedy: None,
        });
        self.without = PROBES
            .iter()
            .find(|probe| probe.name == self.probe)
            .map(|p| p.without);
    }
}

/// Attaches every wanted probe by its best method. A failure never stops the others.
pub fn attach_all(
    object: &mut Object,
    facts: &KernelFacts,
    selection: &Selection,
    remedy: &dyn Fn(i32) -> Option<String>,
) -> Vec<ProbeStatus> {
    PROBES
        .iter()
        .map(|probe| attach(probe, object, facts, selection, remedy))
        .collect()
}

fn attach(
    probe: &'static Probe,
    object: &mut Object,
    facts: &KernelFacts,
    selection: &Selection,
    remedy: &dyn Fn(i32) -> Option<String>,
) -> ProbeStatus {
    let preferred = probe
        .methods
        .first()
        .map_or("none", |method| method.attachment.method());
    let mut status = ProbeStatus {
        probe: probe.name,
        method: preferred,
        attached: false,
        program: None,
        reasons: Vec::new(),
        without: None,
    };
    if !selection.wants(probe.name) {
        status.reasons.push(MethodFailure {
            method: preferred,
            reason: "switched off by the configuration".to_owned(),
            remedy: None,
        });
        status.without = Some(probe.without);
        return status;
    }
    for method in probe.methods {
        match try_method(method, object, facts, remedy) {
            Ok(()) => {
                status.attached = true;
                status.method = method.attachment.method();
                status.program = Some(method.program);
                return status;
            }
            Err(failure) => status.reasons.push(failure),
        }
    }
    status.without = Some(probe.without);
    status
}

fn try_method(
    method: &Method,
    object: &mut Object,
    facts: &KernelFacts,
    remedy: &dyn Fn(i32) -> Option<String>,
) -> Result<(), MethodFailure> {
    let failed = |reason: String, remedy: Option<String>| MethodFailure {
        method: method.attachment.method(),
        reason,
        remedy,
    };
    facts
        .require(method.offsets)
        .and_then(|()| (method.also.check)(facts))
        .map_err(|missing| failed(missing.reason, missing.remedy))?;
    object
        .attach(method.program, method.attachment)
        .map_err(|error| {
            let remedy = error.errno().and_then(remedy);
            failed(chain(&error), remedy)
        })
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
