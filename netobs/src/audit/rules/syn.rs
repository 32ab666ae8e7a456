//! Handshakes: SYN cookies, the SYN queue, and how long both sides keep trying.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const COOKIES: &str = "net.ipv4.tcp_syncookies";
const BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";
const SYN_RETRIES: &str = "net.ipv4.tcp_syn_retries";
const LINEAR: &str = "net.ipv4.tcp_syn_linear_timeouts";
const SYNACK: &str = "net.ipv4.tcp_synack_retries";
const FULL_DROP: &str = "TcpExt.TCPReqQFullDrop";
const FULL_COOKIE: &str = "TcpExt.TCPReqQFullDoCookies";
/// `TCP_RTO_MAX` as compiled in, in seconds.
const LONGEST_WAIT: u64 = 120;

pub(super) static RULES: &[&Rule] = &[
    &COOKIES_OFF,
    &COOKIES_ALWAYS,
    &COOKIES_SENT,
    &SYN_BACKLOG,
    &SYN_TRIES,
    &SYNACK_TRIES,
];

static COOKIES_OFF: Rule = Rule {
    id: "NETOBS-TCP-030",
    title: "SYN cookies are off",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[COOKIES],
    doc: Doc {
        checks: "tcp_syncookies is 0.",
        why: "A full SYN queue then drops new SYNs: a flood of a few thousand packets per second from invented addresses keeps everybody out.",
        evidence: "TcpExt.TCPReqQFullDrop moving in the window: SYNs are dropped for a full queue now.",
        suggestion: "Set it to 1: cookies are sent only while the queue is full.",
        ignore: "Listeners that nobody untrusted can reach, if their queue is long enough.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_syn_flood_action()"],
    },
    check: cookies_off,
};

fn cookies_off(s: &Subject<'_>) -> Verdict {
    if s.int(COOKIES)? != 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            COOKIES,
            "a full SYN queue drops new connections",
        )
        .wanted("1, as in every kernel")
        .set("1")
        .with(s.counters(&[FULL_DROP]))
        .graver_if_live(Severity::Critical),
    ])
}

static COOKIES_ALWAYS: Rule = Rule {
    id: "NETOBS-TCP-031",
    title: "SYN cookies are sent for every connection",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[COOKIES],
    doc: Doc {
        checks: "tcp_syncookies is 2 (or a higher number, which the kernel treats alike).",
        why: "It is meant for testing. Every incoming connection is opened without a place in the SYN queue: options are squeezed into the time stamp, lost where the client sends none, and a lost last packet of the handshake is not repaired.",
        evidence: "TcpExt.SyncookiesRecv moving in the window.",
        suggestion: "Set it to 1.",
        ignore: "While testing cookies.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_conn_request()"],
    },
    check: cookies_always,
};

fn cookies_always(s: &Subject<'_>) -> Verdict {
    if s.int(COOKIES)? < 2 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            COOKIES,
            "every incoming connection is opened with a SYN cookie, a setting for tests",
        )
        .wanted("1, as in every kernel")
        .set("1")
        .with(s.counters(&["TcpExt.SyncookiesRecv"]))
        .with(s.history(&["TcpExt.SyncookiesSent", "TcpExt.SyncookiesFailed"])),
    ])
}

static COOKIES_SENT: Rule = Rule {
    id: "NETOBS-TCP-032",
    title: "SYN cookies are being sent",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[COOKIES],
    doc: Doc {
        checks: "tcp_syncookies is 1, and cookies were sent in the window.",
        why: "A cookie is sent because a listener's SYN queue or accept queue was full. That is an attack, or a server that is too slow or whose backlog is too short; the kernel's text says that cookies must not be used to help a highly loaded server.",
        evidence: "TcpExt.SyncookiesSent and TcpExt.TCPReqQFullDoCookies moving in the window. If most sent cookies come back (SyncookiesRecv), it is load and not an attack. Never said without.",
        suggestion: "Find the listener whose queue is full and give it a longer backlog or more workers.",
        ignore: "During an attack that the cookies are there for.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_conn_request()"],
    },
    check: cookies_sent,
};

