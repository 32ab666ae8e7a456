//! The only place where all rooms meet: bind, attach, give up rights, serve, stop.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    agent::{Agent, AgentSurface, Auditor, DISCOVERY_INTERVAL, LOOK_INTERVAL},
    cli::failure::WithHint,
    config::Config,
    logging::LevelControl,
    names::{Access, Resolver, Settings},
    sys::supervisor::Supervisor,
    web::{Options, Server, SettingsError, WebFile},
};

/// What SIGHUP reads again.
pub struct Reread {
    /// Flags and file, merged and checked anew.
    pub config: Box<dyn Fn() -> Result<Config, crate::config::Error> + Send>,
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
    let signals = {
        let _inside = runtime.enter();
        Signals::take()?
    };
    let supervisor = Supervisor::from_environment()
        .inspect_err(|error| warn!(%error, "failed to reach the service manager"))
        .unwrap_or_default();
    let mut agent = Agent::start(config).map_err(|failure| match failure.hint {
        Some(hint) => anyhow::Error::new(WithHint::new(failure.error, hint)),
        None => failure.error.into(),
    })?;
    let auditor = Auditor::prepare();
    let naming = naming(config)?;
    let outgoing = naming.outgoing();
    let mut files = web_file.as_ref().map_or_else(Vec::new, |file| file.files());
    files.extend(naming.files());
    let resolver = Resolver::prepare(naming)?;
    if let Some(resolver) = &resolver {
        agent.show(resolver.names());
    }
    // Before any thread is started: they inherit what is left.
    agent.harden(config.hardening, &files, outgoing);
    let surface = Arc::new(AgentSurface::new(
        Arc::new(Mutex::new(agent)),
        auditor.metrics(),
    ));
    let _naming = resolver.map(Resolver::start).transpose()?;
    let _auditing = auditor.start().context("failed to start the auditor")?;
    let duties = Duties {
        supervisor: supervisor.map(|supervisor| Arc::new(Mutex::new(supervisor))),
        reread,
        web_file,
    };
    let served = runtime.block_on(watch(server, surface, signals, duties));
    // What is still being answered after the server's own patience is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(100));
    info!("stopped; everything is detached");
    served
}

/// Where names of pods and containers are to come from.
fn naming(config: &Config) -> anyhow::Result<Settings> {
    let kubernetes = &config.kubernetes;
    let access = || {
        let node = kubernetes
            .node
            .as_deref()
            .context("the name of this node is not known: set --kubernetes.node or NODE_NAME")?;
        Access::of_pod(node).context("failed to find the Kubernetes API")
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
}

impl Duties {
    /// Says something to the service manager, if there is one.
    fn say(&self, what: impl FnOnce(&mut Supervisor) -> io::Result<()>) {
        say(self.supervisor.as_deref(), what);
    }

    /// Reads again what can be read again. What cannot be used is left as it was.
    fn reload(&self) {
        self.say(|supervisor| supervisor.reloading());
        match (self.reread.config)() {
            Ok(config) => self.reread.level.set(config.log.level),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the configuration cannot be used; the old one stays in force"
            ),
        }
        if let Some(Err(error)) = self.web_file.as_ref().map(|file| file.reload()) {
            warn!(
                error = &error as &dyn std::error::Error,
                "the web configuration cannot be used; the old one stays in force"
            );
        }
        info!("SIGHUP: read the log level and the web configuration again");
        self.say(|supervisor| supervisor.ready());
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
    mut signals: Signals,
    duties: Duties,
) -> anyhow::Result<()> {
    let looking = tokio::spawn(look(Arc::clone(&surface), duties.supervisor.clone()));
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

/// Looks and discovers at fixed intervals, for ever. Only a look that has come to its end feeds the
/// watchdog: an agent that hangs is started anew.
async fn look(surface: Arc<AgentSurface>, supervisor: Option<Arc<Mutex<Supervisor>>>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discoveries = interval(DISCOVERY_INTERVAL);
    discoveries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                surface.agent().look();
                say(supervisor.as_deref(), |supervisor| supervisor.alive(Instant::now()));
            }
            _ = discoveries.tick() => surface.agent().discover(),
        }
    }
}
