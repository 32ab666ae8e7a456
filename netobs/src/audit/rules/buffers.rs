//! Memory: socket buffers, the node's TCP memory, orphans, and limits on what is queued.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const RMEM: &str = "net.ipv4.tcp_rmem";
const WMEM: &str = "net.ipv4.tcp_wmem";
const RMEM_MAX: &str = "net.core.rmem_max";
const WMEM_MAX: &str = "net.core.wmem_max";
const MEM: &str = "net.ipv4.tcp_mem";
const MODERATE: &str = "net.ipv4.tcp_moderate_rcvbuf";
const ORPHANS: &str = "net.ipv4.tcp_max_orphans";
const LOWAT: &str = "net.ipv4.tcp_notsent_lowat";
const LIMIT_OUTPUT: &str = "net.ipv4.tcp_limit_output_bytes";
const SHRINK: &str = "net.ipv4.tcp_shrink_window";

pub(super) static RULES: &[&Rule] = &[
    &ORDER,
    &RECEIVE,
    &SEND,
    &AUTOTUNING,
    &NODE_MEMORY,
    &MANY_ORPHANS,
    &OUTPUT_LIMITS,
    &SHRINKING,
    &CORE_LIMITS,
];

static ORDER: Rule = Rule {
    id: "NETOBS-TCP-060",
    title: "Buffer sizes out of order",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RMEM, WMEM],
    doc: Doc {
        checks: "In tcp_rmem or tcp_wmem the minimum is above the default, or the default above the maximum.",
        why: "The kernel accepts the three numbers in any order. A default above the maximum switches autotuning off in effect: every socket starts larger than it may grow.",
        evidence: "The values themselves contradict each other. Always advice.",
        suggestion: "Put them in order: minimum, default, maximum.",
        ignore: "Never.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_rcv_space_adjust()"],
    },
    check: order,
};

fn order(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for key in [RMEM, WMEM] {
        let [low, middle, high] = s.vector(key)?;
        if low <= middle && middle <= high {
            continue;
        }
        let mut sorted = [low, middle, high];
        sorted.sort_unstable();
        problems.push(
            Problem::new(
                Severity::Warning,
                key,
                "minimum, default and maximum are not in ascending order",
            )
            .expect("minimum <= default <= maximum")
            .set(crate::audit::value::join(&sorted)),
        );
    }
    Ok(problems)
}

static RECEIVE: Rule = Rule {
    id: "NETOBS-TCP-061",
    title: "Receive buffers hold connections back",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RMEM],
    doc: Doc {
        checks: "The maximum of tcp_rmem is below this namespace's default or below twice the largest rate times round trip seen, or receive queues were pruned in the window.",
        why: "A window cannot be larger than the receive buffer, of which bookkeeping takes up to half. A maximum below rate times round trip (the bandwidth-delay product) caps the rate; below the kernel's default (6 MB, 32 MB from 6.16) it also holds fewer bursts.",
        evidence: "TcpExt.TCPRcvQDrop, PruneCalled, RcvPruned or TCPToZeroWindowAdv moving in the window; the largest product of rate and round trip among established connections.",
        suggestion: "Raise the third number, so that it is at least twice the product. A program that sets SO_RCVBUF turns autotuning off for itself, and rmem_max binds it.",
        ignore: "Memory is short and no single connection has to be fast; or a program reads slowly, which no buffer mends.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_prune_queue()"],
    },
    check: receive,
};

fn receive(s: &Subject<'_>) -> Verdict {
    let facts = s.counters(&[
        "TcpExt.TCPRcvQDrop",
        "TcpExt.PruneCalled",
        "TcpExt.RcvPruned",
    ]);
    too_small(s, RMEM, facts, &["TcpExt.TCPToZeroWindowAdv"])
}

static SEND: Rule = Rule {
    id: "NETOBS-TCP-062",
    title: "Send buffers hold connections back",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[WMEM],
    doc: Doc {
        checks: "The maximum of tcp_wmem is below this namespace's default or below twice the largest rate times round trip seen, or connections spend a tenth of their sending time waiting for the send buffer.",
        why: "Unacknowledged data has to stay in the send buffer. When it is full the program waits, however fast the network is.",
        evidence: "Established connections that the kernel reports as limited by the send buffer (tcpi_sndbuf_limited).",
        suggestion: "Raise the third number to at least twice rate times round trip; a program that sets SO_SNDBUF limits itself, and must be changed instead.",
        ignore: "A program that wants little in the buffer, so that it can still change its mind.",
        sources: &[IP_SYSCTL, "include/uapi/linux/tcp.h: tcpi_sndbuf_limited"],
    },
    check: send,
};

