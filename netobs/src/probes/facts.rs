//! What the running kernel has: field offsets, drop reasons, tracepoint arguments, text ranges.
//!
//! Everything is read once, at start. What cannot be resolved is kept as the reason why, and makes
//! the methods that need it unavailable; nothing is guessed.

use std::path::{Path, PathBuf};

use netobs_common::{
    kernel::{Classic, MAX_RANGES, NO_REASON, Settings, TextRange, identity},
    offsets::Offset,
};

use tracing::warn;

use crate::{
    bpf::{KernelTypes, ObjectError},
    sys::{
        btf::Btf,
        clock,
        kallsyms::{self, SymbolRange},
        tracefs,
    },
};

/// Where the kernel's type information comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BtfSource {
    /// `/sys/kernel/btf/vmlinux`.
    #[default]
    Kernel,
    /// A file: for the offsets only; `tp_btf` programs need the kernel's own.
    File(PathBuf),
    /// None: only methods that need no type information are used.
    None,
}

/// Something that a method needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What, and how it is known.
    pub reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Missing {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: None,
        }
    }
}

/// What a method needs besides fields.
#[derive(Debug)]
pub struct Requirement {
    /// In words, for documentation; empty when nothing is needed.
    pub what: &'static str,
    /// Whether it is there; the error says what is missing.
    pub check: fn(&KernelFacts) -> Result<(), Missing>,
}

impl Requirement {
    /// Nothing else is needed.
    pub const NOTHING: Self = Self {
        what: "",
        check: |_| Ok(()),
    };
    /// The layout of the classic tracepoints' records.
    pub const CLASSIC_RECORDS: Self = Self {
        what: "tracefs, mounted and readable",
        check: KernelFacts::classic_records,
    };
    /// The kernel's own listen counters can be found.
    pub const LISTEN_COUNTERS: Self = Self {
        what: "the numbers of ListenDrops and ListenOverflows",
        check: KernelFacts::listen_counters,
    };
    /// `inet_csk_accept(sk, arg)`.
    pub const ACCEPT_2: Self = Self {
        what: "inet_csk_accept with two arguments (kernels from 6.10 on)",
        check: |facts| facts.accept_has_arguments(2),
    };
    /// `inet_csk_accept(sk, flags, err, kern)`.
    pub const ACCEPT_4: Self = Self {
        what: "inet_csk_accept with four arguments (kernels before 6.10)",
        check: |facts| facts.accept_has_arguments(4),
    };
    /// `tcp_timewait_state_process(tw, skb, th)`.
    pub const TIME_WAIT_3: Self = Self {
        what: "tcp_timewait_state_process with three arguments",
        check: |facts| facts.time_wait_has_arguments(3),
    };
    /// The same with `isn`.
    pub const TIME_WAIT_4: Self = Self {
        what: "tcp_timewait_state_process with four arguments",
        check: |facts| facts.time_wait_has_arguments(4),
    };
    /// The same with `isn` and `drop_reason`.
    pub const TIME_WAIT_5: Self = Self {
        what: "tcp_timewait_state_process with five arguments",
        check: |facts| facts.time_wait_has_arguments(5),
    };
    /// Where the result of accept() is found.
    pub const ACCEPT_RESULT: Self = Self {
        what: "tracefs, mounted and readable, with system call tracepoints",
        check: |facts| facts.accept_result.clone(),
    };
    /// `kfree_skb` tells whose packet was dropped, and where.
    pub const KFREE_SKB_NAMES_LISTENER: Self = Self {
        what: "a kfree_skb tracepoint that names the receiving socket (kernels from 6.11 on); \
               addresses of kernel symbols (CAP_SYSLOG, kernel.kptr_restrict below 2)",
        check: KernelFacts::kfree_skb_names_listener,
    };
}

