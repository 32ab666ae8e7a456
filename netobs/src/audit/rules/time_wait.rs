//! `TIME_WAIT`: reuse, recycling, the limit on their number, and the `FIN_WAIT_2` myth.

use super::ports::nearly_used_up;
use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const REUSE: &str = "net.ipv4.tcp_tw_reuse";
const DELAY: &str = "net.ipv4.tcp_tw_reuse_delay";
const RECYCLE: &str = "net.ipv4.tcp_tw_recycle";
const BUCKETS: &str = "net.ipv4.tcp_max_tw_buckets";
const FIN: &str = "net.ipv4.tcp_fin_timeout";
const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";

pub(super) static RULES: &[&Rule] = &[
    &REUSE_WITHOUT_TIMESTAMPS,
    &RECYCLING,
    &FEW_BUCKETS,
    &FIN_TIMEOUT,
    &SHORT_DELAY,
];

static REUSE_WITHOUT_TIMESTAMPS: Rule = Rule {
    id: "NETOBS-TCP-020",
    title: "Reuse of TIME_WAIT is on and time stamps are off",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[REUSE, TIMESTAMPS],
    doc: Doc {
        checks: "tcp_tw_reuse is 1 while tcp_timestamps is 0.",
        why: "A port in TIME_WAIT is only used again when the old connection had time stamps. Without them the setting does nothing, and a busy client runs out of ports as if it were not there.",
        evidence: "Sockets in TIME_WAIT, and local ports nearly used up towards one destination.",
        suggestion: "Set tcp_timestamps to 1.",
        ignore: "Never; the two settings contradict each other.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_ipv4.c: tcp_twsk_unique()"],
    },
    check: reuse_without_timestamps,
};

fn reuse_without_timestamps(s: &Subject<'_>) -> Verdict {
    if s.int(REUSE)? != 1 || s.int(TIMESTAMPS)? != 0 {
        return Ok(vec![]);
    }
    let held = s.ns.sockets.as_ref().and_then(|sockets| {
        let worst = sockets.port_use.first()?;
        let [low, high] = s.vector("net.ipv4.ip_local_port_range").ok()?;
        let text = format!(
            "{} local ports in use towards {}, {} of them in TIME_WAIT",
            worst.ports, worst.destination, worst.time_wait
        );
        let near = nearly_used_up(worst.ports, low, high);
        Some(if near {
            Evidence::seen("sock_diag", text)
        } else {
            Evidence::context("sock_diag", text)
        })
    });
    let problem = Problem::new(
        Severity::Warning,
        TIMESTAMPS,
        "tcp_tw_reuse=1 does nothing while time stamps are off",
    )
    .wanted("1 wherever tcp_tw_reuse is 1")
    .set("1")
    .with(held)
    .graver_if_live(Severity::Critical);
    Ok(vec![problem])
}

static RECYCLING: Rule = Rule {
    id: "NETOBS-TCP-021",
    title: "TIME_WAIT recycling drops clients behind NAT",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[RECYCLE],
    doc: Doc {
        checks: "tcp_tw_recycle exists (kernels before 4.12) and is not 0.",
        why: "The kernel then drops SYNs whose time stamp is older than the last from the same address. Clients behind one NAT have clocks of their own, so some of them cannot connect, now and then, without any message.",
        evidence: "TcpExt.PAWSPassive moving in the window: SYNs are being dropped for it.",
        suggestion: "Set it to 0 and remove it from the files. Kernels since 4.12 do not have it.",
        ignore: "Never.",
        sources: &[
            "4396e46187ca (4.12: removed)",
            "https://vincent.bernat.ch/en/blog/2014-tcp-time-wait-state-linux",
        ],
    },
    check: recycling,
};

fn recycling(s: &Subject<'_>) -> Verdict {
    if s.int(RECYCLE)? == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Critical,
            RECYCLE,
            "clients behind NAT are refused at random and in silence",
        )
        .wanted("0, or a kernel from 4.12 on")
        .set("0")
        .with(s.counters(&["TcpExt.PAWSPassive"])),
    ])
}