fn send(s: &Subject<'_>) -> Verdict {
    let limited = s.ns.sockets.as_ref().filter(|k| k.established.send_buffer_limited > 0).map(|k| {
        let e = k.established;
        Evidence::seen(
            "sock_diag",
            format!("{} of {} established connections wait for their send buffer a tenth of the time or more", e.send_buffer_limited, e.count),
        )
    });
    too_small(s, WMEM, limited.into_iter().collect(), &[])
}

fn too_small(
    s: &Subject<'_>,
    key: &'static str,
    facts: Vec<Evidence>,
    context: &[&str],
) -> Verdict {
    let [low, middle, high] = s.vector(key)?;
    let default = s.default_of(key).and_then(|d| {
        d.value
            .split_whitespace()
            .nth(2)
            .and_then(|n| n.parse::<i64>().ok())
    });
    let product =
        s.ns.sockets
            .as_ref()
            .map_or(0, |k| k.established.largest_bdp_bytes);
    let product = i64::try_from(product).unwrap_or(i64::MAX);
    let below_default = default.is_some_and(|d| high < d);
    let below_product = product > 0 && high < product.saturating_mul(2);
    let proof = facts.iter().any(|f| f.live);
    if !below_default && !below_product && !proof {
        return Ok(vec![]);
    }
    let message = if below_product {
        format!(
            "the largest buffer ({high} bytes) is below twice the largest rate times round trip seen ({product} bytes)"
        )
    } else if below_default {
        format!(
            "the largest buffer ({high} bytes) is below the default ({})",
            default.unwrap_or(high)
        )
    } else {
        "buffers of connections fill up".to_owned()
    };
    let better = default
        .unwrap_or(high)
        .max(product.saturating_mul(2))
        .max(high);
    let better = if better > high {
        better
    } else {
        high.saturating_mul(2)
    };
    let bdp = below_product.then(|| {
        Evidence::seen(
            "sock_diag",
            format!("largest rate times round trip: {product} bytes"),
        )
    });
    Ok(vec![
        Problem::new(
            if proof || below_product {
                Severity::Warning
            } else {
                Severity::Info
            },
            key,
            message,
        )
        .expect("a maximum of the default or more, and of twice rate times round trip")
        .set(format!("{low} {middle} {better}"))
        .with(facts)
        .with(bdp)
        .with(s.history(context)),
    ])
}

static AUTOTUNING: Rule = Rule {
    id: "NETOBS-TCP-063",
    title: "Receive buffers do not grow",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[MODERATE, RMEM],
    doc: Doc {
        checks: "tcp_moderate_rcvbuf is 0.",
        why: "Every connection then keeps the default receive buffer (the second number of tcp_rmem, 128 KiB), which limits it to about 64 KiB in flight: 1.3 MB/s at 50 ms.",
        evidence: "TcpExt.TCPToZeroWindowAdv or TCPWantZeroWindowAdv moving in the window.",
        suggestion: "Set it to 1.",
        ignore: "Every program sets SO_RCVBUF itself.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_rcv_space_adjust()"],
    },
    check: autotuning,
};

fn autotuning(s: &Subject<'_>) -> Verdict {
    if s.int(MODERATE)? != 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            MODERATE,
            "receive buffers stay at their first size, however fast the path is",
        )
        .expect("1, as in every kernel")
        .set("1")
        .with(s.counters(&["TcpExt.TCPToZeroWindowAdv", "TcpExt.TCPWantZeroWindowAdv"])),
    ])
}

static NODE_MEMORY: Rule = Rule {
    id: "NETOBS-TCP-064",
    title: "The node's TCP memory is short",
    applies: Applies::Node,
    severity: Severity::Critical,
    keys: &[MEM],
    doc: Doc {
        checks: "The pages in TCP buffers, node-wide, against the three limits of tcp_mem.",
        why: "Above the second limit (pressure) windows shrink for every connection of every namespace; above the third, packets are dropped and connections aborted. Namespaces share it: one pod can starve the others.",
        evidence: "/proc/net/sockstat (mem) against tcp_mem now; TcpExt.TCPMemoryPressures and TCPAbortOnMemory moving in the window.",
        suggestion: "Find who holds the memory (connections whose program does not read), or raise tcp_mem on the node if there is memory to spare.",
        ignore: "Never while it is above the second limit.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp.c: tcp_enter_memory_pressure()"],
    },
    check: node_memory,
};

