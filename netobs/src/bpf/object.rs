//! The embedded eBPF object: loading it, and attaching its programs one by one.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::Path,
};

use aya::{
    Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness,
    maps::{MapData, MapError as AyaMapError, ProgramArray},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program as Loaded, ProgramError,
        ProgramFd, trace_point::TracePointError,
    },
};
use flate2::bufread::DeflateDecoder;
use netobs_common::{kernel::Settings, names, offsets::Offset, probe::Program};
use thiserror::Error;
use zerocopy::IntoBytes as _;

use super::{
    iter,
    load::{load, load_all},
    maps::{Maps, typed},
    run_stats::{self, RunStats},
};
use crate::sys::{
    cgroup_root::{self, CgroupRootError},
    hardening::without_files,
};

/// The object that the build script compiled: its size as four bytes, and then itself, deflated.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/netobs-ebpf"));

/// Unpacks the object, into words: its reader wants it aligned.
fn unpacked() -> Result<Vec<u64>, ObjectError> {
    let damaged = |source| ObjectError::Damaged { source };
    let cut_short = || damaged(io::ErrorKind::UnexpectedEof.into());
    let (size, packed) = OBJECT.split_first_chunk().ok_or_else(cut_short)?;
    let bytes = u32::from_le_bytes(*size) as usize;
    let mut words = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
    let place = words
        .as_mut_bytes()
        .get_mut(..bytes)
        .ok_or_else(cut_short)?;
    DeflateDecoder::new(packed)
        .read_exact(place)
        .map_err(damaged)?;
    Ok(words)
}

/// The running kernel's own type information, as far as programs that are attached by type need it:
/// the numbers of what they are attached to.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Takes from the running kernel's type information what `attachments` need. aya's own copy of
    /// everything would be 20 MB.
    ///
    /// # Errors
    ///
    /// When aya does not understand it.
    pub fn of(
        whole: &crate::sys::btf::Btf,
        attachments: impl Iterator<Item = Attachment>,
    ) -> Result<Self, ObjectError> {
        let names: HashSet<String> = attachments.filter_map(Attachment::type_name).collect();
        let wanted = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| names.contains(name));
        Btf::parse(&whole.skeleton(wanted), Endianness::default())
            .map(Self)
            .map_err(|source| ObjectError::Types { source })
    }
}

/// aya's loader. Making one reads the kernel's whole type information, if it can be found: 20 MB that take as
/// long as everything else, and that our object does not need (it has no relocations by type). So it is made
/// where no file can be found.
pub struct Loader {
    loader: EbpfLoader<'static>,
    object: Result<Vec<u64>, ObjectError>,
}

impl Loader {
    /// Makes the loader, and what else can be made before anything is known of the kernel.
    #[must_use]
    pub fn prepare() -> Self {
        let mut loader = without_files(EbpfLoader::new).unwrap_or_else(EbpfLoader::new);
        loader.btf(None);
        // Found out once, here rather than when it is needed.
        let _ = aya::features();
        Self {
            loader,
            object: unpacked(),
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// BTF-typed raw tracepoint.
    TpBtf {
        /// The tracepoint's name, without its category.
        tracepoint: &'static str,
    },
    /// Classic tracepoint; needs tracefs.
    Tracepoint {
        /// Its category, e.g. `tcp`.
        category: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// At a function's entry, by a trampoline that needs its type.
    Fentry {
        /// The function.
        function: &'static str,
    },
    /// At a function's exit, likewise.
    Fexit {
        /// The function.
        function: &'static str,
    },
    /// At a function's entry or (`kretprobe`) exit, by a breakpoint.
    Kprobe {
        /// The function.
        function: &'static str,
    },
    /// On the packets of every socket in the cgroup2 hierarchy.
    CgroupSkb {
        /// Which of them.
        direction: Direction,
    },
    /// Iterator over the TCP sockets of a network namespace.
    IterTcp,
    /// Iterator over the elements of the `LISTENERS` map.
    IterListeners,
    /// Iterator over the elements of the `CONNECTIONS` map.
    IterConnections,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the socket.
    Ingress,
    /// From the socket.
    Egress,
}

impl Attachment {
    /// The name by which the kernel's type information knows what it is attached to; `None` for
    /// methods that need no type.
    fn type_name(self) -> Option<String> {
        match self {
            Self::TpBtf { tracepoint } => Some(format!("btf_trace_{tracepoint}")),
            Self::Fentry { function } | Self::Fexit { function } => Some(function.to_owned()),
            Self::IterTcp => Some("bpf_iter_tcp".to_owned()),
            Self::IterListeners | Self::IterConnections => Some("bpf_iter_bpf_map_elem".to_owned()),
            Self::Tracepoint { .. } | Self::Kprobe { .. } | Self::CgroupSkb { .. } => None,
        }
    }

    /// The value of the `method` label.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::TpBtf { .. } => "tp_btf",
            Self::Tracepoint { .. } => "tracepoint",
            Self::Fentry { .. } | Self::Fexit { .. } => "fentry",
            Self::Kprobe { .. } => "kprobe",
            Self::CgroupSkb { .. } => "cgroup_skb",
            Self::IterTcp | Self::IterListeners | Self::IterConnections => "iter",
        }
    }
}

/// Why the object could not be loaded at all.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// No usable kernel BTF.
    #[error("failed to read the kernel's type information /sys/kernel/btf/vmlinux")]
    Types {
        /// What aya said.
        source: BtfError,
    },
    /// The embedded object cannot be unpacked.
    #[error("failed to unpack the embedded eBPF object")]
    Damaged {
        /// What the decoder said.
        source: io::Error,
    },
    /// The object or one of its maps was refused.
    #[error("failed to load the eBPF object")]
    Load {
        /// What aya said.
        source: Box<EbpfError>,
    },
    /// The embedded object lacks a map: it was built from other sources than the agent.
    #[error("the embedded eBPF object has no usable map {0}")]
    Map(&'static str),
    /// A map could not be used as the type that the contract says.
    #[error("failed to open map {name}")]
    MapType {
        /// The map.
        name: &'static str,
        /// What aya said.
        source: AyaMapError,
    },
}

impl ObjectError {
    /// The errno of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let Self::Load { source } = self else {
            return None;
        };
        errno_of(source.as_ref())
    }
}

