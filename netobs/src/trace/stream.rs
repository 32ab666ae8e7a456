//! From events to an output that may be slow.
//!
//! ```text
//! who reads the ring -- Sender::offer --> bounded queue --> Writing::run --> Outlet --> stdout
//!                          never waits                         its own thread
//! ```

use std::{
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use netobs_common::event::Event;

use super::{
    columns::Columns,
    line::{Line, Lines},
};

/// Events that may wait for the output: a second of the highest rate that is promised.
const WAITING: usize = 65_536;
/// What is written at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a line may wait in the buffer while nothing follows it.
const PATIENCE: Duration = Duration::from_millis(50);

/// What became of events.
#[derive(Debug, Default)]
pub struct Tally {
    /// All that were seen.
    pub seen: AtomicU64,
    /// Of these: written.
    pub shown: AtomicU64,
    /// Of these: did not pass the filters.
    pub filtered: AtomicU64,
    /// Of these: the output was too slow.
    pub queue_full: AtomicU64,
}

/// How lines are written.
#[derive(Debug)]
pub enum Format {
    /// Aligned columns.
    Columns(Columns),
    /// JSON, one object a line.
    Json,
}

/// Writes lines.
pub struct Outlet<W: Write> {
    out: BufWriter<W>,
    format: Format,
    lines: u64,
}

/// Lines between two heads of the columns.
const HEAD_EVERY: u64 = 1_000;

impl<W: Write> Outlet<W> {
    /// Onto `out`.
    pub fn new(out: W, format: Format) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            format,
            lines: 0,
        }
    }

    /// Writes one line, not necessarily at once.
    ///
    /// # Errors
    /// What the output says; `BrokenPipe` when its reader has seen enough.
    pub fn write(&mut self, line: &Line) -> io::Result<()> {
        match &mut self.format {
            Format::Columns(columns) => {
                if self.lines.is_multiple_of(HEAD_EVERY) {
                    self.out.write_all(columns.head().as_bytes())?;
                }
                self.out.write_all(columns.row(line).as_bytes())?;
            }
            Format::Json => {
                serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.lines += 1;
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// As [`Outlet::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An event on its way to the output.
#[derive(Debug)]
struct Waiting {
    /// The queue has a place for each of its thousands of events from the beginning: none of them
    /// shall have the size of the largest kind.
    event: Box<Event>,
    wall_ns: Option<u64>,
    /// Whether it is shown, or only learnt from.
    shown: bool,
}

/// The end of the queue that takes events in.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: SyncSender<Waiting>,
    tally: Arc<Tally>,
}

/// The end of the queue that writes.
pub struct Writing<W: Write> {
    queue: Receiver<Waiting>,
    outlet: Outlet<W>,
    lines: Lines,
    tally: Arc<Tally>,
}

/// A bounded queue in front of an output. `lines` knows what `Sender`'s side has learnt until now.
pub fn queue<W: Write>(
    outlet: Outlet<W>,
    lines: Lines,
    tally: &Arc<Tally>,
) -> (Sender, Writing<W>) {
    let (sender, receiver) = sync_channel(WAITING);
    let sender = Sender {
        queue: sender,
        tally: Arc::clone(tally),
    };
    let writing = Writing {
        queue: receiver,
        outlet,
        lines,
        tally: Arc::clone(tally),
    };
    (sender, writing)
}

impl Sender {
    /// Hands over an event that is to be shown. Never waits: `false` when the queue is full or the
    /// output is gone, and the event is counted as `queue_full`.
    pub fn offer(&self, event: Event, wall_ns: Option<u64>) -> bool {
        let waiting = Waiting {
            event: Box::new(event),
            wall_ns,
            shown: true,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.tally.queue_full.fetch_add(1, Relaxed);
                false
            }
        }
    }

    /// Hands over an event that later lines are understood by.
    pub fn teach(&self, event: Event) {
        // Lost in a flood, it leaves a line without an owner.
        let _ = self.queue.try_send(Waiting {
            event: Box::new(event),
            wall_ns: None,
            shown: false,
        });
    }
}

impl<W: Write> Writing<W> {
    /// Writes until every [`Sender`] is gone.
    ///
    /// # Errors
    /// What the output says; what waits then is not written.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let waiting = match self.queue.try_recv() {
                Ok(waiting) => waiting,
                Err(_) => match self.queue.recv_timeout(PATIENCE) {
                    Ok(waiting) => waiting,
                    Err(RecvTimeoutError::Timeout) => {
                        self.outlet.flush()?;
                        // Without a limit: an idle trace needs no wake-ups.
                        match self.queue.recv() {
                            Ok(waiting) => waiting,
                            Err(_) => return self.outlet.flush(),
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return self.outlet.flush(),
                },
            };
            self.lines.learn(&waiting.event);
            if waiting.shown {
                let line = self.lines.line(&waiting.event, waiting.wall_ns);
                self.outlet.write(&line)?;
                self.tally.shown.fetch_add(1, Relaxed);
            }
        }
    }
}