fn node_memory(s: &Subject<'_>) -> Verdict {
    let [low, pressure, high] = s.vector(MEM)?;
    let facts = s.counters(&[
        "TcpExt.TCPMemoryPressures",
        "TcpExt.TCPAbortOnMemory",
        "TcpExt.PFMemallocDrop",
    ]);
    let used =
        s.ns.sockstat
            .map(|stat| i64::try_from(stat.mem_pages).unwrap_or(i64::MAX));
    let above = used.is_some_and(|used| used >= pressure);
    let disordered = !(low <= pressure && pressure <= high);
    if !above && !disordered && !facts.iter().any(|f| f.live) {
        return Ok(vec![]);
    }
    let used = used.unwrap_or(0);
    let bytes = used.unsigned_abs().saturating_mul(s.machine.page_size);
    let now = format!("{used} pages ({bytes} bytes) in use of {low} {pressure} {high}");
    let now = if above {
        Evidence::seen("/proc/net/sockstat", now)
    } else {
        Evidence::context("/proc/net/sockstat", now)
    };
    let severity = if above || facts.iter().any(|f| f.live) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let message = if disordered {
        "the three limits are not in ascending order"
    } else {
        "TCP memory of the whole node is at its limit: windows shrink, connections may be aborted"
    };
    Ok(vec![
        Problem::new(severity, MEM, message)
            .expect("use below the second limit")
            .set(if disordered {
                sorted(low, pressure, high)
            } else {
                format!(
                    "{} {} {}",
                    low.saturating_mul(2),
                    pressure.saturating_mul(2),
                    high.saturating_mul(2)
                )
            })
            .advise("first see which connections hold unread data; the unit is pages")
            .with([now])
            .with(facts),
    ])
}

fn sorted(a: i64, b: i64, c: i64) -> String {
    let mut all = [a, b, c];
    all.sort_unstable();
    crate::audit::value::join(&all)
}

static MANY_ORPHANS: Rule = Rule {
    id: "NETOBS-TCP-065",
    title: "Orphaned connections are near their limit",
    applies: Applies::Node,
    severity: Severity::Critical,
    keys: &[ORPHANS],
    doc: Doc {
        checks: "Connections that no program holds any more reach half of tcp_max_orphans.",
        why: "From there on the kernel resets some of them early, and logs \"too many orphaned sockets\": the last data of a connection can be lost.",
        evidence: "/proc/net/sockstat (orphan) now; TcpExt.TCPAbortOnMemory moving in the window.",
        suggestion: "Find the programs that close connections with unsent data; each orphan may hold up to 64 KiB that cannot be swapped.",
        ignore: "A load test that closes everything at once.",
        sources: &[IP_SYSCTL, "include/net/tcp.h: tcp_too_many_orphans()"],
    },
    check: many_orphans,
};

fn many_orphans(s: &Subject<'_>) -> Verdict {
    let limit = s.int(ORPHANS)?;
    let Some(stat) = s.ns.sockstat else {
        return Ok(vec![]);
    };
    let orphans = i64::try_from(stat.orphans).unwrap_or(i64::MAX);
    if limit <= 0 || orphans.saturating_mul(2) < limit {
        return Ok(vec![]);
    }
    let severity = if orphans >= limit {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Ok(vec![
        Problem::new(
            severity,
            ORPHANS,
            format!("{orphans} connections without a program, of {limit} allowed"),
        )
        .expect("less than half of the limit")
        .advise("find the programs that close connections while data is unsent")
        .in_application()
        .with([Evidence::seen(
            "/proc/net/sockstat",
            format!("{orphans} orphans"),
        )])
        .with(s.counters(&["TcpExt.TCPAbortOnMemory"])),
    ])
}

static OUTPUT_LIMITS: Rule = Rule {
    id: "NETOBS-TCP-066",
    title: "Limits on queued output were changed",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[LIMIT_OUTPUT, LOWAT],
    doc: Doc {
        checks: "tcp_limit_output_bytes is below 256 KiB, or tcp_notsent_lowat is below 16 KiB.",
        why: "The first bounds what one connection may have in the queues below TCP (1 MB, 4 MB from 6.16): too little, and fast links and Wi-Fi run dry. The second bounds what waits unsent: too little, and programs are woken for every packet.",
        evidence: "None: nothing counts it. Always advice.",
        suggestion: "Go back to the default; set TCP_NOTSENT_LOWAT per socket where latency matters.",
        ignore: "Measured and meant.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_output.c: tcp_small_queue_check()"],
    },
    check: output_limits,
};