/// Why one program could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The object has no such program, or of another type.
    #[error("the embedded eBPF object has no program {0} of that type")]
    NoProgram(&'static str),
    /// `tp_btf` programs and iterators need the kernel's own BTF.
    #[error("the kernel's type information is not available")]
    NoBtf,
    /// The root of the cgroup2 hierarchy is not to be seen.
    #[error(transparent)]
    CgroupRoot(#[from] CgroupRootError),
    /// It cannot be opened.
    #[error("failed to open the root of the cgroup2 hierarchy")]
    OpenCgroup {
        /// What the system call returned.
        source: io::Error,
    },
    /// tracefs is not mounted.
    #[error("tracefs is not mounted at /sys/kernel/tracing or /sys/kernel/debug/tracing")]
    NoTracefs,
    /// The kernel has no such hook.
    #[error("this kernel has no {0}")]
    NoHook(String),
    /// The kernel refused to load the program.
    #[error("the kernel refused to load the program")]
    Load {
        /// What the system call returned.
        source: io::Error,
        /// The end of what the verifier said; may be empty.
        verifier_log: String,
    },
    /// Anything else.
    #[error("failed to attach the program")]
    Other {
        /// What aya said.
        source: Box<ProgramError>,
    },
    /// The second program on its tracepoint could not be told of it.
    #[error("the kernel lets no other program on its tracepoint call it")]
    Body {
        /// What aya said.
        source: Box<AyaMapError>,
    },
    /// An iterator's link could not be made.
    #[error("failed to attach the iterator")]
    Link {
        /// What the system call returned.
        source: io::Error,
    },
}

impl AttachError {
    /// The errno of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Load { source, .. } | Self::Link { source } | Self::OpenCgroup { source } => {
                source.raw_os_error()
            }
            Self::Other { source } => errno_of(source.as_ref()),
            Self::Body { source } => errno_of(source.as_ref()),
            _ => None,
        }
    }
}

/// The innermost operating system error of a chain.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            .or(found);
        next = error.source();
    }
    found
}

/// Programs to which another one on the same tracepoint hands events over, and the program array by
/// which it finds them.
const BODIES: [(&str, Program); 4] = [
    (names::SET_STATE_BODY, Program::InetSockSetState),
    (names::KFREE_SKB_BODY, Program::KfreeSkb),
    (names::SEND_RESET_BODY, Program::TcpSendReset),
    (names::RECEIVE_RESET_BODY, Program::TcpReceiveReset),
];

/// The loaded object: its maps exist, its programs are loaded and attached one by one.
pub struct Object {
    ebpf: Ebpf,
    /// By name of the program; the kernel empties a program array that nobody has open.
    bodies: HashMap<&'static str, ProgramArray<MapData>>,
    types: Option<KernelTypes>,
    /// Loaded beforehand and not attached yet, and what for.
    loaded: HashMap<&'static str, Attachment>,
}