/// Functions whose drop of a packet follows a `sk_drops_add` for its listener: net/ipv4/tcp_ipv4.c
/// `tcp_v4_rcv` (discard_and_relse), net/ipv6/tcp_ipv6.c `tcp_v6_rcv`, and `tcp_drop_reason` called
/// by `tcp_rcv_state_process`, which the compiler may turn into a jump.
const DISCARDING: &[&str] = &[
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    "tcp_rcv_state_process",
    "tcp_drop_reason",
];
/// Functions that drop a packet whose listener may have counted a listen drop for it.
const COOKIE_CHECKS: &[&str] = &["cookie_v4_check", "cookie_v6_check"];

/// Facts about the running kernel.
pub struct KernelFacts {
    /// What to do where type information lacks something.
    types_remedy: &'static str,
    offsets: Vec<Result<u32, String>>,
    /// For the kernel side.
    pub settings: Settings,
    kfree_skb_args: Option<usize>,
    functions: Vec<&'static str>,
    has_btf: bool,
    /// What programs that are attached by type need.
    types: Option<KernelTypes>,
    realtime: bool,
    listen_counters: Result<(), Missing>,
    accept_args: Option<usize>,
    time_wait_args: Option<usize>,
    ranges: Result<(), Missing>,
    /// The enumerators of this kernel's `enum sk_rst_reason`; none before 6.10.
    pub reset_reasons: Vec<(String, i64)>,
    classic: Result<(), Missing>,
    accept_result: Result<(), Missing>,
}