static FEW_BUCKETS: Rule = Rule {
    id: "NETOBS-TCP-022",
    title: "TIME_WAIT sockets are cut short",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[BUCKETS],
    doc: Doc {
        checks: "tcp_max_tw_buckets is below this kernel's default, or TIME_WAIT sockets were destroyed early because of it.",
        why: "TIME_WAIT keeps late segments of an old connection out of a new one. The kernel's own text says that this limit must not be lowered; memory is no reason, a socket in that state takes some 250 bytes.",
        evidence: "TcpExt.TCPTimeWaitOverflow moving in the window: sockets are destroyed early now.",
        suggestion: "Go back to the default; raise it with the memory when it overflows.",
        ignore: "A small appliance with little memory and few connections, while nothing overflows.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/inet_timewait_sock.c: inet_twsk_alloc()",
        ],
    },
    check: few_buckets,
};

fn few_buckets(s: &Subject<'_>) -> Verdict {
    let value = s.int(BUCKETS)?;
    let default = s.default_int(BUCKETS);
    let lowered = default.is_some_and(|d| value < d);
    let facts = s.counters(&["TcpExt.TCPTimeWaitOverflow"]);
    let now = facts.iter().any(|f| f.live);
    if !lowered && !now {
        return Ok(vec![]);
    }
    let held = s.ns.sockstat.map(|stat| {
        Evidence::context(
            "/proc/net/sockstat",
            format!("{} sockets in TIME_WAIT", stat.time_wait),
        )
    });
    let message = if lowered {
        "the limit on TIME_WAIT sockets is lower than the kernel set it, which the kernel's documentation forbids"
    } else {
        "there are more TIME_WAIT sockets than allowed, and the surplus is destroyed early"
    };
    let better = default
        .unwrap_or(value)
        .max(if now { value.saturating_mul(2) } else { 0 });
    let problem = Problem::new(Severity::Warning, BUCKETS, message)
        .wanted("the kernel's default or more")
        .set(better.to_string())
        .with(facts)
        .with(held)
        .graver_if_live(Severity::Critical);
    Ok(vec![problem])
}

static FIN_TIMEOUT: Rule = Rule {
    id: "NETOBS-TCP-023",
    title: "tcp_fin_timeout does not shorten TIME_WAIT",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[FIN],
    doc: Doc {
        checks: "tcp_fin_timeout differs from the kernel's default.",
        why: "It is the time that a connection which no program holds any more may stay in FIN_WAIT_2. It has nothing to do with TIME_WAIT, which lasts 60 s whatever this says; many guides claim otherwise.",
        evidence: "None: nothing counts it. Always advice.",
        suggestion: "Leave it, or go back to 60, and look at tcp_tw_reuse and the port range if ports run out.",
        ignore: "It was changed for FIN_WAIT_2, by somebody who knows.",
        sources: &[IP_SYSCTL, "include/net/tcp.h: TCP_TIMEWAIT_LEN"],
    },
    check: fin_timeout,
};

fn fin_timeout(s: &Subject<'_>) -> Verdict {
    let value = s.int(FIN)?;
    let default = s.default_int(FIN).unwrap_or(60);
    if value == default {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            FIN,
            format!("changed to {value} s: this concerns orphans in FIN_WAIT_2 only, TIME_WAIT stays at 60 s"),
        )
        .wanted("the default, unless FIN_WAIT_2 is the problem")
        .set(default.to_string()),
    ])
}

