//! The view: takes keys and readings, draws.
//!
//! Four threads. One reads the agent, and puts each reading where only the latest stays. One waits
//! for keys. One waits for signals and for a terminal that hangs up. The first one draws; however
//! long a terminal takes for that, nobody waits for it.

use std::{
    io,
    ops::ControlFlow,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use jiff::Zoned;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::crossterm::event::{self, Event, KeyEvent};

use super::{
    TopArgs,
    handover::Latest,
    screen::{Screen, give_back_mode, prepare_keys},
    source::Source,
};
use crate::{
    sys::signals::EndSignals,
    top::{Reading, State, Then, action, view},
};

/// Keys and notices that wait to be taken.
const WAITING: usize = 64;
/// How often it is looked whether the agent still runs.
const CHECK: Duration = Duration::from_secs(1);
/// How long a frame may take to be written once the view is to end.
const LAST_FRAME: Duration = Duration::from_secs(1);

/// What the view is told.
enum Notice {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// There is a reading.
    Reading,
    /// It is to end.
    End,
}

/// How far the end is.
#[derive(Default)]
struct Ending {
    /// The view is to end.
    asked: AtomicBool,
    /// The terminal is given back.
    done: AtomicBool,
}

pub(super) fn run(
    args: &TopArgs,
    signals: EndSignals,
    known_probes: &[&str],
) -> anyhow::Result<()> {
    let mut source = Source::start(args, known_probes)?;
    prepare_keys().context("failed to take keys from the terminal")?;
    source.harden();
    let signals = Arc::new(signals);
    let ending = Arc::new(Ending::default());
    let latest = Latest::default();
    let (sender, receiver) = sync_channel(WAITING);
    let mut screen = Screen::open().context("failed to take the terminal")?;
    start_warden(&signals, &ending, &sender)?;
    start_keys(&sender)?;
    let reader = start_reader(source, &signals, &ending, &latest, &sender)?;
    drop(sender);

    let drawn = View {
        args,
        state: State::new(&args.filter),
        latest,
        receiver,
    }
    .run(&mut screen, || reader.is_finished());
    drop(screen);
    let asked = ending.asked.swap(true, SeqCst);
    ending.done.store(true, SeqCst);
    let read = reader.join();
    match drawn {
        // A terminal that was closed cannot be drawn on, and that is how it ends.
        Err(_) if asked => {}
        drawn => drawn.context("failed to draw")?,
    }
    read.map_err(|_| anyhow!("the thread that reads the agent panicked"))?
}

struct View<'a> {
    args: &'a TopArgs,
    state: State,
    latest: Latest<Reading>,
    receiver: Receiver<Notice>,
}

impl View<'_> {
    /// Until the user, a signal or the end of the agent's thread ends it.
    fn run(mut self, screen: &mut Screen, over: impl Fn() -> bool) -> io::Result<()> {
        let mut look = self.args.look();
        loop {
            if let Some(reading) = self.latest.take() {
                self.state.take(&reading);
            }
            look.clock = Zoned::now().strftime("%H:%M:%S %Z").to_string();
            screen.draw(|frame| view::draw(frame, &mut self.state, &look))?;
            let first = match self.receiver.recv_timeout(CHECK) {
                Ok(notice) => notice,
                Err(RecvTimeoutError::Timeout) if !over() => continue,
                Err(_) => return Ok(()),
            };
            // Keys that came meanwhile are taken before the next frame: it shows what they did.
            let waiting = self.receiver.try_iter().take(WAITING).collect::<Vec<_>>();
            for notice in std::iter::once(first).chain(waiting) {
                let then = match notice {
                    Notice::End => return Ok(()),
                    Notice::Reading | Notice::Resized => Then::Draw,
                    Notice::Key(key) => match action(key, &self.state) {
                        Some(action) => self.state.act(action),
                        None => Then::Draw,
                    },
                };
                match then {
                    Then::Draw => {}
                    Then::Suspend => screen.suspend()?,
                    Then::Quit => return Ok(()),
                }
            }
            if over() {
                return Ok(());
            }
        }
    }
}

fn start_reader(
    source: Source,
    signals: &Arc<EndSignals>,
    ending: &Arc<Ending>,
    latest: &Latest<Reading>,
    sender: &SyncSender<Notice>,
) -> io::Result<JoinHandle<anyhow::Result<()>>> {
    let (signals, ending) = (Arc::clone(signals), Arc::clone(ending));
    let (latest, sender) = (latest.clone(), sender.clone());
    let read = move || {
        let enough = || ending.asked.load(SeqCst);
        let put = |reading| {
            latest.put(reading);
            // A view that has much to do looks for a reading anyway.
            let _ = sender.try_send(Notice::Reading);
            ControlFlow::Continue(())
        };
        let result = source.run(&signals, enough, put);
        let _ = sender.try_send(Notice::End);
        result
    };
    thread::Builder::new().name("agent".to_owned()).spawn(read)
}

/// Waits for keys. It is never waited for: a read of a terminal that is gone may not come back.
fn start_keys(sender: &SyncSender<Notice>) -> io::Result<()> {
    let sender = sender.clone();
    let wait = move || {
        loop {
            let notice = match event::read() {
                Ok(Event::Key(key)) => Notice::Key(key),
                Ok(Event::Resize(..)) => Notice::Resized,
                Ok(_) => continue,
                Err(_) => Notice::End,
            };
            let last = matches!(notice, Notice::End);
            if sender.send(notice).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(wait)
        .map(drop)
}

/// Waits for a signal or for a terminal that hangs up, and ends the view. One that is stuck in a
/// terminal that takes nothing (stopped by Ctrl-S, or a connection that hangs) is left behind.
fn start_warden(
    signals: &Arc<EndSignals>,
    ending: &Arc<Ending>,
    sender: &SyncSender<Notice>,
) -> io::Result<()> {
    let (signals, ending) = (Arc::clone(signals), Arc::clone(ending));
    let sender = sender.clone();
    let wait = move || {
        wait_for_end(&signals);
        if ending.done.load(SeqCst) {
            return;
        }
        ending.asked.store(true, SeqCst);
        let _ = sender.try_send(Notice::End);
        let step = Duration::from_millis(10);
        for _ in 0..LAST_FRAME.as_millis() / step.as_millis() {
            if ending.done.load(SeqCst) {
                return;
            }
            thread::sleep(step);
        }
        give_back_mode();
        std::process::exit(0);
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map(drop)
}

fn wait_for_end(signals: &EndSignals) {
    let stdin = io::stdin();
    loop {
        let mut waiting = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => {}
            // With an error, too: without this thread, nothing would end the view.
            _ => return,
        }
    }
}
