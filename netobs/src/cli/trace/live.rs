//! Events as they happen.

use std::{
    io,
    ops::ControlFlow,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::tz::TimeZone;
use netobs_common::event::{Event, EventKind, LISTENER_FOUND};

use super::{TraceArgs, lines, report};
use crate::{
    agent::{Agent, Ending, Tap, Watch},
    cli::unless_off,
    config::{Config, Hardening, Overrides},
    ledger::listeners::Counting,
    probes::{ACCEPT_CALLS, LOOKUPS},
    sys::{clock::ClockPair, hardening::Outgoing, signals::EndSignals},
    trace::{Filter, Lines, Sender, Tally, queue},
};

/// How long the output may take for what waits at the end.
const LAST_WRITE: Duration = Duration::from_secs(2);

pub(super) fn run(
    args: &TraceArgs,
    filter: Filter,
    signals: &EndSignals,
    known_probes: &[&str],
) -> anyhow::Result<()> {
    let flags = Overrides {
        enable: unless_off(&on_request(args, &filter), &args.disable),
        disable: args.disable.clone(),
        // What is shown needs no record.
        recorder_size: Some(0),
        ..Overrides::default()
    };
    let config = Config::resolve(None, flags, known_probes)?;
    // Later on, what kind of a terminal it is can no longer be asked.
    let outlet = args.outlet(false);
    let mut agent = Agent::start(&config)?;
    agent.harden(Hardening::default(), &[], Outgoing::default());
    if wants(&filter, EventKind::ListenDrop) {
        say_how(agent.counting());
    }
    let tally = Arc::new(Tally::default());
    let (sender, writing) = queue(outlet, lines(), &tally);
    let output_gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&output_gone);
    let writer = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            let result = writing.run();
            noticed.store(result.is_err(), Relaxed);
            result
        })
        .context("failed to start the thread that writes")?;
    let full = Arc::new(AtomicBool::new(false));
    let kinds = match filter.kinds.as_slice() {
        [] => EventKind::ALL.to_vec(),
        kinds => kinds.to_vec(),
    };
    agent.listen_in(&kinds, tap(filter, sender, args.count, &tally, &full));
    tracing::info!("watching");
    let stdout = io::stdout();
    let watch = Watch {
        signals: signals.as_fd(),
        output: stdout.as_fd(),
        duration: args.duration,
    };
    let enough = || {
        if full.load(Relaxed) || output_gone.load(Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let ended = agent.watch(&watch, enough);
    // The queue's end, so that the writer comes to its own.
    agent.stop_listening();
    let written = finish(writer, ended.as_ref().ok());
    report(&tally, &agent.losses());
    ended.context("failed to wait for events")?;
    written
}

/// Waits for the writer, but not for an output that nobody reads.
fn finish(writer: JoinHandle<io::Result<()>>, ending: Option<&Ending>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !writer.is_finished() {
        if ending == Some(&Ending::OutputGone) || begun.elapsed() > LAST_WRITE {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match writer.join() {
        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to stdout")
        }
        // A panic has been reported by then.
        _ => Ok(()),
    }
}

/// What takes events from the agent: filters, and hands them to the writer.
fn tap(
    filter: Filter,
    sender: Sender,
    count: Option<u64>,
    tally: &Arc<Tally>,
    full: &Arc<AtomicBool>,
) -> Tap {
    let (tally, full) = (Arc::clone(tally), Arc::clone(full));
    let handed = AtomicU64::new(0);
    // Containers are looked up where lines are made; here only when they are asked for.
    let mut lines = match filter.container {
        Some(_) => lines(),
        None => Lines::without_workloads(TimeZone::UTC),
    };
    let mut clock = Clock::default();
    Box::new(move |event| {
        lines.learn(event);
        if full.load(Relaxed) || is_found(event) {
            sender.teach(*event);
            return;
        }
        tally.seen.fetch_add(1, Relaxed);
        if !filter.admits(&lines.subject(event)) {
            tally.filtered.fetch_add(1, Relaxed);
            if matches!(event, Event::Listener(_)) {
                sender.teach(*event);
            }
            return;
        }
        if sender.offer(*event, clock.wall_ns(event.header().ktime_ns))
            && count.is_some_and(|count| handed.fetch_add(1, Relaxed) + 1 >= count)
        {
            full.store(true, Relaxed);
        }
    })
}

/// A listener that was there before is no event, but tells whose later ones are.
fn is_found(event: &Event) -> bool {
    matches!(event, Event::Listener(change) if change.change == LISTENER_FOUND)
}

/// The probes that the wanted events need and that are off unless asked for.
fn on_request(args: &TraceArgs, filter: &Filter) -> Vec<&'static str> {
    // Lookups cost on every packet: only who names them pays.
    let lookups = args.events.iter().any(|name| name == EventKind::Dns.name());
    let needed = [
        (LOOKUPS, lookups),
        (ACCEPT_CALLS, wants(filter, EventKind::Accept)),
    ];
    let needed = needed.iter().filter(|(_, needed)| *needed);
    needed.map(|(probe, _)| *probe).collect()
}

fn wants(filter: &Filter, kind: EventKind) -> bool {
    filter.kinds.is_empty() || filter.kinds.contains(&kind)
}

/// What this kernel cannot show of listen drops.
fn say_how(counting: Counting) {
    let how = match counting {
        Counting::InKernel => return,
        Counting::ByIdentity { .. } => {
            "this kernel has no event for a SYN that a listener drops: such lines (method poll) give \
             the number since the look before, ten times a second, without the peers"
        }
        Counting::Bounded => {
            "this kernel has no event for a connection that a listener drops: such lines (method poll) \
             give a lower bound of the number since the look before, ten times a second, without the \
             peers"
        }
    };
    eprintln!("netobs: listen-drop: {how}");
}

/// Both clocks, read again now and then: the wall clock may be set.
#[derive(Default)]
struct Clock(Option<(Instant, ClockPair)>);

impl Clock {
    const VALID: Duration = Duration::from_millis(500);

    fn wall_ns(&mut self, ktime_ns: u64) -> Option<u64> {
        let pair = match self.0 {
            Some((read, pair)) if read.elapsed() < Self::VALID => pair,
            _ => {
                let pair = ClockPair::sample()?;
                self.0 = Some((Instant::now(), pair));
                pair
            }
        };
        pair.wall_ns(ktime_ns)
    }
}
