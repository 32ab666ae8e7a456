//! Name lookups.

use std::path::Path;

use netobs_common::{
    offsets::Offset::{NetInum, SkNet, TaskComm, TaskGroupLeader, TaskTgid},
    probe::Program,
};

use super::{Method, Missing, Probe, Requirement};
use crate::{
    bpf::{Attachment, Direction},
    sys::cgroup_root,
};

/// The probe.
pub(super) static PROBE: Probe = Probe {
    name: "dns",
    observes: "name lookups over UDP port 53 of every container: how long they take, the response \
               code, and those without an answer within five seconds. Off unless asked for with \
               --probe dns",
    cost: "COST",
    without: "name lookups are not seen",
    requires: None,
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
        offsets: &[SkNet, NetInum, TaskGroupLeader, TaskTgid, TaskComm],
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
