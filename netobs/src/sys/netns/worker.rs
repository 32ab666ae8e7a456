//! Work inside a namespace, on a thread of its own.
//!
//! `setns` moves one thread, so no other thread of the agent ever leaves its namespace. The thread
//! keeps a descriptor of its *own* namespace, to come back; the process keeps that one alive anyway.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use super::{Netns, NetnsError, NetnsId, Place, process_file};

/// What it takes to open the namespace file of another user's process.
pub(super) const OPEN_NEEDS: &str = "CAP_SYS_PTRACE";
const ENTER_NEEDS: &str = "CAP_SYS_ADMIN";

/// A piece of work; says whether the thread is home again.
type Job = Box<dyn FnOnce(&Home) -> Whereabouts + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Home,
    Lost,
}

/// The namespace that the thread belongs to.
struct Home {
    id: NetnsId,
    file: File,
}

/// One thread that visits network namespaces, one at a time.
///
/// It starts at the first visit, with the namespace and the capabilities of the thread that calls
/// then, and ends when the worker is dropped.
pub struct NetnsWorker {
    proc_root: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    home: Option<Arc<Home>>,
    thread: Option<Thread>,
}

struct Thread {
    jobs: mpsc::Sender<Job>,
    handle: JoinHandle<()>,
}

impl NetnsWorker {
    /// A worker that finds processes below `proc_root` (`/proc`). No thread yet.
    #[must_use]
    pub fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Where it finds processes.
    #[must_use]
    pub fn proc_root(&self) -> &Path {
        &self.proc_root
    }

    /// Runs `work` inside a namespace and waits for it. The namespace is the one asked for: its
    /// number is checked on the open file, so a process number that was used again does not lead
    /// elsewhere. Work in the own namespace needs no capability.
    ///
    /// `work` must not call the same worker: there is one thread, and it would wait for itself.
    /// What `work` opens (sockets, files) may outlive the visit; a socket keeps its namespace alive.
    ///
    /// # Errors
    /// [`NetnsError::Gone`], [`NetnsError::Permission`] (needs `CAP_SYS_ADMIN` over it, and
    /// `CAP_SYS_PTRACE` to open another user's), [`NetnsError::Panicked`], or
    /// [`NetnsError::Worker`] when the thread cannot be started.
    pub fn run<T, F>(&self, netns: &Netns, work: F) -> Result<T, NetnsError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let id = netns.id;
        let path = match &netns.place {
            Place::Process(pid) => process_file(&self.proc_root, *pid),
            Place::Mount(path) => path.clone(),
        };
        let (reply, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |home| {
            let (result, whereabouts) = visit(home, id, &path, work);
            // A caller that is gone does not want the answer.
            let _ = reply.send((result, whereabouts));
            whereabouts
        });

        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = state.thread(&self.proc_root)?;
        let lost = || NetnsError::Worker {
            source: io::ErrorKind::BrokenPipe.into(),
        };
        let outcome = match thread.jobs.send(job) {
            Ok(()) => answer.recv().map_err(|_| lost()),
            Err(_) => Err(lost()),
        };
        match outcome {
            Ok((result, Whereabouts::Home)) => result,
            Ok((result, Whereabouts::Lost)) => {
                state.retire();
                result
            }
            Err(error) => {
                state.retire();
                Err(error)
            }
        }
    }
}

impl NetnsWorker {
    /// Ends the thread. The next visit starts another, with the capabilities that its caller then
    /// has.
    pub fn rest(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retire();
    }
}

impl Drop for NetnsWorker {
    fn drop(&mut self) {
        self.rest();
    }
}

impl State {
    /// The running thread, or a new one that is at home.
    fn thread(&mut self, proc_root: &Path) -> Result<&Thread, NetnsError> {
        let failed = |source| NetnsError::Worker { source };
        let home = match &self.home {
            Some(home) => Arc::clone(home),
            None => {
                let file = File::open(proc_root.join("thread-self/ns/net")).map_err(failed)?;
                let id = inode(&file).map_err(failed)?;
                Arc::clone(self.home.insert(Arc::new(Home { id, file })))
            }
        };
        if self.thread.is_none() {
            // A thread starts where its parent is, which need not be where the first one was.
            let here = NetnsId::of_this_thread(proc_root).map_err(failed)?;
            self.thread = Some(Thread::start(home, here).map_err(failed)?);
        }
        self.thread
            .as_ref()
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Ends the thread; the next visit starts another.
    fn retire(&mut self) {
        if let Some(Thread { jobs, handle }) = self.thread.take() {
            drop(jobs);
            // It catches the panics of its work, so there is nothing to pass on.
            let _ = handle.join();
        }
    }
}

impl Thread {
    fn start(home: Arc<Home>, here: NetnsId) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        // The kernel shows 15 bytes.
        let handle = thread::Builder::new()
            .name("netobs-netns".to_owned())
            .spawn(move || {
                if here != home.id && setns(&home.file, CloneFlags::CLONE_NEWNET).is_err() {
                    return;
                }
                for job in queue {
                    if job(&home) == Whereabouts::Lost {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, handle })
    }
}

/// Goes to a namespace, works, and comes back.
fn visit<T>(
    home: &Home,
    id: NetnsId,
    path: &Path,
    work: impl FnOnce() -> T,
) -> (Result<T, NetnsError>, Whereabouts) {
    let away = id != home.id;
    if away && let Err(error) = enter(id, path) {
        return (Err(error), Whereabouts::Home);
    }
    // The work owns what it captured, and the thread keeps nothing of it.
    let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| NetnsError::Panicked { id });
    let back = !away || setns(&home.file, CloneFlags::CLONE_NEWNET).is_ok();
    (
        result,
        if back {
            Whereabouts::Home
        } else {
            Whereabouts::Lost
        },
    )
}

fn enter(id: NetnsId, path: &Path) -> Result<(), NetnsError> {
    let file =
        File::open(path).map_err(|source| NetnsError::from_io(id, "open", OPEN_NEEDS, source))?;
    let now = inode(&file).map_err(|source| NetnsError::Io {
        id,
        operation: "open",
        source,
    })?;
    if now != id {
        return Err(NetnsError::Gone { id });
    }
    // Another kind of file, or of namespace, is refused here. The file is closed on return.
    setns(&file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetnsError::from_io(id, "enter", ENTER_NEEDS, errno.into()))
}

/// Namespaces have 32-bit inode numbers; anything larger is no namespace.
fn inode(file: &File) -> io::Result<NetnsId> {
    let number = file.metadata()?.ino();
    u32::try_from(number)
        .map(NetnsId)
        .map_err(|_| io::ErrorKind::InvalidData.into())
}