fn cookies_sent(s: &Subject<'_>) -> Verdict {
    if s.int(COOKIES)? != 1 || !s.moved("TcpExt.SyncookiesSent") {
        return Ok(vec![]);
    }
    let sent = s.delta("TcpExt.SyncookiesSent").unwrap_or(0);
    let back = s.delta("TcpExt.SyncookiesRecv").unwrap_or(0);
    let kind = if back.saturating_mul(2) >= sent {
        "most come back, so this is load and not an attack"
    } else {
        "few come back, as in a flood of forged SYNs"
    };
    let fullest = s
        .listeners()
        .iter()
        .max_by_key(|l| (l.syn_queue, l.queue))
        .map(|l| {
            Evidence::context(
                format!("listener {}", l.name()),
                format!(
                    "{} handshakes under way, {} waiting for accept(), limit {}",
                    l.syn_queue, l.queue, l.limit
                ),
            )
        });
    Ok(vec![
        Problem::new(
            Severity::Warning,
            COOKIES,
            format!("a listener's SYN queue is full: {sent} cookies sent, {back} answered; {kind}"),
        )
        .wanted("no cookies under honest load")
        .advise("lengthen the backlog of the listener that is full, or add workers to it")
        .in_application()
        .with(s.counters(&["TcpExt.SyncookiesSent", FULL_COOKIE]))
        .with(s.history(&["TcpExt.SyncookiesRecv", "TcpExt.SyncookiesFailed"]))
        .with(fullest),
    ])
}

static SYN_BACKLOG: Rule = Rule {
    id: "NETOBS-TCP-033",
    title: "tcp_max_syn_backlog: binding or without effect",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[BACKLOG, COOKIES],
    doc: Doc {
        checks: "SYN cookies are off, and the SYN queue of a listener is near three quarters of tcp_max_syn_backlog; or cookies are on and the value was changed, which has no effect.",
        why: "The kernel looks at this setting only while tcp_syncookies is 0, where the last quarter is kept for peers it knows. With cookies on, the length of the SYN queue is bounded by the listener's own backlog, and guides that raise this setting raise nothing.",
        evidence: "TcpExt.TCPReqQFullDrop moving, or a listener's SYN queue above three quarters of the setting.",
        suggestion: "Turn cookies on. Only where they must stay off, raise this together with the listener's backlog.",
        ignore: "It was changed long ago and nobody relies on it.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_input.c: tcp_conn_request()"],
    },
    check: syn_backlog,
};

fn syn_backlog(s: &Subject<'_>) -> Verdict {
    let limit = s.int(BACKLOG)?;
    if s.int(COOKIES)? != 0 {
        let Some(default) = s.default_of(BACKLOG) else {
            return Ok(vec![]);
        };
        if default.value == limit.to_string() {
            return Ok(vec![]);
        }
        return Ok(vec![
            Problem::new(
                Severity::Info,
                BACKLOG,
                format!("changed to {limit}, which has no effect while SYN cookies are on"),
            )
            .wanted("the kernel's default while tcp_syncookies is 1")
            .set(default.value)
            .advise("to lengthen a SYN queue, lengthen the listener's backlog"),
        ]);
    }
    let near = |l: &&crate::audit::snapshot::Listener| {
        i64::from(l.syn_queue) * 4 >= limit.saturating_mul(3)
    };
    let crowded: Vec<Evidence> = s
        .listeners()
        .iter()
        .filter(near)
        .take(20)
        .map(|l| {
            Evidence::seen(
                format!("listener {}", l.name()),
                format!("{} handshakes under way, of {limit}", l.syn_queue),
            )
        })
        .collect();
    let drops = s.counters(&[FULL_DROP]);
    if crowded.is_empty() && !drops.iter().any(|d| d.live) {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Warning, BACKLOG, "the SYN queue is at its limit and cookies are off, so SYNs of unknown peers are dropped")
            .wanted("tcp_syncookies = 1, or room in the queue")
            .set(limit.saturating_mul(4).to_string())
            .advise("better: turn tcp_syncookies on; and lengthen the listener's backlog in any case")
            .with(crowded)
            .with(drops),
    ])
}