impl Object {
    /// Creates the maps and fixes the read-only globals. No program is loaded yet. `sizes` are of
    /// maps that are to have other numbers of entries (of the ring: bytes) than usual.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map (usually: a missing capability).
    pub fn load(
        loader: Loader,
        types: Option<KernelTypes>,
        settings: &Settings,
        offsets: &[u32; Offset::COUNT],
        sizes: &[(String, u32)],
    ) -> Result<Self, ObjectError> {
        let object = loader.object?;
        let mut loader: EbpfLoader<'_> = loader.loader;
        loader
            .override_global(names::SETTINGS, settings, true)
            .override_global(names::OFFSETS, &offsets[..], true);
        for (map, entries) in sizes {
            loader.map_max_entries(map, *entries);
        }
        let mut ebpf = loader
            .load(object.as_bytes())
            .map_err(|source| ObjectError::Load {
                source: Box::new(source),
            })?;
        let mut bodies = HashMap::new();
        for (map, program) in BODIES {
            bodies.insert(program.name(), typed(&mut ebpf, map)?);
        }
        Ok(Self {
            ebpf,
            bodies,
            types,
            loaded: HashMap::new(),
        })
    }

    /// Typed handles of the maps; can be taken once.
    ///
    /// # Errors
    ///
    /// When the object does not hold what the contract says.
    pub fn take_maps(&mut self) -> Result<Maps, ObjectError> {
        Maps::take(&mut self.ebpf)
    }