fn output_limits(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for (key, floor) in [(LIMIT_OUTPUT, 256 * 1024), (LOWAT, 16 * 1024)] {
        let value = match s.int(key) {
            Ok(value) => value,
            Err(skip) if key == LIMIT_OUTPUT => return Err(skip),
            Err(_) => continue,
        };
        // tcp_notsent_lowat is unsigned; old kernels print "no limit" as -1.
        if value >= floor || value < 0 {
            continue;
        }
        let default = s
            .default_of(key)
            .map_or_else(|| floor.to_string(), |d| d.value);
        problems.push(
            Problem::new(
                Severity::Info,
                key,
                format!(
                    "{value} bytes is little: fast connections may run dry, programs wake often"
                ),
            )
            .expect(format!("{floor} bytes or more"))
            .set(default),
        );
    }
    Ok(problems)
}

static SHRINKING: Rule = Rule {
    id: "NETOBS-TCP-067",
    title: "Windows may shrink",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[SHRINK],
    doc: Doc {
        checks: "tcp_shrink_window is not 0.",
        why: "The receiver may then take back window it has offered, which keeps it within its memory; RFC 7323 allows it and discourages it, and some senders answer badly.",
        evidence: "TcpExt.TCPZeroWindowDrop and TCPRcvQDrop moving in the window.",
        suggestion: "Keep 0 unless many connections outgrow their receive buffers.",
        ignore: "Servers with very many slow readers, for which it was made.",
        sources: &[IP_SYSCTL, "b650d953cd39 (6.6 and stable kernels)"],
    },
    check: shrinking,
};

fn shrinking(s: &Subject<'_>) -> Verdict {
    if s.int(SHRINK)? == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            SHRINK,
            "windows that were offered may be taken back, which some senders do not expect",
        )
        .expect("0, as in every kernel")
        .set("0")
        .with(s.counters(&["TcpExt.TCPZeroWindowDrop", "TcpExt.TCPRcvQDrop"])),
    ])
}

static CORE_LIMITS: Rule = Rule {
    id: "NETOBS-TCP-068",
    title: "SO_RCVBUF and SO_SNDBUF are bound far below what autotuning may use",
    applies: Applies::Node,
    severity: Severity::Info,
    keys: &[RMEM_MAX, WMEM_MAX, RMEM, WMEM],
    doc: Doc {
        checks: "net.core.rmem_max is below the default of tcp_rmem, or wmem_max below that of tcp_wmem.",
        why: "A program that sets SO_RCVBUF leaves autotuning and is bound by rmem_max without an error: asking for more buffer then gives less than asking for none. Raising rmem_max does nothing for programs that do not ask.",
        evidence: "None: nothing counts it. Always advice.",
        suggestion: "Raise it to the default of tcp_rmem, or remove SO_RCVBUF from the program.",
        ignore: "No program on the node sets SO_RCVBUF or SO_SNDBUF.",
        sources: &[
            "https://docs.kernel.org/admin-guide/sysctl/net.html",
            "net/core/sock.c: __sock_set_rcvbuf()",
        ],
    },
    check: core_limits,
};