static SYN_TRIES: Rule = Rule {
    id: "NETOBS-TCP-034",
    title: "connect() gives up too early or too late",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SYN_RETRIES, LINEAR],
    doc: Doc {
        checks: "tcp_syn_retries is below 2 or above 8; the time until connect() fails is worked out with tcp_syn_linear_timeouts (6.5 and later).",
        why: "With one retry or none, a short loss on the way becomes a failed connection. With many, a program without a timeout of its own hangs for minutes. The default of 6 means 127 s, or 131 s with four linear timeouts.",
        evidence: "TcpExt.TCPSynRetrans moving in the window: SYNs are being lost now.",
        suggestion: "Keep 6 and give the program a timeout of its own; TCP_SYNCNT and TCP_USER_TIMEOUT set it per socket.",
        ignore: "A client that must give up at once, because another server is waiting.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/tcp_timer.c: tcp_write_timeout()",
            "ccce324dabfe (6.5: linear timeouts)",
        ],
    },
    check: syn_tries,
};

/// Seconds until `connect()` fails: `linear` waits of 1 s come on top of the retries, whose
/// waits double from 1 s up to two minutes.
fn connect_seconds(retries: i64, linear: i64) -> u64 {
    let retries = u64::try_from(retries.clamp(0, 255)).unwrap_or(0);
    let linear = u64::try_from(linear.clamp(0, 255)).unwrap_or(0);
    let doubling: u64 = (0..=retries)
        .map(|n| (1_u64 << n.min(10)).min(LONGEST_WAIT))
        .sum();
    linear + doubling
}

fn syn_tries(s: &Subject<'_>) -> Verdict {
    let retries = s.int(SYN_RETRIES)?;
    if (2..=8).contains(&retries) {
        return Ok(vec![]);
    }
    let total = connect_seconds(retries, s.maybe_int(LINEAR).unwrap_or(0));
    let facts = s.counters(&["TcpExt.TCPSynRetrans"]);
    let problem = if retries < 2 {
        Problem::new(Severity::Info, SYN_RETRIES, format!("connect() fails after {total} s and {retries} retries: a short loss is not survived"))
            .with(facts)
            .graver_if_live(Severity::Warning)
    } else {
        Problem::new(
            Severity::Info,
            SYN_RETRIES,
            format!("connect() hangs for {total} s before it fails"),
        )
        .with(facts)
    };
    let default = s.default_int(SYN_RETRIES).unwrap_or(6);
    Ok(vec![
        problem
            .wanted("2 to 8; 6 is the default")
            .set(default.to_string())
            .advise(
                "bound the time in the program (TCP_USER_TIMEOUT, TCP_SYNCNT) rather than here",
            ),
    ])
}

static SYNACK_TRIES: Rule = Rule {
    id: "NETOBS-TCP-035",
    title: "SYN-ACKs are repeated too seldom or too often",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SYNACK],
    doc: Doc {
        checks: "tcp_synack_retries is below 2 or above 8.",
        why: "Few retries cut off clients on lossy paths; many keep half-open connections in the SYN queue for minutes (5, the default, means 63 s). A flood fills the queue the faster the longer they stay.",
        evidence: "TcpExt.TCPReqQFullDoCookies or TCPReqQFullDrop moving in the window, when the number is high.",
        suggestion: "Go back to 5; 2 or 3 is a common choice during a flood.",
        ignore: "It was lowered for a flood that is still on.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/inet_connection_sock.c: reqsk_timer_handler()",
        ],
    },
    check: synack_tries,
};

