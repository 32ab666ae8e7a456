//! Name lookups.

use std::path::Path;

use netobs_common::{
    offsets::Offset::{NetInum, SkNet, TaskComm, TaskLeader, TaskTgid},
    probe::Program,
};

use super::{Method, Missing, Probe, Requirement};
use crate::{
    bpf::{Attachment, Direction},
    sys::cgroup_root,
};

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: super::LOOKUPS,
    observes: "name lookups over UDP port 53 of every container: how long they take, the response \
               code, and those without an answer within five seconds. Off unless asked for: \
               `--probe dns`. A lookup is one id on one socket, however often and to however many \
               servers it is sent. Its owner is who sent it first. Not seen: TCP (an answer with the \
               flag TC is followed by one), TLS, HTTPS, other ports, IPv6 with extension headers, \
               what is only forwarded (virtual machines), and queries of unconnected sockets that \
               their own namespace redirects to another port (musl in a Docker network of its own: \
               their answers show as stray). Response codes are those of the header; extended ones \
               (EDNS) show as NOERROR. A refusal by ICMP is no answer",
    cost: "every packet of every socket: 1 to 2 ns in the program for one that is not UDP, 21 ns for \
           UDP, and what the kernel needs to call it. On 6.18 (x86-64, loopback, CPU time) a \
           one-byte TCP round trip takes 0.3 µs more (3 %), connect() to close 1.0 to 1.4 µs \
           (4 to 5 %), a bulk transfer no more that could be seen; a lookup takes 1.9 µs",
    without: "name lookups are not seen",
    requires: None,
    unless: None,
    optional: false,
    methods: &[Method {
        counts: Program::Dns,
        // Answers first: every query that is seen then has its answer seen.
        programs: &[
            (
                "dns_ingress",
                Attachment::CgroupSkb {
                    direction: Direction::Ingress,
                },
            ),
            (
                "dns_egress",
                Attachment::CgroupSkb {
                    direction: Direction::Egress,
                },
            ),
        ],
        offsets: &[SkNet, NetInum, TaskLeader, TaskTgid, TaskComm],
        also: Requirement {
            what: "CAP_NET_ADMIN; the root of the cgroup2 hierarchy, mounted where netobs or \
                   process 1 sees it",
            check: |_| {
                cgroup_root::find(Path::new("/proc"))
                    .map(drop)
                    .map_err(|error| Missing {
                        reason: error.to_string(),
                        remedy: Some(
                            "mount the machine's cgroup2 hierarchy (in a container: share the \
                             machine's process ids, or mount its /sys/fs/cgroup)"
                                .to_owned(),
                        ),
                    })
            },
        },
    }],
};