impl KernelFacts {
    /// Reads everything; what is missing is kept, not an error.
    #[must_use]
    pub fn read(source: &BtfSource, proc_root: &Path) -> Self {
        let mut settings = Settings::UNKNOWN;
        if let Some(low) = ephemeral_low(proc_root) {
            settings.ephemeral_low = low;
        }
        settings.jiffy_ns = clock::jiffy_ns();
        let mut functions = Vec::new();
        let mut reset_reasons = Vec::new();
        let mut listen_counters = Err(Missing::new("not known without type information"));
        let mut accept_args = None;
        let mut time_wait_args = None;
        // The kernel formats its symbols anew for each reader: beside everything else.
        let symbols = proc_root.join("kallsyms");
        let symbols = std::thread::spawn(move || find_ranges(&symbols));
        let btf = read_btf(source);
        let has_btf = btf.is_ok();
        let types = match (source, &btf) {
            (BtfSource::None, _) | (BtfSource::Kernel, Err(_)) => None,
            (BtfSource::Kernel, Ok(own)) => Some(types_of(own)),
            // A file tells where fields are; what programs are attached to has the kernel's numbers.
            (BtfSource::File(_), _) => read_btf(&BtfSource::Kernel).ok().as_ref().map(types_of),
        };
        let types = types.and_then(|types| {
            types
                .inspect_err(|error| {
                    warn!(
                        error = error as &dyn std::error::Error,
                        "no kernel type information"
                    );
                })
                .ok()
        });
        let (offsets, kfree_skb_args) = match btf {
            Ok(btf) => {
                let reason = |name| {
                    btf.enum_value("skb_drop_reason", name)
                        .ok()
                        .and_then(|value| u32::try_from(value).ok())
                        .unwrap_or(NO_REASON)
                };
                settings.reason_tcp_csum = reason("SKB_DROP_REASON_TCP_CSUM");
                settings.reason_listen_overflow = reason("SKB_DROP_REASON_TCP_LISTEN_OVERFLOW");
                settings.reason_tw_paws = reason("SKB_DROP_REASON_TCP_RFC7323_TW_PAWS");
                settings.retransmit_err = u32::from(
                    btf.tracepoint_args("tcp_retransmit_skb")
                        .is_some_and(|args| args >= 3),
                );
                functions = super::PROBES
                    .iter()
                    .map(|probe| probe.name)
                    .chain(
                        super::listen_drops::PRESENT
                            .iter()
                            .filter_map(|(_, with)| *with),
                    )
                    .filter(|name| btf.has_function(name))
                    .collect();
                settings.reset_reason = u16::from(
                    btf.tracepoint_args("tcp_send_reset")
                        .is_some_and(|args| args >= 3),
                );
                reset_reasons = btf.enum_values("sk_rst_reason").unwrap_or_default();
                settings.reset_invalid_syn = btf
                    .enum_value("sk_rst_reason", "SK_RST_REASON_INVALID_SYN")
                    .ok()
                    .and_then(|value| u16::try_from(value).ok())
                    .unwrap_or(0);
                settings.cgroup_subsystem = cgroup_subsystem(&btf, proc_root);
                listen_counters = fill_mib(&btf, &mut settings);
                settings.net_identity = net_identity(&btf);
                accept_args = btf.function_args("inet_csk_accept");
                time_wait_args = btf.function_args("tcp_timewait_state_process");
                let has_helper = |name| btf.enum_value("bpf_func_id", name).is_ok();
                settings.typed_task = has_helper("BPF_FUNC_get_current_task_btf").into();
                settings.listen_call = super::listen_call::find(&btf);
                let offsets = Offset::ALL
                    .iter()
                    .map(|offset| resolve(&btf, *offset))
                    .collect();
                (offsets, btf.tracepoint_args("kfree_skb"))
            }
            Err(reason) => (vec![Err(reason); Offset::COUNT], None),
        };
        let ranges = symbols
            .join()
            .unwrap_or_else(|_| Err(Missing::new("the kernel's symbols could not be read")))
            .and_then(|found| fill_ranges(&mut settings, &found));
        let classic = fill_classic(&mut settings);
        let accept_result = fill_accept(&mut settings);
        Self {
            types_remedy: match source {
                BtfSource::None => "leave out --btf none (btf in the configuration file)",
                BtfSource::File(_) => {
                    "name a file with the type information of this very kernel, or leave out --btf \
                     (btf in the configuration file)"
                }
                BtfSource::Kernel => {
                    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11+, Ubuntu 20.10+, \
                     RHEL 8.2+, Fedora 31+ have it)"
                }
            },
            offsets,
            settings,
            kfree_skb_args,
            functions,
            has_btf,
            types,
            realtime: std::fs::read_to_string("/sys/kernel/realtime")
                .is_ok_and(|text| text.trim() == "1"),
            listen_counters,
            accept_args,
            time_wait_args,
            ranges,
            reset_reasons,
            classic,
            accept_result,
        }
    }

    /// What programs that are attached by type need; to be taken once.
    pub fn take_types(&mut self) -> Option<KernelTypes> {
        self.types.take()
    }

    /// The global that the kernel side reads; 0 for what is not known (no program that needs it is
    /// loaded then).
    #[must_use]
    pub fn offset_table(&self) -> [u32; Offset::COUNT] {
        let mut table = [0; Offset::COUNT];
        for (place, offset) in table.iter_mut().zip(&self.offsets) {
            *place = offset.as_ref().copied().unwrap_or(0);
        }
        table
    }

    /// Whether the place of all these fields is known.
    ///
    /// # Errors
    ///
    /// Names the first one that is not.
    pub fn require(&self, needed: &[Offset]) -> Result<(), Missing> {
        for offset in needed {
            if let Some(Err(reason)) = self.offsets.get(*offset as usize) {
                return Err(Missing {
                    reason: format!("cannot find {}: {reason}", offset.path()),
                    remedy: Some(self.types_remedy.to_owned()),
                });
            }
        }
        Ok(())
    }

    /// Whether `kfree_skb` names the socket that dropped the packet, and the place can be told.
    ///
    /// # Errors
    ///
    /// Says which of the two is missing.
    pub fn kfree_skb_names_listener(&self) -> Result<(), Missing> {
        match self.kfree_skb_args {
            Some(args) if args >= 4 => self.ranges.clone(),
            Some(_) => Err(Missing::new(
                "this kernel's kfree_skb does not name the receiving socket (kernels from 6.11 do)",
            )),
            None => Err(Missing::new(
                "the arguments of kfree_skb are not known without BTF",
            )),
        }
    }

    /// Whether the kernel has a function that a probe is named after, or that says of one that it must
    /// be there; `None` when it is not known.
    #[must_use]
    pub fn has_function(&self, name: &str) -> Option<bool> {
        self.has_btf.then(|| self.functions.contains(&name))
    }

    /// Whether softirqs can be preempted, so that two packets may be handled in turns on one CPU.
    #[must_use]
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// Whether the places of the kernel's listen counters are known.
    ///
    /// # Errors
    ///
    /// Says which is missing.
    pub fn listen_counters(&self) -> Result<(), Missing> {
        self.listen_counters.clone()
    }

    /// Whether `inet_csk_accept` has this many arguments: what it returns follows them.
    ///
    /// # Errors
    ///
    /// Says how many it has.
    pub fn accept_has_arguments(&self, wanted: usize) -> Result<(), Missing> {
        has_arguments("inet_csk_accept", self.accept_args, wanted)
    }

    /// Whether `tcp_timewait_state_process` has this many arguments.
    ///
    /// # Errors
    ///
    /// Says how many it has.
    pub fn time_wait_has_arguments(&self, wanted: usize) -> Result<(), Missing> {
        has_arguments("tcp_timewait_state_process", self.time_wait_args, wanted)
    }

    /// Whether the layout of the classic tracepoints' records is known.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn classic_records(&self) -> Result<(), Missing> {
        self.classic.clone()
    }
}

