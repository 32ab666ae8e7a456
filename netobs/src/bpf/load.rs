//! Loading programs: the verifier's work, milliseconds for each, on all CPUs at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use netobs_common::probe::Program as Kind;

use super::object::{AttachError, Attachment, classify};

/// The kernel verifies programs of a privileged process beside each other; on more CPUs than this
/// the longest program alone decides.
const MOST_THREADS: usize = 4;

/// What the verifier has most to do with, longest first: begun last, one of them would be waited for by
/// every other CPU (`inet_sock_set_state` takes 20 ms, all together 70, on a 6.18).
const LONGEST: [Kind; 4] = [
    Kind::InetSockSetState,
    Kind::TcpRetransmitSkb,
    Kind::SysExitAccept,
    Kind::KfreeSkb,
];

/// Loads a program for what it will be attached to; one that is loaded already stays so.
///
/// # Errors
///
/// See [`AttachError`].
pub(super) fn load(
    name: &'static str,
    program: &mut Program,
    to: Attachment,
    types: Option<&Btf>,
) -> Result<(), AttachError> {
    let types = || types.ok_or(AttachError::NoBtf);
    let (result, hook) = match (program, to) {
        (Program::BtfTracePoint(program), Attachment::TpBtf { tracepoint }) => {
            (program.load(tracepoint, types()?), tracepoint)
        }
        (Program::FEntry(program), Attachment::Fentry { function }) => {
            (program.load(function, types()?), function)
        }
        (Program::FExit(program), Attachment::Fexit { function }) => {
            (program.load(function, types()?), function)
        }
        (Program::TracePoint(program), Attachment::Tracepoint { name, .. }) => {
            (program.load(), name)
        }
        (Program::KProbe(program), Attachment::Kprobe { function }) => (program.load(), function),
        (Program::CgroupSkb(program), Attachment::CgroupSkb { .. }) => {
            (program.load(), "cgroup2 hierarchy")
        }
        (Program::Iter(program), Attachment::IterTcp) => (program.load("tcp", types()?), "tcp"),
        (Program::Iter(program), Attachment::IterListeners | Attachment::IterConnections) => {
            (program.load("bpf_map_elem", types()?), "bpf_map_elem")
        }
        _ => return Err(AttachError::NoProgram(name)),
    };
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        result => result.map_err(|error| classify(error, hook)),
    }
}

/// Loads these programs beside each other. Returns those that could be loaded; the others are loaded
/// once more, and say why they cannot be, when they are attached.
pub(super) fn load_all(
    ebpf: &mut Ebpf,
    wanted: &[(&'static str, Attachment)],
    types: Option<&Btf>,
) -> HashMap<&'static str, Attachment> {
    let mut work: Vec<(&'static str, &mut Program, Attachment)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let (name, to) = wanted.iter().find(|(wanted, _)| *wanted == name)?;
            Some((*name, program, *to))
        })
        .collect();
    work.sort_by_key(|(name, ..)| {
        let place = LONGEST.iter().position(|long| long.name() == *name);
        place.unwrap_or(LONGEST.len())
    });
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_THREADS);
    let queue = Mutex::new(work.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let loaded = Mutex::new(HashMap::new());
    let work = || {
        while let Some((name, program, to)) = next() {
            if load(name, program, to, types).is_ok() {
                let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                loaded.insert(name, to);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    loaded.into_inner().unwrap_or_else(PoisonError::into_inner)
}