fn synack_tries(s: &Subject<'_>) -> Verdict {
    let retries = s.int(SYNACK)?;
    if (2..=8).contains(&retries) {
        return Ok(vec![]);
    }
    let total = connect_seconds(retries, 0);
    let problem = Problem::new(
        Severity::Info,
        SYNACK,
        format!("a half-open connection is given up after {total} s and {retries} retries"),
    );
    let problem = if retries > 8 {
        problem
            .with(s.counters(&[FULL_COOKIE, FULL_DROP]))
            .graver_if_live(Severity::Warning)
    } else {
        problem
    };
    Ok(vec![problem.wanted("2 to 8; 5 is the default").set("5")])
}

#[cfg(test)]
mod tests {
    use super::{BACKLOG, COOKIES, FULL_DROP, LINEAR, SYN_RETRIES, SYNACK, connect_seconds};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    fn cookies(value: &'static str) -> Fixture {
        Fixture::new(&[(COOKIES, value)])
    }

    #[test]
    fn each_cookie_setting_has_its_verdict() {
        assert_eq!(cookies("0").ask("030"), found(Warning, Advice));
        assert_eq!(
            cookies("0").moved(&[(FULL_DROP, 3)]).ask("030"),
            found(Critical, Evidence)
        );
        assert_eq!(cookies("1").moved(&[(FULL_DROP, 3)]).ask("030"), Said::Pass);
        assert_eq!(cookies("2").ask("031"), found(Warning, Advice));
        assert_eq!(cookies("1").ask("031"), Said::Pass);
        let sent = [("TcpExt.SyncookiesSent", 10), ("TcpExt.SyncookiesRecv", 9)];
        assert_eq!(
            cookies("1").moved(&sent).ask("032"),
            found(Warning, Evidence)
        );
        assert_eq!(cookies("1").totals(&sent).ask("032"), Said::Pass);
        assert_eq!(cookies("0").moved(&sent).ask("032"), Said::Pass);
    }

    #[test]
    fn the_syn_backlog_binds_only_without_cookies() {
        let with = |c| Fixture::new(&[(COOKIES, c), (BACKLOG, "100")]);
        let crowd = |f: Fixture| {
            f.listener(0, 9, None)
                .sockets(|s| s.listeners[0].syn_queue = 75)
        };
        assert_eq!(crowd(with("0")).ask("033"), found(Warning, Evidence));
        assert_eq!(crowd(with("1")).ask("033"), Said::Pass);
        assert_eq!(with("0").ask("033"), Said::Pass);
        assert_eq!(
            with("0").moved(&[(FULL_DROP, 1)]).ask("033"),
            found(Warning, Evidence)
        );
        let mut changed = with("1");
        let fresh = [(BACKLOG, crate::audit::value::Reading::Int(2048))];
        changed.0.defaults.fresh = Some(fresh.into_iter().collect());
        assert_eq!(changed.ask("033"), found(Info, Advice));
    }

    #[test]
    fn the_time_until_connect_fails_is_the_documented_one() {
        assert_eq!(connect_seconds(6, 0), 127);
        assert_eq!(connect_seconds(6, 4), 131);
        assert_eq!(connect_seconds(0, 0), 1);
        assert_eq!(connect_seconds(5, 0), 63);
        assert_eq!(connect_seconds(i64::MAX, 0), 127 + 249 * 120);
    }

    #[test]
    fn few_and_many_retries() {
        let with = |n| Fixture::new(&[(SYN_RETRIES, n), (LINEAR, "4"), (SYNACK, n)]);
        let lost = [
            ("TcpExt.TCPSynRetrans", 4),
            ("TcpExt.TCPReqQFullDoCookies", 1),
        ];
        assert_eq!(with("6").moved(&lost).ask("034"), Said::Pass);
        assert_eq!(with("1").ask("034"), found(Info, Advice));
        assert_eq!(with("1").moved(&lost).ask("034"), found(Warning, Evidence));
        assert_eq!(with("12").ask("034"), found(Info, Advice));
        assert_eq!(with("5").ask("035"), Said::Pass);
        assert_eq!(with("1").moved(&lost).ask("035"), found(Info, Advice));
        assert_eq!(with("20").moved(&lost).ask("035"), found(Warning, Evidence));
    }
}
