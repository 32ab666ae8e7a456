//! The only place where all rooms meet: bind, attach, give up rights, serve, stop.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::{
    agent::{
        Agent, AgentSurface, Auditor, DISCOVERY_INTERVAL, Ignored, LOOK_INTERVAL, paths::PathProbes,
    },
    bpf::Filling,
    config::{Config, Key, changes},
    logging::LevelControl,
    names::{Access, Resolver, Settings},
    sys::{memory, supervisor::Supervisor, ticker::Ticker},
    web::{Options, Server, SettingsError, WebFile},
};

/// What SIGHUP reads again.
pub struct Reread {
    /// Flags and file, merged and checked anew.
    pub config: Box<dyn Fn() -> Result<Config, crate::config::Error> + Send>,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Takes the new level.
    pub level: LevelControl,
}

/// Whether the web configuration that `config` names can be used.
///
/// # Errors
///
/// When it, or a file that it names, cannot.
pub fn check(config: &Config) -> Result<(), SettingsError> {
    web_file(config).map(drop)
}

fn web_file(config: &Config) -> Result<Option<Arc<WebFile>>, SettingsError> {
    let path = config.web.config_file.as_deref();
    path.map(|path: &Path| WebFile::load(path).map(Arc::new))
        .transpose()
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// When an address cannot be bound, the web configuration cannot be used, or nothing can be
/// observed.
pub fn run(config: &Config, reread: Reread) -> anyhow::Result<()> {
    memory::share_one_arena();
    // Bound first: a port that is taken is found out before anything is attached.
    let web_file = web_file(config)?;
    let options = Options {
        telemetry_path: config.web.telemetry_path.clone(),
        web_file: web_file.clone(),
        ..Options::default()
    };
    let server = Server::bind(&config.web.listen_addresses, options)?;
    let tls = web_file.as_ref().is_some_and(|file| file.has_tls());
    let scheme = if tls { "https" } else { "http" };
    for address in server.local_addrs() {
        info!("serving {scheme}://{address}{}", config.web.telemetry_path);
    }
    // Opened while sockets can be; it starts no thread before it is used.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Passwords are checked and files looked at on these; see the web room.
        .max_blocking_threads(4)
        .build()
        .context("failed to start the runtime")?;
    // Before anything is attached, so that a signal in between ends nothing half-way.
    let (signals, looks) = {
        let _inside = runtime.enter();
        let looks = Ticker::start(LOOK_INTERVAL).context("failed to start the clock")?;
        (Signals::take()?, looks)
    };
    let supervisor = Supervisor::from_environment()
        .inspect_err(|error| warn!(%error, "failed to reach the service manager"))
        .unwrap_or_default();
    let mut agent = Agent::start(config)?;
    let auditor = Auditor::prepare();
    let naming = naming(config)?;
    let mut outgoing = naming.outgoing();
    let mut paths = PathProbes::new(config.path_probes.clone());
    outgoing.internet |= paths.are_wanted();
    agent.tell_probes(paths.sockets());
    let mut files = web_file.as_ref().map_or_else(Vec::new, |file| file.files());
    files.extend(naming.files());
    let resolver = Resolver::prepare(naming)?;
    if let Some(resolver) = &resolver {
        agent.show(resolver.names());
    }
    // Before any thread is started: they inherit what is left.
    files.extend(reread.file.clone());
    agent.harden(config.hardening, &files, outgoing);
    agent
        .begin_recording()
        .context("failed to start the flight recorder")?;
    let surface = Arc::new(AgentSurface::new(
        Arc::new(Mutex::new(agent)),
        auditor.metrics(),
        paths.book(),
    ));
    paths
        .start(outgoing.internet || !config.hardening.seccomp)
        .context("failed to start the path probes")?;
    let _naming = resolver.map(Resolver::start).transpose()?;
    let ignored = auditor.ignored();
    ignored.set(config.audit.ignore.clone());
    let asked = {
        let surface = Arc::clone(&surface);
        Box::new(move || surface.agent().listen_arguments())
    };
    let auditing = auditor
        .start(asked)
        .context("failed to start the auditor")?;
    let duties = Duties {
        supervisor: supervisor.map(|supervisor| Arc::new(Mutex::new(supervisor))),
        reread,
        web_file,
        surface: Arc::clone(&surface),
        ignored,
        config: config.clone(),
        paths,
    };
    let served = runtime.block_on(watch(server, surface, looks, signals, duties));
    // What is still being answered after the server's own patience is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(100));
    // The last to hold the agent.
    drop(auditing);
    info!("stopped; everything is detached");
    served
}

/// Where names of pods and containers are to come from.
fn naming(config: &Config) -> anyhow::Result<Settings> {
    let kubernetes = &config.kubernetes;
    let access = || {
        let node = kubernetes
            .node
            .clone()
            .or_else(|| std::env::var("NODE_NAME").ok())
            .context("the name of this node is not known: set --kubernetes.node or NODE_NAME")?;
        Access::of_pod(&node).context("failed to find the Kubernetes API")
    };
    Ok(Settings {
        cri_socket: kubernetes.cri_socket.clone(),
        kubernetes: kubernetes.pods.then(access).transpose()?,
    })
}

/// What is done besides looking and serving.
struct Duties {
    supervisor: Option<Arc<Mutex<Supervisor>>>,
    reread: Reread,
    web_file: Option<Arc<WebFile>>,
    surface: Arc<AgentSurface>,
    ignored: Ignored,
    /// What was asked for at the start and since; keys that take a restart stay as they were.
    config: Config,
    paths: PathProbes,
}

impl Duties {
    /// Says something to the service manager, if there is one.
    fn say(&self, what: impl FnOnce(&mut Supervisor) -> io::Result<()>) {
        say(self.supervisor.as_deref(), what);
    }

    /// Reads again what can be read again. When anything in it cannot be used, all is left as it
    /// was.
    fn reload(&mut self) {
        self.say(|supervisor| supervisor.reloading());
        let read = self.reread();
        self.surface.agent().note_reload(read.is_ok());
        match read {
            Ok(config) => self.take(config),
            Err(error) => warn!(
                error = &*error,
                "SIGHUP: the configuration cannot be used; the old one stays in force"
            ),
        }
        self.say(|supervisor| supervisor.ready());
    }

    /// The web configuration is in force when this returns.
    fn reread(&self) -> Result<Config, Box<dyn std::error::Error>> {
        let config = (self.reread.config)()?;
        if let Some(file) = &self.web_file {
            file.reload()?;
        }
        Ok(config)
    }

    fn take(&mut self, config: Config) {
        let (live, rest): (Vec<_>, Vec<_>) = changes(&self.config, &config)
            .into_iter()
            .partition(|key| key.live);
        let names = |keys: Vec<Key>| {
            keys.iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        self.surface.agent().limit(config.limits);
        self.ignored.set(config.audit.ignore.clone());
        self.paths.reload(&config.path_probes);
        // A change of the level must not swallow its own message.
        info!(
            changed = names(live),
            "SIGHUP: read the configuration again"
        );
        if !rest.is_empty() {
            warn!(
                keys = names(rest),
                "SIGHUP: these keys have changed and take effect at the next start"
            );
        }
        self.reread.level.set(config.log.level);
        // The keys that take a restart are named again at the next reading: they still wait.
        self.config.limits = config.limits;
        self.config.log.level = config.log.level;
        self.config.audit = config.audit;
        self.config.path_probes = config.path_probes;
    }
}

fn say(
    supervisor: Option<&Mutex<Supervisor>>,
    what: impl FnOnce(&mut Supervisor) -> io::Result<()>,
) {
    if let Some(supervisor) = supervisor {
        let mut supervisor = supervisor
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        if let Err(error) = what(&mut supervisor) {
            warn!(%error, "failed to tell the service manager");
        }
    }
}

/// The signals that are acted upon; those that come before they are awaited are kept.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("failed to await SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("failed to await SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("failed to await SIGHUP")?,
        })
    }
}

