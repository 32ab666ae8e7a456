//! Memory that all connections of the node share, and the bounds on what programs ask for.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const RMEM: &str = "net.ipv4.tcp_rmem";
const WMEM: &str = "net.ipv4.tcp_wmem";
const RMEM_MAX: &str = "net.core.rmem_max";
const WMEM_MAX: &str = "net.core.wmem_max";
const MEM: &str = "net.ipv4.tcp_mem";
const ORPHANS: &str = "net.ipv4.tcp_max_orphans";

pub(super) static RULES: &[&Rule] = &[&NODE_MEMORY, &MANY_ORPHANS, &CORE_LIMITS];

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
            .wanted("use below the second limit")
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
        .wanted("less than half of the limit")
        .advise("find the programs that close connections while data is unsent")
        .in_application()
        .with([Evidence::seen(
            "/proc/net/sockstat",
            format!("{orphans} orphans"),
        )])
        .with(s.counters(&["TcpExt.TCPAbortOnMemory"])),
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
                    .wanted(format!("{middle} or more, the default of {buffers}"))
                    .set(middle.to_string()),
            );
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::{MEM, ORPHANS, RMEM, RMEM_MAX, WMEM, WMEM_MAX};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::Sockstat;

    #[test]
    fn bounds_on_what_programs_ask_for() {
        let with = |bound| {
            Fixture::new(&[
                (RMEM_MAX, bound),
                (WMEM_MAX, "9"),
                (RMEM, "1 5 9"),
                (WMEM, "1 5 9"),
            ])
        };
        assert_eq!(with("5").ask("068"), Said::Pass);
        assert_eq!(with("4").ask("068"), found(Info, Advice));
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
}
