//! Socket buffers, and limits on what is queued.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const RMEM: &str = "net.ipv4.tcp_rmem";
const WMEM: &str = "net.ipv4.tcp_wmem";
const MODERATE: &str = "net.ipv4.tcp_moderate_rcvbuf";
const LOWAT: &str = "net.ipv4.tcp_notsent_lowat";
const LIMIT_OUTPUT: &str = "net.ipv4.tcp_limit_output_bytes";
const SHRINK: &str = "net.ipv4.tcp_shrink_window";

pub(super) static RULES: &[&Rule] = &[
    &ORDER,
    &RECEIVE,
    &SEND,
    &AUTOTUNING,
    &OUTPUT_LIMITS,
    &SHRINKING,
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
            .wanted("minimum <= default <= maximum")
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
        .wanted("a maximum of the default or more, and of twice rate times round trip")
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
        .wanted("1, as in every kernel")
        .set("1")
        .with(s.counters(&["TcpExt.TCPToZeroWindowAdv", "TcpExt.TCPWantZeroWindowAdv"])),
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
            .wanted(format!("{floor} bytes or more"))
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
        .wanted("0, as in every kernel")
        .set("0")
        .with(s.counters(&["TcpExt.TCPZeroWindowDrop", "TcpExt.TCPRcvQDrop"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::{LIMIT_OUTPUT, LOWAT, MODERATE, RMEM, SHRINK, WMEM};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
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
    }
}
