//! The table of probes: what each observes, what it needs, what it costs, how exact it is.
//!
//! A probe has an ordered list of methods; at start the first that this kernel can carry out is
//! used, and the reasons why the others were not are kept and shown.

mod accept_queue;
mod connection_signals;
mod dns;
mod existing_sockets;
mod facts;
mod gone_sockets;
mod inet_sock_set_state;
mod kfree_skb;
mod listen_call;
mod listen_drops;
mod listener_readings;
mod resets;
mod signals;
mod sys_exit_accept;
mod tcp_destroy_sock;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod time_wait;

pub use connection_signals::signals as connection_signals;
pub use facts::{BtfSource, KernelFacts, Missing, Requirement};
pub use listen_call::signal as listen_argument;
pub use listen_drops::ListenMethod;
use netobs_common::{offsets::Offset, probe::Program};
use serde::Serialize;
pub use signals::{Exactness, Signal, SignalInfo, lowered, signals};

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
    /// A probe without which this one must not run.
    pub requires: Option<&'static str>,
    /// A probe beside which this one has nothing to add.
    pub unless: Option<&'static str>,
    /// Whether its signal is served without it as well, only less exactly: that it cannot be attached
    /// is then nothing to mend.
    pub optional: bool,
    /// Ways to observe it, best first.
    pub methods: &'static [Method],
}

/// One way to carry out a probe.
#[derive(Debug)]
pub struct Method {
    /// Under which its events and losses are counted.
    pub counts: Program,
    /// Programs of the eBPF object and where each is attached, in that order. All, or none.
    pub programs: &'static [(&'static str, Attachment)],
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
    &listen_drops::TCP_V4_CONN_REQUEST,
    &listen_drops::TCP_V6_CONN_REQUEST,
    &listen_drops::SUBFLOW_V4_CONN_REQUEST,
    &listen_drops::SUBFLOW_V6_CONN_REQUEST,
    &listen_drops::TCP_CHECK_REQ,
    &listen_drops::COOKIE_V4_CHECK,
    &listen_drops::COOKIE_V6_CHECK,
    &listen_drops::TCP_REQ_ERR,
    &kfree_skb::PROBE,
    &accept_queue::ENQUEUE,
    &accept_queue::DEQUEUE,
    &tcp_destroy_sock::PROBE,
    &inet_sock_set_state::PROBE,
    &sys_exit_accept::PROBE,
    &time_wait::PROBE,
    &resets::SENT,
    &resets::RECEIVED,
    &existing_sockets::PROBE,
    &listener_readings::PROBE,
    &gone_sockets::PROBE,
    &dns::PROBE,
];

/// The probe of name lookups.
pub const LOOKUPS: &str = "dns";
/// The probe that sees accepts where [`accept_queue`] cannot.
pub const ACCEPT_CALLS: &str = "sys_exit_accept";

/// Probes that cost also where nothing happens that they watch, and are therefore attached only when asked
/// for; and what they cost.
const ON_REQUEST: &[(&str, &str)] = &[
    (LOOKUPS, "it costs on every packet"),
    (
        ACCEPT_CALLS,
        "it costs on every system call of every process",
    ),
];

/// Names of all probes, for checking what the user typed.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROBES.iter().map(|probe| probe.name).collect()
}

impl Method {
    /// The value of the `method` label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.programs
            .first()
            .map_or("none", |(_, attachment)| attachment.method())
    }
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
    /// Whether it would watch if it could: not so when it was switched off, another probe does
    /// better what it is for, or this kernel has nothing for it to watch.
    pub wanted: bool,
    /// The programs that run, when some do, and under which number they count.
    #[serde(skip)]
    pub running: Option<(Program, &'static [(&'static str, Attachment)])>,
    /// Why it, or better methods of it, are not in use, best first.
    pub reasons: Vec<MethodFailure>,
    /// What is lost to the user, when it is wanted and not attached.
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

/// Which probes the user wants: all but some, and of those that are off by default only some.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of probes that are asked for.
    pub also: Vec<String>,
    /// Names of probes that are switched off.
    pub except: Vec<String>,
}

impl Selection {
    /// Whether a probe is to be attached.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|listed| listed == name);
        !listed(&self.except) && (price(name).is_none() || listed(&self.also))
    }

    /// Why a probe that is not wanted is not.
    fn reason(&self, name: &str) -> String {
        if self.except.iter().any(|except| except == name) {
            "switched off by the configuration".to_owned()
        } else {
            let price = price(name).map_or_else(String::new, |price| format!(": {price}"));
            format!("off unless asked for with --probe {name}{price}")
        }
    }
}

/// What a probe that is only attached on request costs always.
fn price(name: &str) -> Option<&'static str> {
    let mut on_request = ON_REQUEST.iter();
    on_request.find(|(probe, _)| *probe == name).map(|it| it.1)
}

impl ProbeStatus {
    fn new(probe: &'static Probe) -> Self {
        Self {
            probe: probe.name,
            method: probe.methods.first().map_or("none", Method::name),
            attached: false,
            wanted: true,
            running: None,
            reasons: Vec::new(),
            without: Some(probe.without),
        }
    }