fn types_of(kernel: &Btf) -> Result<KernelTypes, ObjectError> {
    let methods = super::PROBES.iter().flat_map(|probe| probe.methods);
    let attachments = methods.flat_map(|method| method.programs);
    KernelTypes::of(kernel, attachments.map(|(_, attachment)| *attachment))
}

/// Whether a function has this many arguments: what it returns follows them.
fn has_arguments(function: &str, args: Option<usize>, wanted: usize) -> Result<(), Missing> {
    match args {
        Some(args) if args == wanted => Ok(()),
        Some(args) => Err(Missing::new(format!(
            "{function} has {args} arguments here, not {wanted}"
        ))),
        None => Err(Missing::new(format!(
            "the arguments of {function} are not known without type information"
        ))),
    }
}

fn read_btf(source: &BtfSource) -> Result<Btf, String> {
    let path = match source {
        BtfSource::Kernel => Path::new("/sys/kernel/btf/vmlinux"),
        BtfSource::File(path) => path,
        BtfSource::None => return Err("type information was switched off".to_owned()),
    };
    Btf::from_file(path).map_err(|error| super::chain(&error))
}

/// By what a namespace is told from another that had its number before it.
fn net_identity(btf: &Btf) -> u32 {
    let has = |path| btf.member_offset(path).is_ok();
    // An atomic one is given when somebody asks for it: until then it is 0, whoever asks.
    let eager = !has("net.net_cookie.counter");
    if eager && has(Offset::NetCookie.path()) {
        identity::COOKIE
    } else if has(Offset::NetHashMix.path()) {
        identity::HASH_MIX
    } else {
        identity::NONE
    }
}

/// Indices of `enum` LINUX_MIB_* differ by kernel; each counter is a word.
fn fill_mib(btf: &Btf, settings: &mut Settings) -> Result<(), Missing> {
    const NAMES: [&str; 3] = [
        "LINUX_MIB_LISTENOVERFLOWS",
        "LINUX_MIB_LISTENDROPS",
        "LINUX_MIB_TCPREQQFULLDROP",
    ];
    let indices = btf
        .enumerator_values(&NAMES)
        .map_err(|error| Missing::new(super::chain(&error)))?;
    let offset = |index: &i64| {
        u32::try_from(*index)
            .ok()
            .and_then(|index| index.checked_mul(8))
    };
    match indices.as_slice() {
        [overflows, drops, full] if *drops == overflows + 1 => {
            let known = offset(overflows).zip(offset(full));
            let (listen, full) = known.ok_or_else(|| Missing::new("absurd counter numbers"))?;
            settings.mib_listen = listen;
            settings.mib_syn_queue_full = full;
            settings.mib_cookies = cookies(btf).unwrap_or(0);
            Ok(())
        }
        _ => Err(Missing::new(
            "ListenOverflows and ListenDrops are not neighbours on this kernel",
        )),
    }
}

