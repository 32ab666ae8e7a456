//! The only place where all rooms meet: bind, attach, serve, stop.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use crate::{
    agent::{Agent, AgentSurface, DISCOVERY_INTERVAL, LOOK_INTERVAL},
    cli::failure::WithHint,
    config::Config,
    web::{Options, Server},
};

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// When an address cannot be bound, or nothing can be observed.
pub fn run(config: &Config) -> anyhow::Result<()> {
    // Bound first: a port that is taken is found out before anything is attached.
    let options = Options {
        telemetry_path: config.web.telemetry_path.clone(),
        ..Options::default()
    };
    let server = Server::bind(&config.web.listen_addresses, options)?;
    for address in server.local_addrs() {
        info!("serving http://{address}{}", config.web.telemetry_path);
    }
    let agent = Agent::start(config).map_err(|failure| match failure.hint {
        Some(hint) => anyhow::Error::new(WithHint::new(failure.error, hint)),
        None => failure.error.into(),
    })?;
    let surface = Arc::new(AgentSurface::new(Arc::new(Mutex::new(agent))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let served = runtime.block_on(watch(server, surface));
    // What is still being answered after the server's own patience is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(100));
    info!("stopped; everything is detached");
    served
}

async fn watch(server: Server, surface: Arc<AgentSurface>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
    };
    let looking = tokio::spawn(look(Arc::clone(&surface)));
    let served = server.serve(surface, stop).await;
    looking.abort();
    Ok(served?)
}

/// Looks and discovers at fixed intervals, for ever.
async fn look(surface: Arc<AgentSurface>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discoveries = interval(DISCOVERY_INTERVAL);
    discoveries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => surface.agent().look(),
            _ = discoveries.tick() => surface.agent().discover(),
        }
    }
}
