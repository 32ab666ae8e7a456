//! From a configuration to a running agent.

use std::{collections::HashSet, path::Path, time::Instant};

use netobs_common::kernel::{NO_REASON, identity};
use tracing::{info, warn};

use super::{
    Agent, BurstWatch, Context, DnsWatch, DropWatch, Events, History, LINGER, Namespaces,
    ProcOwners, Reload, Rest, Sweep, room,
};
use crate::{
    bpf::{GoneSockets, ListenerReadings, Loader, Maps, Object, ObjectError, Ring, SocketIter},
    config::{self, Config},
    ledger::{
        accepts::AcceptBook,
        connects::ConnectBook,
        listeners::{Counting, ListenerBook},
        resets::ResetBook,
        retransmits::RetransmitBook,
        stories::Stories,
    },
    metrics::ResetReasons,
    names::Names,
    probes::{
        self, BtfSource, KernelFacts, ListenMethod, MethodFailure, ProbeStatus, Selection,
        SignalInfo,
    },
    recorder::{OpenError, Recorder},
    sys::{
        netns::Thoroughness,
        privilege::{Privileges, bpf_syscall_error_hint},
        tracefs,
    },
};

/// Why the agent cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Rights without which nothing can be attached.
    #[error("not permitted to load programs into the kernel: {missing} missing")]
    Privileges {
        /// The names of the capabilities.
        missing: String,
    },
    /// The object was refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The flight recorder's folder cannot be used.
    #[error(transparent)]
    Recorder(#[from] OpenError),
    /// No probe watches.
    #[error("no probe could be attached; of the first, by {reasons}")]
    NothingAttached {
        /// Why each method of the first probe failed.
        reasons: String,
    },
}

/// The error and, where something can be done, what.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: StartError,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The kernel side at work, before anything is counted.
pub(super) struct Attached {
    object: Object,
    maps: Maps,
    ring: Ring,
    readings: Option<ListenerReadings>,
    sockets: Option<SocketIter>,
    gone: Option<GoneSockets>,
    dns: Option<DnsWatch>,
    pub(super) probes: Vec<ProbeStatus>,
    pub(super) signals: Vec<SignalInfo>,
    counting: Counting,
    reset_reasons: ResetReasons,
    /// Whether the kernel side knows namespaces by their cookies.
    cookies: bool,
}

/// Attaches everything that can be attached. That nothing could be is no failure here.
pub(super) fn attach(
    config: &Config,
    proc_root: &Path,
    privileges: Option<&Privileges>,
) -> Result<Attached, Failure> {
    tracefs::within(|| attach_here(config, proc_root, privileges))
}

