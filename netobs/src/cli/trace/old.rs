//! Events of the past, from files or from an agent.

use std::{
    io,
    ops::ControlFlow,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::tz::TimeZone;
use nix::poll::{PollFd, PollFlags, poll};

use super::{TraceArgs, report};
use crate::{
    cli::past::{self, Request},
    recorder::{self, Damage, Range},
    sys::signals::EndSignals,
    trace::{Filter, Line, Lines, Outlet, Tally},
};

/// How often it is looked whether a signal came or the work is done.
const INTERVAL_MS: u8 = 50;
/// How long the work may take to notice that it shall end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where events come from.
pub(super) enum Source<'a> {
    Files(&'a Path, Range),
    Agent(Request),
}

/// Shows lines as far as they pass.
struct Shown {
    filter: Filter,
    outlet: Outlet<io::Stdout>,
    count: Option<u64>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Shown {
    /// Shows a line, if it passes; `Break` when enough was shown.
    fn take(&mut self, line: &Line) -> io::Result<ControlFlow<()>> {
        self.tally.seen.fetch_add(1, Relaxed);
        if !self.filter.admits(&line.subject()) {
            self.tally.filtered.fetch_add(1, Relaxed);
        } else {
            self.outlet.write(line)?;
            let shown = self.tally.shown.fetch_add(1, Relaxed) + 1;
            if self.count.is_some_and(|count| shown >= count) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(match self.stop.load(Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }
}

pub(super) fn run(
    args: &TraceArgs,
    filter: Filter,
    signals: &EndSignals,
    source: Source<'_>,
) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::default());
    let stop = Arc::new(AtomicBool::new(false));
    let shown = Shown {
        filter,
        outlet: args.outlet(true),
        count: args.count,
        tally: Arc::clone(&tally),
        stop: Arc::clone(&stop),
    };
    // The work may hang in a slow output or network: a thread of its own can be left behind.
    let work: Box<dyn FnOnce() -> anyhow::Result<Damage> + Send> = match source {
        Source::Files(path, range) => {
            let reading = recorder::read(path, range)?;
            Box::new(move || files(reading, shown))
        }
        Source::Agent(request) => Box::new(move || agent(&request, shown)),
    };
    let work = std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(work)
        .context("failed to start the thread that reads")?;
    let begun = Instant::now();
    let mut ending = None;
    while !work.is_finished() {
        let mut waiting = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let signalled = poll(&mut waiting, INTERVAL_MS).is_ok_and(|ready| ready > 0);
        let over = args.duration.is_some_and(|most| begun.elapsed() >= most);
        if ending.is_none() && (signalled || over) {
            stop.store(true, Relaxed);
            ending = Some(Instant::now());
        }
        if ending.is_some_and(|since: Instant| since.elapsed() > LAST_WORDS) {
            report(&tally, &[]);
            return Ok(());
        }
        if signalled {
            std::thread::sleep(Duration::from_millis(INTERVAL_MS.into()));
        }
    }
    let result = match work.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("the thread that reads has panicked"),
    };
    let gone = |error: &anyhow::Error| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match result {
        Ok(damage) => {
            report(&tally, &[]);
            past::tell(&damage);
            Ok(())
        }
        Err(error) if gone(&error) => {
            report(&tally, &[]);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn files(mut reading: recorder::Reading, mut shown: Shown) -> anyhow::Result<Damage> {
    // Whose a cgroup was is recorded; its number means nothing here and now.
    let mut lines = Lines::without_workloads(TimeZone::system());
    for recorded in &mut reading {
        lines.learn(&recorded.event);
        if recorded.context {
            continue;
        }
        let line = lines.recorded(&recorded);
        if shown.take(&line)?.is_break() {
            break;
        }
    }
    shown.outlet.flush()?;
    Ok(reading.damage().clone())
}

fn agent(request: &Request, mut shown: Shown) -> anyhow::Result<Damage> {
    request.lines(|line| Ok(shown.take(&line)?))?;
    shown.outlet.flush()?;
    Ok(Damage::default())
}