/// Bytes to SyncookiesSent, when the other two follow it.
fn cookies(btf: &Btf) -> Option<u32> {
    const NAMES: [&str; 3] = [
        "LINUX_MIB_SYNCOOKIESSENT",
        "LINUX_MIB_SYNCOOKIESRECV",
        "LINUX_MIB_SYNCOOKIESFAILED",
    ];
    match btf.enumerator_values(&NAMES).ok()?.as_slice() {
        [sent, received, failed] if *received == sent + 1 && *failed == sent + 2 => {
            u32::try_from(*sent).ok()?.checked_mul(8)
        }
        _ => None,
    }
}

fn resolve(btf: &Btf, offset: Offset) -> Result<u32, String> {
    let member = btf
        .member_offset(offset.path())
        .map_err(|error| error.to_string())?;
    match member.bit {
        None => Ok(member.byte),
        // The kernel side masks the low five bits of the byte.
        Some((0, 5)) if offset == Offset::IcskCaState => Ok(member.byte),
        Some((shift, width)) => Err(format!("a bitfield at bit {shift}, {width} wide")),
    }
}

fn find_ranges(symbols: &Path) -> Result<Vec<SymbolRange>, Missing> {
    let names: Vec<&str> = DISCARDING.iter().chain(COOKIE_CHECKS).copied().collect();
    kallsyms::text_ranges(symbols, &names).map_err(|error| Missing {
        reason: super::chain(&error),
        remedy: Some(
            "give netobs CAP_SYSLOG and set kernel.kptr_restrict to 0 or 1: without symbol \
             addresses, dropped packets cannot be told apart by the function that dropped them"
                .to_owned(),
        ),
    })
}

fn fill_ranges(settings: &mut Settings, found: &[SymbolRange]) -> Result<(), Missing> {
    place(found, DISCARDING, &mut settings.discard_ranges)?;
    place(found, COOKIE_CHECKS, &mut settings.cookie_ranges)?;
    for required in ["tcp_v4_rcv", "tcp_rcv_state_process"] {
        if !found.iter().any(|range| range.name == required) {
            return Err(Missing::new(format!(
                "the kernel's symbols do not name {required}"
            )));
        }
    }
    Ok(())
}

fn place(
    found: &[SymbolRange],
    names: &[&str],
    ranges: &mut [TextRange; MAX_RANGES],
) -> Result<(), Missing> {
    let wanted: Vec<&SymbolRange> = found
        .iter()
        .filter(|range| names.contains(&range.name.as_str()))
        .collect();
    if wanted.len() > MAX_RANGES {
        return Err(Missing::new(format!(
            "{} are in {} pieces, more than the {MAX_RANGES} that are supported",
            names.join(", "),
            wanted.len()
        )));
    }
    for (slot, range) in ranges.iter_mut().zip(wanted) {
        *slot = TextRange {
            start: range.start,
            end: range.end,
        };
    }
    Ok(())
}

fn fill_classic(settings: &mut Settings) -> Result<(), Missing> {
    let layout =
        |category, name| tracefs::record_layout(category, name).map_err(|error| no_layout(&error));
    let retransmit = layout("tcp", "tcp_retransmit_skb")?;
    let synack = layout("tcp", "tcp_retransmit_synack")?;
    let need = |layout: &tracefs::RecordLayout, field: &str| {
        layout
            .offset(field)
            .ok_or_else(|| Missing::new(format!("the record has no field {field}")))
    };
    settings.classic = Classic {
        retransmit_sport: need(&retransmit, "sport")?,
        retransmit_dport: need(&retransmit, "dport")?,
        retransmit_state: need(&retransmit, "state")?,
        retransmit_err: retransmit.offset("err").unwrap_or(0),
        synack_sport: need(&synack, "sport")?,
        ..settings.classic
    };
    Ok(())
}