async fn watch(
    server: Server,
    surface: Arc<AgentSurface>,
    looks: Ticker,
    mut signals: Signals,
    mut duties: Duties,
) -> anyhow::Result<()> {
    let looking = tokio::spawn(look(Arc::clone(&surface), looks, duties.supervisor.clone()));
    let stop = async {
        duties.say(|supervisor| supervisor.ready());
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => {
                    info!("SIGTERM: stopping");
                    break;
                }
                _ = signals.interrupt.recv() => {
                    info!("SIGINT: stopping");
                    break;
                }
                _ = signals.hangup.recv() => duties.reload(),
            }
        }
        duties.say(|supervisor| supervisor.stopping());
    };
    let served = server.serve(surface, stop).await;
    looking.abort();
    Ok(served?)
}

/// Waits until the event ring fills; for ever, if that cannot be waited for.
async fn fills(ring: Option<&Filling>) {
    match ring {
        Some(ring) => ring.wait().await,
        None => std::future::pending().await,
    }
}

/// Looks and discovers at fixed intervals, for ever. Only a look that has come to its end feeds the
/// watchdog: an agent that hangs is started anew.
async fn look(
    surface: Arc<AgentSurface>,
    looks: Ticker,
    supervisor: Option<Arc<Mutex<Supervisor>>>,
) {
    let mut discovered = Instant::now();
    let ring = surface.agent().filling();
    let ring = ring
        .inspect_err(|error| warn!(%error, "the event ring is looked at by the clock only"))
        .ok();
    loop {
        tokio::select! {
            () = looks.tick() => {
                surface.agent().glance();
                if discovered.elapsed() >= DISCOVERY_INTERVAL {
                    discovered = Instant::now();
                    surface.agent().patrol();
                }
                say(supervisor.as_deref(), |supervisor| supervisor.alive(Instant::now()));
            }
            () = fills(ring.as_ref()) => surface.agent().take_events(),
        }
    }
}
