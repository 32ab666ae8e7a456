//! The terminal: taken, drawn on, and given back as it was, whatever happens.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use nix::sys::signal::{Signal, raise};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event, execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Bytes of a frame that are written at once: a full screen with colours is some 20 KiB.
const BUFFER: usize = 64 * 1024;

type Drawing = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// The terminal while it is ours. Dropping it gives it back.
pub(super) struct Screen(Drawing);

impl Screen {
    /// Takes the terminal. A panic on any thread gives it back before it is reported.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                report(panic);
            }));
        });
        take().map(Self)
    }

    /// Draws a frame; nothing once the terminal was given back.
    ///
    /// # Errors
    /// When the terminal refuses, or is gone.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if TAKEN.load(SeqCst) {
            self.0.draw(frame)?;
        }
        Ok(())
    }

    /// Gives the terminal back, stops the process as Ctrl-Z does in a shell, and takes the terminal
    /// again when it is continued.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        raise(Signal::SIGTSTP)?;
        // Another one draws everything. To have this one do it would ask the terminal for its cursor,
        // whose answer is a key to the thread that waits for keys.
        self.0 = take()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<Drawing> {
    let taken = || {
        enable_raw_mode()?;
        TAKEN.store(true, SeqCst);
        execute!(io::stdout(), EnterAlternateScreen)?;
        let out = BufWriter::with_capacity(BUFFER, io::stdout());
        Terminal::new(CrosstermBackend::new(out))
    };
    taken().inspect_err(|_| give_back())
}

/// Gives the terminal back, once. That one which is gone refuses is no fault.
fn give_back() {
    if TAKEN.swap(false, SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = io::stdout().flush();
        let _ = disable_raw_mode();
    }
}

/// Only its mode, without a write: for one that takes nothing more.
pub(super) fn give_back_mode() {
    let _ = disable_raw_mode();
}

/// Makes ready what waits for keys and for changes of size, which opens descriptors that are refused
/// once rights are given up.
///
/// # Errors
/// When the terminal refuses.
pub(super) fn prepare_keys() -> io::Result<()> {
    event::poll(Duration::ZERO).map(drop)
}