    /// Debug messages of the kernel side; `None` when the object was built without them. To be taken
    /// once.
    #[cfg(feature = "ebpf-log")]
    pub fn take_kernel_log(&mut self) -> Option<KernelLog> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
            .ok()
            .map(KernelLog)
    }

    /// Loads programs that will probably be attached, on all CPUs at once.
    pub fn preload(&mut self, programs: &[(&'static str, Attachment)]) {
        let types = self.types.as_ref().map(|types| &types.0);
        self.loaded = load_all(&mut self.ebpf, programs, types);
    }

    /// Unloads what was loaded and has not been attached.
    pub fn unload_spare(&mut self) {
        for program in std::mem::take(&mut self.loaded).into_keys() {
            self.detach(program);
        }
    }

    /// Loads and attaches a program to its tracepoint.
    ///
    /// # Errors
    ///
    /// See [`AttachError`]; the other programs are not touched.
    pub fn attach(&mut self, program: &'static str, to: Attachment) -> Result<(), AttachError> {
        if self
            .loaded
            .remove(program)
            .is_some_and(|loaded| loaded != to)
        {
            self.detach(program);
        }
        let types = self.types.as_ref().map(|types| &types.0);
        let found = self.ebpf.program_mut(program);
        let found = found.ok_or(AttachError::NoProgram(program))?;
        load(program, found, to, types)?;
        let (attached, hook) = match (found, to) {
            (Loaded::BtfTracePoint(found), Attachment::TpBtf { tracepoint }) => {
                if let Some(body) = self.bodies.get_mut(program) {
                    let fd = found.fd().map_err(|error| classify(error, tracepoint))?;
                    body.set(0, fd, 0).map_err(|source| AttachError::Body {
                        source: Box::new(source),
                    })?;
                }
                (found.attach().map(drop), tracepoint)
            }
            (Loaded::TracePoint(found), Attachment::Tracepoint { category, name }) => {
                (found.attach(category, name).map(drop), name)
            }
            (Loaded::FEntry(found), Attachment::Fentry { function }) => {
                (found.attach().map(drop), function)
            }
            (Loaded::FExit(found), Attachment::Fexit { function }) => {
                (found.attach().map(drop), function)
            }
            (Loaded::KProbe(found), Attachment::Kprobe { function }) => {
                (found.attach(function, 0).map(drop), function)
            }
            (Loaded::CgroupSkb(found), Attachment::CgroupSkb { direction }) => {
                return attach_cgroup_skb(found, direction);
            }
            // The links of iterators are made when they are asked for.
            _ => return Ok(()),
        };
        attached.map_err(|error| classify(error, hook))
    }

    /// Makes the link of a loaded iterator.
    fn linked<'a, T>(
        &'a self,
        program: Program,
        hook: &'static str,
        link: impl FnOnce(&'a ProgramFd) -> io::Result<T>,
    ) -> Result<T, AttachError> {
        let Some(Loaded::Iter(loaded)) = self.ebpf.program(program.name()) else {
            return Err(AttachError::NoProgram(program.name()));
        };
        let fd = loaded.fd().map_err(|error| classify(error, hook))?;
        link(fd).map_err(|source| AttachError::Link { source })
    }

    /// The iterator over listeners; its program must have been attached.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the link.
    pub fn listener_readings(
        &mut self,
        maps: &Maps,
    ) -> Result<iter::ListenerReadings, AttachError> {
        self.linked(Program::ListenerReadings, "bpf_map_elem", |fd| {
            iter::ListenerReadings::link(fd, maps.listeners_fd())
        })
    }

    /// The iterator over connections; its program must have been attached.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the link.
    pub fn gone_sockets(&mut self, maps: &Maps) -> Result<iter::GoneSockets, AttachError> {
        self.linked(Program::GoneSockets, "bpf_map_elem", |fd| {
            iter::GoneSockets::link(fd, maps.connections_fd())
        })
    }

    /// The iterator over the sockets of a namespace; its program must have been attached.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the link.
    pub fn socket_iter(&mut self) -> Result<iter::SocketIter, AttachError> {
        self.linked(Program::ExistingSockets, "tcp", iter::SocketIter::link)
    }

    /// Lets go of the kernel's type information, and of what starting has left, once everything is
    /// attached.
    pub fn forget_types(&mut self) {
        self.types = None;
        // SAFETY: no preconditions; gives freed memory back to the system.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// Detaches and unloads a program; one that is not loaded stays so.
    pub fn detach(&mut self, program: &'static str) {
        if let Some(body) = self.bodies.get_mut(program) {
            // It would keep the program loaded; an error means that it is empty.
            let _ = body.clear_index(&0);
        }
        // Its links go with it; an error means that there was nothing to unload.
        let _ = match self.ebpf.program_mut(program) {
            Some(Loaded::FEntry(program)) => program.unload(),
            Some(Loaded::FExit(program)) => program.unload(),
            Some(Loaded::KProbe(program)) => program.unload(),
            Some(Loaded::BtfTracePoint(program)) => program.unload(),
            Some(Loaded::TracePoint(program)) => program.unload(),
            Some(Loaded::Iter(program)) => program.unload(),
            Some(Loaded::CgroupSkb(program)) => program.unload(),
            _ => Ok(()),
        };
    }

    /// What the kernel keeps of a loaded program.
    #[must_use]
    pub fn run_stats(&self, program: &str) -> Option<RunStats> {
        let program = self.ebpf.program(program)?.fd().ok()?;
        run_stats::read(program.as_fd()).ok()
    }
}

/// Debug messages of the kernel side, built in with the feature `ebpf-log` only.
#[cfg(feature = "ebpf-log")]
pub struct KernelLog(aya_log::EbpfLogger<&'static dyn log::Log>);

#[cfg(feature = "ebpf-log")]
impl KernelLog {
    /// Passes on to the log what has come since the last call.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// Attaches to the packets of all sockets, beside whoever else is attached. The link goes with this
/// process, however it ends (kernels from 5.7 on; those before lack the ring buffer, too).
fn attach_cgroup_skb(program: &mut CgroupSkb, direction: Direction) -> Result<(), AttachError> {
    let path = cgroup_root::find(Path::new("/proc"))?;
    let root = File::open(path).map_err(|source| AttachError::OpenCgroup { source })?;
    let direction = match direction {
        Direction::Ingress => CgroupSkbAttachType::Ingress,
        Direction::Egress => CgroupSkbAttachType::Egress,
    };
    let mode = CgroupAttachMode::Single; // links always allow others
    program
        .attach(root, direction, mode)
        .map(drop)
        .map_err(|error| classify(error, "cgroup2 hierarchy"))
}

pub(super) fn classify(error: ProgramError, hook: &str) -> AttachError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let verifier_log = last_lines(&verifier_log.to_string(), 40);
            tracing::debug!(hook, "the verifier says:\n{verifier_log}");
            AttachError::Load {
                source: io_error,
                verifier_log,
            }
        }
        ProgramError::Btf(_) => AttachError::NoHook(hook.to_owned()),
        ProgramError::TracePointError(TracePointError::FileError { io_error, .. })
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            AttachError::NoHook(hook.to_owned())
        }
        ProgramError::IOError(error) if error.kind() == io::ErrorKind::NotFound => {
            AttachError::NoTracefs
        }
        other => AttachError::Other {
            source: Box::new(other),
        },
    }
}

/// The verifier's verdict stands at the end of its log.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
