//! How long an established connection is kept alive without an answer.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Problem, Severity};
use crate::audit::subject::Subject;

const RETRIES1: &str = "net.ipv4.tcp_retries1";
const RETRIES2: &str = "net.ipv4.tcp_retries2";
const ORPHAN: &str = "net.ipv4.tcp_orphan_retries";
const RTO_MIN: &str = "net.ipv4.tcp_rto_min_us";
const RTO_MAX: &str = "net.ipv4.tcp_rto_max_ms";
const ABORTS: &str = "TcpExt.TCPAbortOnTimeout";

pub(super) static RULES: &[&Rule] = &[&GIVE_UP_EARLY, &RTO_FLOOR, &RTO_CEILING, &PATH_DOUBT];

/// Milliseconds that `retries` unanswered retransmissions take from the smallest timeout
/// on: the kernel's model of `tcp_retries2`.
fn give_up_ms(retries: i64, rto_min_ms: u64, rto_max_ms: u64) -> u64 {
    let retries = retries.clamp(0, 255);
    let mut wait = rto_min_ms.max(1);
    let mut total = 0_u64;
    for _ in 0..=retries {
        total = total.saturating_add(wait.min(rto_max_ms));
        wait = wait.saturating_mul(2);
    }
    total
}

fn positive(value: Option<i64>, otherwise: u64) -> u64 {
    value
        .and_then(|v| u64::try_from(v).ok())
        .filter(|v| *v > 0)
        .unwrap_or(otherwise)
}

static GIVE_UP_EARLY: Rule = Rule {
    id: "NETOBS-TCP-050",
    title: "Connections are given up early",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RETRIES2, RTO_MAX],
    doc: Doc {
        checks: "The time that tcp_retries2 allows, worked out with tcp_rto_max_ms, is under 100 s.",
        why: "RFC 1122 asks for at least 100 s before a connection is given up, which is tcp_retries2 = 8. The default of 15 means 924.6 s at least. Lower values make failover faster, and turn a short outage of the path into errors.",
        evidence: "TcpExt.TCPAbortOnTimeout moving in the window: connections are being given up.",
        suggestion: "Go back to 15, and set TCP_USER_TIMEOUT in the programs that must notice a dead peer sooner.",
        ignore: "A cluster where the lower value is part of a failover plan and outages on the path are not to be survived.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc1122#section-4.2.3.5",
            "net/ipv4/tcp_timer.c: retransmits_timed_out()",
        ],
    },
    check: give_up_early,
};

fn give_up_early(s: &Subject<'_>) -> Verdict {
    let retries = s.int(RETRIES2)?;
    let longest = positive(s.maybe_int(RTO_MAX), 120_000);
    let total = give_up_ms(retries, 200, longest);
    if total >= 100_000 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            RETRIES2,
            format!(
                "a connection is given up after about {} s without an answer",
                total / 1000
            ),
        )
        .wanted("at least 100 s (RFC 1122), which is 8 with the usual timeouts")
        .set(s.default_int(RETRIES2).unwrap_or(15).to_string())
        .advise("use TCP_USER_TIMEOUT in the programs that must notice sooner")
        .with(s.counters(&[ABORTS])),
    ])
}

static RTO_FLOOR: Rule = Rule {
    id: "NETOBS-TCP-051",
    title: "The smallest retransmission timeout was changed",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RTO_MIN],
    doc: Doc {
        checks: "tcp_rto_min_us is above 200000, or below 5000.",
        why: "The kernel's text discourages more than 200 ms: every lost last segment then waits longer. Far below it, a peer that delays its acknowledgements (40 ms and more) looks like loss, and segments are sent twice. A route's rto_min and a BPF program override it.",
        evidence: "TcpExt.TCPTimeouts moving (too high: each one costs more), TcpExt.TCPSpuriousRTOs moving (too low: they were not needed).",
        suggestion: "Go back to 200000, or set it per route: ip route change ... rto_min 20ms.",
        ignore: "A data centre where both ends acknowledge at once.",
        sources: &[IP_SYSCTL, "include/net/tcp.h: tcp_rto_min()"],
    },
    check: rto_floor,
};

fn rto_floor(s: &Subject<'_>) -> Verdict {
    let value = s.int(RTO_MIN)?;
    if (5_000..=200_000).contains(&value) {
        return Ok(vec![]);
    }
    let (message, counter) = if value > 200_000 {
        (
            "every lost last segment waits longer than the kernel's default of 200 ms",
            "TcpExt.TCPTimeouts",
        )
    } else {
        (
            "peers that delay their acknowledgements look like loss",
            "TcpExt.TCPSpuriousRTOs",
        )
    };
    Ok(vec![
        Problem::new(Severity::Warning, RTO_MIN, message)
            .wanted("5000 to 200000 microseconds")
            .set("200000")
            .with(s.counters(&[counter])),
    ])
}

static RTO_CEILING: Rule = Rule {
    id: "NETOBS-TCP-052",
    title: "tcp_rto_max_ms was changed and tcp_retries2 was not",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RTO_MAX, RETRIES2],
    doc: Doc {
        checks: "tcp_rto_max_ms differs from 120000 while tcp_retries2 still has its default.",
        why: "The time until a dead connection is given up is the sum of its timeouts. With a lower ceiling 15 retries end much earlier than the 924.6 s they stand for; the kernel's text asks to change both.",
        evidence: "TcpExt.TCPAbortOnTimeout moving in the window.",
        suggestion: "Choose tcp_retries2 so that the sum is what you want (netobs prints it), or go back to 120000.",
        ignore: "The shorter time is wanted and known.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_timer.c: tcp_model_timeout()"],
    },
    check: rto_ceiling,
};