    fn run(&mut self, method: &'static Method) {
        self.attached = true;
        self.method = method.name();
        self.running = Some((method.counts, method.programs));
        self.without = None;
    }

    /// It is not to watch, for a reason that is no fault.
    fn spare(mut self, reason: impl Into<String>) -> Self {
        self.wanted = false;
        self.without = None;
        self.reasons = vec![MethodFailure {
            method: self.method,
            reason: reason.into(),
            remedy: None,
        }];
        self
    }

    /// It must not watch, because another probe does not.
    fn without(mut self, required: &str) -> Self {
        self.reasons.push(MethodFailure {
            method: self.method,
            reason: format!("needs the probe {required}, which is not attached"),
            remedy: None,
        });
        self
    }

    /// Notes that it could not be put to use after all.
    pub fn fail(&mut self, error: &dyn std::error::Error) {
        self.attached = false;
        self.running = None;
        self.reasons.push(MethodFailure {
            method: self.method,
            reason: chain(error),
            remedy: None,
        });
        self.without = find(self.probe).map(|probe| probe.without);
    }
}

fn find(name: &str) -> Option<&'static Probe> {
    PROBES.iter().find(|probe| probe.name == name).copied()
}

/// What attaching needs to know.
pub struct Attaching<'a> {
    /// The loaded object.
    pub object: &'a mut Object,
    /// The kernel.
    pub facts: &'a KernelFacts,
    /// What the user wants.
    pub selection: &'a Selection,
    /// What to do about an errno, for humans.
    pub remedy: &'a dyn Fn(i32) -> Option<String>,
}

/// Attaches every wanted probe by its best method. A failure never stops the others.
///
/// Returns the probes in the order of [`PROBES`], and by which method listen drops are counted.
pub fn attach_all(attaching: &mut Attaching<'_>) -> (Vec<ProbeStatus>, ListenMethod) {
    attaching.preload();
    let (mut statuses, listen) = listen_drops::attach(attaching);
    for probe in PROBES {
        if statuses.iter().any(|status| status.probe == probe.name) {
            continue;
        }
        let watches = |name: &str| {
            statuses
                .iter()
                .any(|status: &ProbeStatus| status.probe == name && status.attached)
        };
        let status = if let Some(better) = probe.unless.filter(|name| watches(name)) {
            let reason = format!("not needed: {better} sees more");
            ProbeStatus::new(probe).spare(reason)
        } else if let Some(name) = probe.requires.filter(|name| !watches(name)) {
            ProbeStatus::new(probe).without(name)
        } else {
            attaching.best(probe)
        };
        statuses.push(status);
    }
    attaching.object.unload_spare();
    statuses.sort_by_key(|status| PROBES.iter().position(|probe| probe.name == status.probe));
    (statuses, listen)
}

impl Attaching<'_> {
    /// Loads what will probably be attached: of each probe that is wanted, the first method that has
    /// what it needs.
    fn preload(&mut self) {
        let wanted = PROBES
            .iter()
            .filter(|probe| self.selection.wants(probe.name));
        let methods = wanted.filter_map(|probe| {
            let mut methods = probe.methods.iter();
            methods.find(|method| self.has_needs(method).is_ok())
        });
        let programs: Vec<_> = methods
            .flat_map(|method| method.programs)
            .copied()
            .collect();
        self.object.preload(&programs);
    }

    /// Whether this kernel has what a method needs, as far as can be told beforehand.
    fn has_needs(&self, method: &Method) -> Result<(), Missing> {
        self.facts
            .require(method.offsets)
            .and_then(|()| (method.also.check)(self.facts))
    }

    /// Attaches a probe by its best method.
    fn best(&mut self, probe: &'static Probe) -> ProbeStatus {
        let mut status = ProbeStatus::new(probe);
        if !self.selection.wants(probe.name) {
            return status.spare(self.selection.reason(probe.name));
        }
        for method in probe.methods {
            match self.attach(method) {
                Ok(()) => {
                    status.run(method);
                    break;
                }
                Err(failure) => status.reasons.push(failure),
            }
        }
        status.wanted = status.attached || !probe.optional;
        status
    }

    /// Attaches all programs of a method, or none.
    fn attach(&mut self, method: &Method) -> Result<(), MethodFailure> {
        let failed = |reason: String, remedy: Option<String>| MethodFailure {
            method: method.name(),
            reason,
            remedy,
        };
        self.has_needs(method)
            .map_err(|missing| failed(missing.reason, missing.remedy))?;
        for (program, attachment) in method.programs {
            if let Err(error) = self.object.attach(program, *attachment) {
                self.detach(method);
                let remedy = error.errno().and_then(self.remedy);
                return Err(failed(chain(&error), remedy));
            }
        }
        Ok(())
    }

    fn detach(&mut self, method: &Method) {
        for (program, _) in method.programs {
            self.object.detach(program);
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