static SHORT_DELAY: Rule = Rule {
    id: "NETOBS-TCP-024",
    title: "Ports in TIME_WAIT are used again very early",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[DELAY, REUSE],
    doc: Doc {
        checks: "tcp_tw_reuse is 1 and tcp_tw_reuse_delay is below its default of 1000 ms.",
        why: "The delay keeps a new connection's time stamps ahead of the old one's. Below the granularity of the peer's clock, a late segment of the old connection may be taken for the new one, or the new SYN refused.",
        evidence: "TcpExt.TCPTimeWaitOverflow does not show it; TcpExt.TWRecycled (ports used again) moving shows that the path is taken. Always advice.",
        suggestion: "Keep 1000 unless ports run out and the peer's time stamp clock is known.",
        ignore: "Loopback, or peers whose clock ticks every millisecond (Linux does).",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_ipv4.c: tcp_twsk_unique()"],
    },
    check: short_delay,
};

fn short_delay(s: &Subject<'_>) -> Verdict {
    let delay = s.int(DELAY)?;
    if s.int(REUSE)? != 1 || delay >= 1000 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            DELAY,
            format!("ports in TIME_WAIT are used again after {delay} ms"),
        )
        .wanted("1000 ms or more")
        .set("1000")
        .with(s.history(&["TcpExt.TWRecycled"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, DELAY, FIN, RECYCLE, REUSE, TIMESTAMPS};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::PortUse;

    #[test]
    fn reuse_needs_time_stamps() {
        let with = |reuse, ts| {
            Fixture::new(&[
                (REUSE, reuse),
                (TIMESTAMPS, ts),
                ("net.ipv4.ip_local_port_range", "100 199"),
            ])
        };
        assert_eq!(with("1", "0").ask("020"), found(Warning, Advice));
        assert_eq!(with("1", "1").ask("020"), Said::Pass);
        assert_eq!(with("2", "0").ask("020"), Said::Pass);
        let used = |ports| {
            with("1", "0").sockets(|s| {
                s.port_use.push(PortUse {
                    source: "::1".parse().unwrap(),
                    destination: "[::1]:80".parse().unwrap(),
                    ports,
                    time_wait: ports,
                });
            })
        };
        assert_eq!(used(95).ask("020"), found(Critical, Evidence));
        assert_eq!(used(5).ask("020"), found(Warning, Advice));
    }

    #[test]
    fn recycling_is_critical_where_it_exists() {
        assert_eq!(
            Fixture::new(&[(RECYCLE, "1")]).ask("021"),
            found(Critical, Advice)
        );
        assert_eq!(Fixture::new(&[(RECYCLE, "0")]).ask("021"), Said::Pass);
        assert_eq!(Fixture::new(&[]).ask("021"), Said::NotApplicable);
    }

    #[test]
    fn the_limit_on_time_wait() {
        let with = |v: &'static str| {
            let mut f = Fixture::new(&[(BUCKETS, v)]);
            let fresh = [(BUCKETS, crate::audit::value::Reading::Int(1000))];
            f.0.defaults.fresh = Some(fresh.into_iter().collect());
            f
        };
        let overflow = [("TcpExt.TCPTimeWaitOverflow", 9)];
        assert_eq!(with("1000").ask("022"), Said::Pass);
        assert_eq!(with("999").ask("022"), found(Warning, Advice));
        assert_eq!(
            with("999").moved(&overflow).ask("022"),
            found(Critical, Evidence)
        );
        assert_eq!(
            with("5000").moved(&overflow).ask("022"),
            found(Critical, Evidence)
        );
        assert_eq!(with("5000").totals(&overflow).ask("022"), Said::Pass);
    }

    #[test]
    fn myths_and_delays() {
        assert_eq!(Fixture::new(&[(FIN, "60")]).ask("023"), Said::Pass);
        assert_eq!(Fixture::new(&[(FIN, "15")]).ask("023"), found(Info, Advice));
        let with = |reuse, delay| Fixture::new(&[(REUSE, reuse), (DELAY, delay)]);
        assert_eq!(with("1", "10").ask("024"), found(Info, Advice));
        assert_eq!(with("2", "10").ask("024"), Said::Pass);
        assert_eq!(with("1", "1000").ask("024"), Said::Pass);
        assert_eq!(
            Fixture::new(&[(REUSE, "1")]).ask("024"),
            Said::NotApplicable
        );
    }
}