fn core_limits(s: &Subject<'_>) -> Verdict {
    let mut problems = Vec::new();
    for (limit, buffers) in [(RMEM_MAX, RMEM), (WMEM_MAX, WMEM)] {
        let bound = s.int(limit)?;
        let [_, middle, _] = s.vector(buffers)?;
        if bound < middle {
            problems.push(
                Problem::new(Severity::Info, limit, format!("a program that asks for a buffer gets at most {bound} (doubled by the kernel), and {middle} if it does not ask"))
                    .expect(format!("{middle} or more, the default of {buffers}"))
                    .set(middle.to_string()),
            );
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::{
        LIMIT_OUTPUT, LOWAT, MEM, MODERATE, ORPHANS, RMEM, RMEM_MAX, SHRINK, WMEM, WMEM_MAX,
    };
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::Sockstat;
    use crate::audit::value::Reading;

    fn buffers(rmem: &str, wmem: &str) -> Fixture {
        let mut f = Fixture::new(&[(RMEM, rmem), (WMEM, wmem)]);
        let default = || Reading::Vector(vec![4096, 131_072, 6_291_456]);
        f.0.defaults.fresh = Some([(RMEM, default()), (WMEM, default())].into_iter().collect());
        f
    }

    #[test]
    fn order_matters() {
        assert_eq!(buffers("1 2 3", "1 2 3").ask("060"), Said::Pass);
        assert_eq!(buffers("1 3 2", "1 2 3").ask("060"), found(Warning, Advice));
        assert_eq!(buffers("1 2", "1 2 3").ask("060"), Said::Unreadable);
    }

    #[test]
    fn sizes_are_held_against_default_product_and_counters() {
        let big = "4096 131072 6291456";
        let small = "4096 131072 1000000";
        assert_eq!(buffers(big, big).ask("061"), Said::Pass);
        assert_eq!(buffers(small, big).ask("061"), found(Info, Advice));
        let fast = buffers(big, big).sockets(|s| s.established.largest_bdp_bytes = 4_000_000);
        assert_eq!(fast.ask("061"), found(Warning, Evidence));
        let pruned = buffers(big, big).moved(&[("TcpExt.PruneCalled", 4)]);
        assert_eq!(pruned.ask("061"), found(Warning, Evidence));
        assert_eq!(buffers(big, small).ask("062"), found(Info, Advice));
        let waits = buffers(big, big).sockets(|s| s.established.send_buffer_limited = 2);
        assert_eq!(waits.ask("062"), found(Warning, Evidence));
    }

    #[test]
    fn node_memory_and_orphans() {
        let with = |mem_pages, orphans| {
            Fixture::new(&[(MEM, "10 20 30"), (ORPHANS, "100")]).host(|ns| {
                ns.sockstat = Some(Sockstat {
                    orphans,
                    time_wait: 0,
                    mem_pages,
                });
            })
        };
        assert_eq!(with(19, 0).ask("064"), Said::Pass);
        assert_eq!(with(20, 0).ask("064"), found(Critical, Evidence));
        let pressed = with(1, 0).moved(&[("TcpExt.TCPMemoryPressures", 1)]);
        assert_eq!(pressed.ask("064"), found(Critical, Evidence));
        assert_eq!(
            Fixture::new(&[(MEM, "3 2 1")]).ask("064"),
            found(Warning, Advice)
        );
        assert_eq!(with(0, 49).ask("065"), Said::Pass);
        assert_eq!(with(0, 50).ask("065"), found(Warning, Evidence));
        assert_eq!(with(0, 100).ask("065"), found(Critical, Evidence));
    }

    #[test]
    fn switches_and_limits() {
        assert_eq!(
            Fixture::new(&[(MODERATE, "0")]).ask("063"),
            found(Warning, Advice)
        );
        assert_eq!(Fixture::new(&[(MODERATE, "1")]).ask("063"), Said::Pass);
        assert_eq!(
            Fixture::new(&[(SHRINK, "1")]).ask("067"),
            found(Info, Advice)
        );
        assert_eq!(Fixture::new(&[(SHRINK, "0")]).ask("067"), Said::Pass);
        let out = |limit, lowat| Fixture::new(&[(LIMIT_OUTPUT, limit), (LOWAT, lowat)]);
        assert_eq!(out("4194304", "4294967295").ask("066"), Said::Pass);
        assert_eq!(out("4194304", "-1").ask("066"), Said::Pass);
        assert_eq!(out("1000", "4294967295").ask("066"), found(Info, Advice));
        let core = |bound| {
            Fixture::new(&[
                (RMEM_MAX, bound),
                (WMEM_MAX, "9"),
                (RMEM, "1 5 9"),
                (WMEM, "1 5 9"),
            ])
        };
        assert_eq!(core("5").ask("068"), Said::Pass);
        assert_eq!(core("4").ask("068"), found(Info, Advice));
    }
}
