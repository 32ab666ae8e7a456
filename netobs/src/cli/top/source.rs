//! Where readings come from: an agent of its own.

use std::{
    io,
    ops::ControlFlow,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::TopArgs;
use crate::{
    agent::{Agent, Viewer, Watch},
    cli::unless_off,
    config::{Config, Hardening, Overrides},
    probes::ACCEPT_CALLS,
    sys::{hardening::Outgoing, signals::EndSignals},
    top::Reading,
};

/// An agent that has attached, and what makes readings of it.
pub(super) struct Source {
    agent: Agent,
    viewer: Viewer,
    interval: Duration,
}

impl Source {
    /// Attaches.
    pub(super) fn start(args: &TopArgs, known_probes: &[&str]) -> anyhow::Result<Self> {
        let flags = Overrides {
            enable: unless_off(&[ACCEPT_CALLS], &args.disable),
            disable: args.disable.clone(),
            // What is shown needs no record.
            recorder_size: Some(0),
            ..Overrides::default()
        };
        let config = Config::resolve(None, flags, known_probes)?;
        let viewer = Viewer::prepare();
        let agent = Agent::start(&config)?;
        Ok(Self {
            agent,
            viewer,
            interval: args.interval,
        })
    }

    /// Gives up what it needed to attach; before any thread is started.
    pub(super) fn harden(&mut self) {
        self.agent
            .harden(Hardening::default(), &[], Outgoing::default());
    }

    /// Hands a reading to `put` at each interval until that says so, a signal comes, or stdout is
    /// gone. `put` must not wait; `enough` is asked at each look, ten times a second.
    pub(super) fn run(
        mut self,
        signals: &EndSignals,
        mut enough: impl FnMut() -> bool,
        mut put: impl FnMut(Reading) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.viewer
            .begin()
            .context("failed to start the thread that audits settings")?;
        let stdout = io::stdout();
        let watch = Watch {
            signals: signals.as_fd(),
            output: stdout.as_fd(),
            duration: None,
        };
        let (viewer, interval) = (&mut self.viewer, self.interval);
        let mut next = Instant::now();
        let read = |agent: &mut Agent| {
            if enough() {
                return ControlFlow::Break(());
            }
            let now = Instant::now();
            if now < next {
                return ControlFlow::Continue(());
            }
            // A reading that comes late is not made up for.
            next = now.max(next + interval);
            put(viewer.read(agent))
        };
        self.agent
            .watch_with(&watch, read)
            .context("failed to wait for events")?;
        Ok(())
    }
}