fn no_layout(error: &tracefs::TracefsError) -> Missing {
    Missing {
        reason: super::chain(error),
        remedy: error.remedy().map(str::to_owned),
    }
}

/// Where the result of accept() is in the record; both system calls must agree.
fn fill_accept(settings: &mut Settings) -> Result<(), Missing> {
    let mut results = ["sys_exit_accept", "sys_exit_accept4"]
        .map(|name| {
            let layout =
                tracefs::record_layout("syscalls", name).map_err(|error| no_layout(&error))?;
            let missing = || Missing::new(format!("the record of {name} has no field ret"));
            layout.offset("ret").ok_or_else(missing)
        })
        .into_iter();
    let (Some(one), Some(other)) = (results.next().transpose()?, results.next().transpose()?)
    else {
        return Err(Missing::new("no system call tracepoints"));
    };
    if one != other {
        return Err(Missing::new("the records of accept() and accept4() differ"));
    }
    settings.classic.accept_result = one;
    Ok(())
}

/// Which `enum cgroup_subsys_id` a controller of cgroup v1 has whose hierarchy containers are in.
/// `memory` and `pids` are those that every container runtime uses.
fn cgroup_subsystem(btf: &Btf, proc_root: &Path) -> u32 {
    let unified = netobs_common::kernel::UNIFIED_CGROUP;
    let Some(controller) = crate::sys::cgroup::legacy_controller(proc_root) else {
        return unified;
    };
    btf.enum_value("cgroup_subsys_id", &format!("{controller}_cgrp_id"))
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or(unified)
}

/// First port of the host's `net.ipv4.ip_local_port_range`.
fn ephemeral_low(proc_root: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(proc_root.join("sys/net/ipv4/ip_local_port_range")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_btf_every_offset_is_missing_and_says_why() {
        let facts = KernelFacts::read(&BtfSource::None, Path::new("/nonexistent"));
        let missing = facts.require(&[Offset::SkNet]).unwrap_err();
        assert!(
            missing.reason.contains("sock.__sk_common.skc_net.net"),
            "{missing:?}"
        );
        assert!(missing.reason.contains("switched off"), "{missing:?}");
        assert!(missing.remedy.is_some());
        assert!(facts.kfree_skb_names_listener().is_err());
        assert_eq!(facts.offset_table(), [0; Offset::COUNT]);
    }

    #[test]
    fn a_btf_file_that_is_not_there_is_named() {
        let source = BtfSource::File(PathBuf::from("/nonexistent/vmlinux"));
        let missing = KernelFacts::read(&source, Path::new("/nonexistent"))
            .require(&[Offset::SkNet])
            .unwrap_err();
        assert!(
            missing.reason.contains("/nonexistent/vmlinux"),
            "{missing:?}"
        );
        assert!(missing.remedy.unwrap().contains("leave out --btf"));
    }

    #[test]
    fn more_pieces_than_there_is_room_for_is_refused() {
        let found: Vec<_> = (0..=MAX_RANGES as u64)
            .map(|n| SymbolRange {
                name: "tcp_v4_rcv".to_owned(),
                start: n,
                end: n + 1,
            })
            .collect();
        let mut ranges = [TextRange::default(); MAX_RANGES];
        let missing = place(&found, DISCARDING, &mut ranges).unwrap_err();
        assert!(missing.reason.contains("17 pieces"), "{missing:?}");
    }

    #[test]
    fn this_kernel_resolves_every_offset() {
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let facts = KernelFacts::read(&BtfSource::Kernel, Path::new("/proc"));
        facts.require(Offset::ALL).unwrap();
    }
}
