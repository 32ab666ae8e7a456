//! Machines and command lines on which the agent cannot, or can only partly, do its work.

use std::{io, net::TcpListener, os::unix::process::CommandExt, process::Command};

use testbed::{Family, Link, NetNs, require, scenario};

use crate::support::{
    Agent,
    agent::{Ended, binary, run},
    books::SEGMENTS,
    init::Watch,
    metrics::Labels,
    run_to_end,
};

/// Capabilities (include/uapi/linux/capability.h).
const SYS_ADMIN: libc::c_ulong = 21;
const PERFMON: libc::c_ulong = 38;
const BPF: libc::c_ulong = 39;

const TRACEFS: &std::ffi::CStr = c"/sys/kernel/tracing";
const DEBUGFS: &std::ffi::CStr = c"/sys/kernel/debug";

/// It ended with this code, said this, and had attached nothing.
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    let said = &ended.stderr;
    assert_eq!(ended.code, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("probes attached"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// The command with fewer capabilities, whoever runs it.
fn without(mut command: Command, capabilities: &'static [libc::c_ulong]) -> Command {
    let drop = move || {
        for capability in capabilities {
            // SAFETY: no pointers are passed; allowed between fork and exec.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) })?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls.
    unsafe { command.pre_exec(drop) };
    command
}

/// The command with mounts of its own, with or without a tracefs.
fn with_tracefs(mut command: Command, mounted: bool) -> Command {
    let prepare = move || {
        let none = std::ptr::null();
        // SAFETY: paths are constant strings; allowed between fork and exec.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            // Something empty on top: below debugfs, the kernel mounts one by itself when it is
            // looked for.
            for place in [DEBUGFS, TRACEFS] {
                let kind = c"tmpfs".as_ptr();
                match check(libc::mount(kind, place.as_ptr(), kind, 0, none.cast())) {
                    // A kernel without it has no such folder.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    result => result?,
                }
            }
            if mounted {
                let kind = c"tracefs".as_ptr();
                check(libc::mount(kind, TRACEFS.as_ptr(), kind, 0, none.cast()))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls.
    unsafe { command.pre_exec(prepare) };
    command
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

mod host_only {
    use super::*;

    #[test]
    fn an_address_in_use_is_named_and_nothing_attached() {
        require!(require::root());
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let ended = run_to_end(binary(&["run", "--web.listen-address", &address]));
        refused(&ended, 1, &[&address, "in use"]);
    }

    #[test]
    fn an_unknown_probe_is_a_usage_error() {
        for flag in ["--probe", "--no-probe"] {
            let ended = run_to_end(run(&[flag, "kfree_skv"]));
            refused(&ended, 2, &["kfree_skv", "kfree_skb"]);
        }
    }

    #[test]
    fn without_rights_the_missing_ones_are_named() {
        require!(require::root());
        let mut nobody = run(&[]);
        nobody.uid(65534).gid(65534);
        refused(&run_to_end(nobody), 1, &["CAP_BPF", "CAP_PERFMON", "hint:"]);

        let ended = run_to_end(without(run(&[]), &[SYS_ADMIN, BPF]));
        refused(&ended, 1, &["CAP_BPF missing"]);
        let ended = run_to_end(without(run(&[]), &[SYS_ADMIN, PERFMON]));
        refused(&ended, 1, &["CAP_PERFMON missing"]);
    }
}

#[test]
fn without_the_right_to_enter_namespaces_it_still_watches() {
    require!(require::root());
    let agent = Agent::of(without(run(&[]), &[SYS_ADMIN]));
    let metrics = agent.scrape();
    assert!(
        metrics.sum("netobs_probe_attached", &[]) >= 7,
        "{}",
        metrics.text
    );
}

#[test]
fn without_type_information_and_tracefs_it_says_what_to_mount() {
    require!(require::root());
    // Without the right to mount one for itself, either.
    let command = without(run(&["--btf", "none"]), &[SYS_ADMIN]);
    let ended = run_to_end(with_tracefs(command, false));
    refused(
        &ended,
        1,
        &["tracefs is not mounted", "hint:", "mount -t tracefs"],
    );
}

#[test]
fn without_type_information_retransmissions_are_a_lower_bound() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft")
    );
    let watch = Watch::start();
    let agent = Agent::of(with_tracefs(run(&["--btf", "none"]), true));
    let (a, b) = (NetNs::new("ca").unwrap(), NetNs::new("cb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    scenario::syn_blackhole(&link, Family::V4, 25, 1).unwrap();
    let metrics = agent.scrape();
    for signal in ["retransmits", "syn_ack_retransmits"] {
        let labels: Labels<'_> = &[
            ("signal", &signal),
            ("method", &"tracepoint"),
            ("exactness", &"lower_bound"),
        ];
        assert_eq!(metrics.get("netobs_signal_info", labels), Some(1.0));
    }
    let labels: Labels<'_> = &[("signal", &"listen_drops"), ("exactness", &"unavailable")];
    assert_eq!(metrics.get("netobs_signal_info", labels), Some(1.0));
    // Of no namespace: the formatted record does not tell.
    let labels: Labels<'_> = &[
        ("netns", &""),
        ("role", &"client"),
        ("port", &9),
        ("type", &"syn"),
    ];
    let seen = metrics.sum(SEGMENTS, labels);
    let hidden = watch.map_or(0, |watch| watch.on_init("tcp_retransmit_skb", "dport=9 "));
    assert!(
        (25 - hidden..=25).contains(&seen),
        "{seen} seen, {hidden} hidden"
    );
}