fn attach_here(
    config: &Config,
    proc_root: &Path,
    privileges: Option<&Privileges>,
) -> Result<Attached, Failure> {
    if let Some(privileges) = privileges
        && !privileges.can_trace()
    {
        let fatal = privileges
            .missing()
            .into_iter()
            .filter(|missing| missing.fatal);
        return Err(Failure {
            error: StartError::Privileges {
                missing: fatal
                    .map(|missing| missing.name)
                    .collect::<Vec<_>>()
                    .join(" and "),
            },
            hint: Some("run it as root, or give it CAP_BPF and CAP_PERFMON".to_owned()),
        });
    }
    let remedy = |errno: i32| {
        privileges
            .as_ref()
            .map(|privileges| bpf_syscall_error_hint(errno, privileges))
    };

    let source = match &config.probes.btf {
        config::BtfSource::Kernel => BtfSource::Kernel,
        config::BtfSource::File(path) => BtfSource::File(path.clone()),
        config::BtfSource::None => BtfSource::None,
    };
    // The kernel's symbols take the longest; there is time for everything else meanwhile.
    let (mut facts, loader) = std::thread::scope(|scope| {
        let loader = scope.spawn(Loader::prepare);
        let facts = KernelFacts::read(&source, proc_root);
        (facts, loader.join())
    });
    let loader = loader.unwrap_or_else(|_| Loader::prepare());
    let refused = |error: ObjectError| {
        let hint = error.errno().and_then(remedy);
        Failure {
            error: error.into(),
            hint,
        }
    };
    let selection = Selection {
        also: config.probes.enable.clone(),
        except: config.probes.disable.clone(),
    };
    let lookups = selection.wants("dns");
    let types = facts.take_types();
    let sizes = room::sizes(lookups);
    let offsets = facts.offset_table();
    let mut object =
        Object::load(loader, types, &facts.settings, &offsets, &sizes).map_err(refused)?;
    let mut maps = object.take_maps().map_err(refused)?;
    let ring = maps
        .take_ring()
        .ok_or_else(|| refused(ObjectError::Map(netobs_common::names::EVENTS)))?;

    // Before its programs run: they ask what the timeout is.
    let dns = if lookups {
        let watch = |maps| DnsWatch::new(maps, config.limits.max_label_sets);
        maps.take_dns().map(watch).transpose()
    } else {
        Ok(None)
    };
    let (mut probes, listen) = probes::attach_all(&mut probes::Attaching {
        object: &mut object,
        facts: &facts,
        selection: &selection,
        remedy: &remedy,
    });
    let readings = iterator(&mut probes, "listener_readings", || {
        object.listener_readings(&maps)
    });
    let sockets = iterator(&mut probes, "existing_sockets", || object.socket_iter());
    let gone = iterator(&mut probes, "gone_sockets", || object.gone_sockets(&maps));
    let dns = dns.unwrap_or_else(|error| {
        fail(&mut object, &mut probes, "dns", &error);
        None
    });
    let dns = dns.filter(|_| {
        probes
            .iter()
            .any(|probe| probe.probe == "dns" && probe.attached)
    });
    object.forget_types();
    let mut signals = probes::signals(&probes, listen);
    signals.push(probes::listen_argument(
        &facts.settings.listen_call,
        &probes,
    ));
    signals.extend(probes::connection_signals(&facts.settings, &probes));
    let counting = match listen {
        ListenMethod::Differential { .. } => Counting::InKernel,
        ListenMethod::Identity => Counting::ByIdentity {
            stages: facts.settings.reason_listen_overflow != NO_REASON,
        },
        ListenMethod::Bounded => Counting::Bounded,
    };
    Ok(Attached {
        object,
        maps,
        ring,
        readings,
        sockets,
        gone,
        dns,
        probes,
        signals,
        counting,
        cookies: facts.settings.net_identity == identity::COOKIE,
        reset_reasons: ResetReasons::new(facts.reset_reasons),
    })
}