fn rto_ceiling(s: &Subject<'_>) -> Verdict {
    let ceiling = s.int(RTO_MAX)?;
    let retries = s.int(RETRIES2)?;
    if ceiling == 120_000 || retries != s.default_int(RETRIES2).unwrap_or(15) {
        return Ok(vec![]);
    }
    let now = give_up_ms(retries, 200, positive(Some(ceiling), 120_000));
    let usual = give_up_ms(retries, 200, 120_000);
    let severity = if now < 100_000 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let fitting = (retries..=255)
        .find(|r| give_up_ms(*r, 200, positive(Some(ceiling), 120_000)) >= usual)
        .unwrap_or(255);
    Ok(vec![
        Problem::new(
            severity,
            RETRIES2,
            format!(
                "with tcp_rto_max_ms={ceiling}, {retries} retries mean {} s and not {} s",
                now / 1000,
                usual / 1000
            ),
        )
        .wanted("a number of retries that fits the ceiling")
        .set(fitting.to_string())
        .with(s.counters(&[ABORTS])),
    ])
}

static PATH_DOUBT: Rule = Rule {
    id: "NETOBS-TCP-053",
    title: "The retries of a connection contradict each other or are unusual",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[RETRIES1, RETRIES2, ORPHAN],
    doc: Doc {
        checks: "tcp_retries1 is below 3 (what RFC 1122 recommends) or not below tcp_retries2; or tcp_orphan_retries was raised above 8.",
        why: "tcp_retries1 is when the kernel begins to doubt the route. If it is not below tcp_retries2 the connection is given up before another route is tried. Orphans, which no program holds any more, keep memory for as long as they retry.",
        evidence: "TcpExt.TCPAbortOnTimeout moving in the window.",
        suggestion: "Go back to 3, 15 and 0 (0 means 8 for orphans).",
        ignore: "A host with one route: tcp_retries1 changes nothing there.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_timer.c: tcp_write_timeout()"],
    },
    check: path_doubt,
};

fn path_doubt(s: &Subject<'_>) -> Verdict {
    let first = s.int(RETRIES1)?;
    let second = s.int(RETRIES2)?;
    let mut problems = Vec::new();
    if first < 3 || first >= second {
        let message = if first >= second {
            format!(
                "tcp_retries1={first} is not below tcp_retries2={second}: no other route is tried before the end"
            )
        } else {
            format!("the route is doubted after {first} retries, fewer than RFC 1122 recommends")
        };
        problems.push(
            Problem::new(Severity::Info, RETRIES1, message)
                .wanted("3 or more, and below tcp_retries2")
                .set("3")
                .with(s.counters(&[ABORTS])),
        );
    }
    if let Some(orphans) = s.maybe_int(ORPHAN).filter(|n| *n > 8) {
        problems.push(
            Problem::new(
                Severity::Info,
                ORPHAN,
                format!("connections that no program holds retry {orphans} times"),
            )
            .wanted("0 to 8 (0 means 8)")
            .set("0"),
        );
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::{ABORTS, ORPHAN, RETRIES1, RETRIES2, RTO_MAX, RTO_MIN, give_up_ms};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn the_time_to_give_up_is_the_documented_one() {
        assert_eq!(give_up_ms(15, 200, 120_000), 924_600);
        assert!(give_up_ms(8, 200, 120_000) >= 100_000);
        assert!(give_up_ms(7, 200, 120_000) < 100_000);
        assert!(give_up_ms(i64::MAX, u64::MAX, u64::MAX) > 0);
    }

    #[test]
    fn few_retries_and_low_ceilings() {
        let with = |r, max| Fixture::new(&[(RETRIES2, r), (RTO_MAX, max)]);
        assert_eq!(with("15", "120000").ask("050"), Said::Pass);
        assert_eq!(with("8", "120000").ask("050"), Said::Pass);
        assert_eq!(with("7", "120000").ask("050"), found(Warning, Advice));
        assert_eq!(
            with("7", "1").moved(&[(ABORTS, 2)]).ask("050"),
            found(Warning, Evidence)
        );
        assert_eq!(with("15", "120000").ask("052"), Said::Pass);
        assert_eq!(with("15", "10000").ask("052"), found(Info, Advice));
        assert_eq!(with("15", "1000").ask("052"), found(Warning, Advice));
        assert_eq!(with("20", "1000").ask("052"), Said::Pass);
        assert_eq!(with("15", "-3").ask("052"), found(Info, Advice));
        assert_eq!(
            Fixture::new(&[(RETRIES2, "15")]).ask("052"),
            Said::NotApplicable
        );
    }

    #[test]
    fn floors() {
        let with = |v| Fixture::new(&[(RTO_MIN, v)]);
        assert_eq!(with("200000").ask("051"), Said::Pass);
        assert_eq!(with("300000").ask("051"), found(Warning, Advice));
        let needless = with("1000").moved(&[("TcpExt.TCPSpuriousRTOs", 3)]);
        assert_eq!(needless.ask("051"), found(Warning, Evidence));
    }

    #[test]
    fn contradictions() {
        let with = |a, b| Fixture::new(&[(RETRIES1, a), (RETRIES2, b)]);
        assert_eq!(with("3", "15").ask("053"), Said::Pass);
        assert_eq!(with("2", "15").ask("053"), found(Info, Advice));
        assert_eq!(with("9", "8").ask("053"), found(Info, Advice));
        let orphans = Fixture::new(&[(RETRIES1, "3"), (RETRIES2, "15"), (ORPHAN, "20")]);
        assert_eq!(orphans.ask("053"), found(Info, Advice));
    }
}