impl Agent {
    /// Attaches everything that can be attached, finds what exists, and begins the count.
    ///
    /// # Errors
    ///
    /// When nothing at all can be observed, with a hint what to do about it.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        let started = Instant::now();
        let proc_root = Path::new("/proc");
        let privileges = Privileges::read(proc_root, Path::new("/sys")).ok();
        let recorder = config.recorder.as_ref().map(Recorder::open).transpose();
        let recorder = recorder.map_err(|error| Failure {
            error: error.into(),
            hint: None,
        })?;
        let Attached {
            #[cfg(feature = "ebpf-log")]
            mut object,
            #[cfg(not(feature = "ebpf-log"))]
            object,
            maps,
            ring,
            readings,
            sockets,
            gone,
            dns,
            probes,
            signals,
            counting,
            reset_reasons,
            cookies,
        } = attach(config, proc_root, privileges.as_ref())?;
        if !probes.iter().any(|probe| probe.attached) {
            let failures = probes.first().map_or(&[][..], |probe| &probe.reasons);
            let reasons: Vec<String> = failures
                .iter()
                .map(|failure| format!("{}: {}", failure.method, failure.reason))
                .collect();
            let remedies: Vec<&str> = failures
                .iter()
                .filter_map(|failure| failure.remedy.as_deref())
                .collect();
            return Err(Failure {
                error: StartError::NothingAttached {
                    reasons: reasons.join("; by "),
                },
                hint: (!remedies.is_empty()).then(|| remedies.join("; or ")),
            });
        }
        let most = config.limits.max_label_sets;
        let mut agent = Self {
            #[cfg(feature = "ebpf-log")]
            kernel_log: object.take_kernel_log(),
            object,
            maps,
            readings,
            sockets,
            sweep: Sweep::new(gone),
            probes,
            signals,
            listeners: ListenerBook::new(most, counting),
            retransmits: RetransmitBook::new(most),
            connects: ConnectBook::new(most),
            accepts: AcceptBook::new(most),
            resets: ResetBook::new(most),
            reset_reasons,
            names: Names::default(),
            dns,
            namespaces: Namespaces::new(proc_root, cookies),
            unfindable: HashSet::new(),
            patrols: 0,
            unknown: 0,
            unseen: Some(HashSet::new()),
            linger: room::linger(LINGER),
            owners: ProcOwners::new(proc_root),
            events: Events::new(ring),
            stories: Stories::default(),
            history: History {
                recorder,
                ..History::default()
            },
            context: Context::default(),
            drops: DropWatch::default(),
            bursts: BurstWatch::new(most, counting),
            last_context: Instant::now(),
            buffer: Vec::new(),
            rest: Rest::new(proc_root),
            closed: Vec::new(),
            started,
            ready: false,
            last_complaint: None,
            last_look: Instant::now(),
            last_forgot: Instant::now(),
            gather_seconds: 0.0,
            hardening: None,
            reload: Reload::default(),
        };
        agent.report_probes();
        agent.take_baseline();
        Ok(agent)
    }

    /// Finds the sockets that exist, and counts from here on.
    fn take_baseline(&mut self) {
        let found = self.namespaces.discover(Thoroughness::Every);
        let found = found.map(|found| found.new).unwrap_or_else(|error| {
            self.complain(&error);
            Vec::new()
        });
        self.unseen = Some(found.iter().copied().collect());
        self.see_older_sockets();
        self.look();
        let owned = self.owners.adopt(&mut self.maps);
        if let Err(error) = owned.and_then(|()| self.take_counts()) {
            self.complain(&error);
        }
        self.listeners.baseline(&self.namespaces.all());
        self.namespaces.baseline(&self.retransmits);
        self.ready = true;
        info!(
            milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            namespaces = found.len(),
            listeners = self.listeners.sockets(),
            "ready"
        );
    }

    /// Says what cannot be seen, once per reason, and how well the rest can.
    fn report_probes(&self) {
        let mut by_reason: Vec<(&MethodFailure, Vec<&str>)> = Vec::new();
        for probe in self
            .probes
            .iter()
            .filter(|probe| probe.wanted && !probe.attached)
        {
            // The first reason is that of the best method.
            let Some(first) = probe.reasons.first() else {
                continue;
            };
            match by_reason
                .iter_mut()
                .find(|(known, _)| known.reason == first.reason)
            {
                Some((_, probes)) => probes.push(probe.probe),
                None => by_reason.push((first, vec![probe.probe])),
            }
        }
        for (failure, probes) in by_reason {
            warn!(
                probes = probes.join(" "),
                method = failure.method,
                reason = failure.reason,
                remedy = failure.remedy,
                "not attached"
            );
        }
        for signal in &self.signals {
            info!(
                method = signal.method,
                exactness = signal.exactness.name(),
                "{}: {}",
                signal.signal.name(),
                signal.because
            );
        }
        let attached = self.probes.iter().filter(|probe| probe.attached).count();
        let wanted = self.probes.iter().filter(|probe| probe.wanted).count();
        info!(attached, wanted, "probes attached");
    }
}

/// Lets go of a probe that could be attached but not be used.
fn fail(
    object: &mut Object,
    probes: &mut [ProbeStatus],
    name: &str,
    error: &dyn std::error::Error,
) {
    if let Some(probe) = probes
        .iter_mut()
        .find(|probe| probe.probe == name && probe.attached)
    {
        if let Some((_, programs)) = probe.running {
            for (program, _) in programs {
                object.detach(program);
            }
        }
        probe.fail(error);
    }
}

/// Makes the link of an iterator whose program is loaded; a failure is a failure of its probe.
fn iterator<T>(
    probes: &mut [ProbeStatus],
    name: &str,
    link: impl FnOnce() -> Result<T, crate::bpf::AttachError>,
) -> Option<T> {
    let probe = probes
        .iter_mut()
        .find(|probe| probe.probe == name && probe.attached)?;
    match link() {
        Ok(link) => Some(link),
        Err(error) => {
            probe.fail(&error);
            None
        }
    }
}
