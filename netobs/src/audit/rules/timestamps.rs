//! `net.ipv4.tcp_timestamps`: off, or on without the random offset.

use super::ports::nearly_used_up;
use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

const KEY: &str = "net.ipv4.tcp_timestamps";

pub(super) static RULES: &[&Rule] = &[&OFF, &NO_OFFSET, &COOKIES];

static OFF: Rule = Rule {
    id: "NETOBS-TCP-001",
    title: "TCP time stamps are off",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[KEY, "net.ipv4.tcp_tw_reuse"],
    doc: Doc {
        checks: "tcp_timestamps is 0.",
        why: "Without time stamps there is no protection against wrapped sequence numbers (PAWS: at 10 Gb/s the numbers wrap after 1.7 s), round trips cannot be measured on retransmitted segments, needless retransmissions cannot be told from needed ones, a port in TIME_WAIT cannot be used again early, and SYN cookies lose window scaling and SACK.",
        evidence: "Established connections without the time stamp option; sockets in TIME_WAIT that could not be reused (local ports four fifths used up towards one destination), TcpExt.TCPTimeWaitOverflow, TcpExt.PAWSActive, TcpExt.PAWSEstab and TcpExt.TSEcrRejected moving; retransmission timeouts moving.",
        suggestion: "Set it to 1, the default of every kernel. Old hardening guides ask for 0 to hide the uptime; since 4.10 the value 1 adds a random offset per pair of addresses, so nothing is hidden by 0 any more.",
        ignore: "A closed network of slow links where twelve bytes per segment count, with no listener that may need SYN cookies.",
        sources: &[
            IP_SYSCTL,
            "https://www.rfc-editor.org/rfc/rfc7323",
            "net/ipv4/tcp_ipv4.c: tcp_twsk_unique()",
            "25429d7b7dca (4.10: random offset per connection)",
        ],
    },
    check: off,
};

fn off(s: &Subject<'_>) -> Verdict {
    if s.int(KEY)? != 0 {
        return Ok(vec![]);
    }
    let mut facts = Vec::new();
    let mut harm = false;
    if let Some(sockets) = &s.ns.sockets {
        let e = sockets.established;
        if e.without_timestamps > 0 {
            facts.push(Evidence::seen(
                "sock_diag",
                format!(
                    "{} of {} established connections have no time stamps",
                    e.without_timestamps, e.count
                ),
            ));
        }
        if e.time_wait > 0 {
            facts.push(Evidence::context(
                "sock_diag",
                format!(
                    "{} sockets in TIME_WAIT, none of which can be reused early",
                    e.time_wait
                ),
            ));
        }
        if let Some(worst) = sockets.port_use.first()
            && let Ok([low, high]) = s.vector("net.ipv4.ip_local_port_range")
            && nearly_used_up(worst.ports, low, high)
        {
            harm = true;
            facts.push(Evidence::seen(
                "sock_diag",
                format!(
                    "{} local ports in use towards {}, {} of them in TIME_WAIT",
                    worst.ports, worst.destination, worst.time_wait
                ),
            ));
        }
    }
    let waits = s.counters(&[
        "TcpExt.TCPTimeWaitOverflow",
        "TcpExt.PAWSActive",
        "TcpExt.PAWSEstab",
        "TcpExt.TSEcrRejected",
    ]);
    harm |= waits.iter().any(|e| e.live);
    let problem = Problem::new(
        if harm { Severity::Critical } else { Severity::Warning },
        KEY,
        "TCP time stamps are off: no PAWS, no round trip from retransmitted segments, no reuse of ports in TIME_WAIT, SYN cookies without window scaling and SACK",
    )
    .wanted("1, as in every kernel")
    .set("1")
    .advise("new connections use it at once; established ones never will")
    .with(facts)
    .with(waits)
    .with(s.counters(&["TcpExt.TCPTimeouts"]));
    Ok(vec![problem])
}

static NO_OFFSET: Rule = Rule {
    id: "NETOBS-TCP-002",
    title: "TCP time stamps are on without the random offset",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_timestamps is 2, or a number no kernel of today documents.",
        why: "Every value but 0 and 1 sends time stamps that start from one clock for all connections: an observer can learn the uptime and tell which connections come from one machine.",
        evidence: "None is possible: nothing counts what an observer learns. Always advice.",
        suggestion: "Set it to 1, unless something relies on time stamps that grow across connections.",
        ignore: "Load balancers or NAT that order connections of many machines by time stamp, which is what 2 is for. Before 4.10 the kernel had no offset, and 1 meant what 2 means now.",
        sources: &[
            IP_SYSCTL,
            "net/core/secure_seq.c: secure_tcp_ts_off()",
            "25429d7b7dca (4.10)",
        ],
    },
    check: no_offset,
};

fn no_offset(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if matches!(value, 0 | 1) {
        return Ok(vec![]);
    }
    let message = if value == 2 {
        "time stamps are sent without the random offset, so they show the uptime".to_owned()
    } else {
        format!(
            "{value} is documented for no kernel; today's send time stamps without the random offset"
        )
    };
    Ok(vec![
        Problem::new(Severity::Info, KEY, message)
            .wanted("1, as in every kernel")
            .set("1"),
    ])
}

static COOKIES: Rule = Rule {
    id: "NETOBS-TCP-003",
    title: "SYN cookies are in use while time stamps are off",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[KEY, "net.ipv4.tcp_syncookies"],
    doc: Doc {
        checks: "tcp_timestamps is 0, tcp_syncookies is not, and cookies were answered in the window.",
        why: "A SYN cookie has room for the segment size only; window scaling, SACK and ECN are carried in the time stamp. Without it each connection that comes back with a cookie lives with a 64 KiB window and no SACK: slow for as long as it lasts.",
        evidence: "TcpExt.SyncookiesRecv moving in the window. Cookies of the past are shown, and are advice.",
        suggestion: "Set tcp_timestamps to 1, and give the listener room: a cookie is only sent when its SYN queue is full.",
        ignore: "Never, while cookies are answered.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/syncookies.c: cookie_timestamp_decode()",
        ],
    },
    check: cookies,
};

fn cookies(s: &Subject<'_>) -> Verdict {
    if s.int(KEY)? != 0 || s.int("net.ipv4.tcp_syncookies")? == 0 {
        return Ok(vec![]);
    }
    if s.total("TcpExt.SyncookiesRecv").unwrap_or(0) == 0 {
        return Ok(vec![]);
    }
    let problem = Problem::new(
        Severity::Warning,
        KEY,
        "connections that were opened with a SYN cookie have no window scaling and no SACK, because time stamps are off",
    )
    .wanted("1 wherever SYN cookies may be sent")
    .set("1")
    .with(s.counters(&["TcpExt.SyncookiesRecv"]))
    .with(s.history(&["TcpExt.SyncookiesSent"]))
    .graver_if_live(Severity::Critical);
    Ok(vec![problem])
}

#[cfg(test)]
mod tests {
    use super::KEY;
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::PortUse;

    #[test]
    fn each_value_has_its_verdict() {
        for (value, off, no_offset) in [
            ("0", found(Warning, Advice), Said::Pass),
            ("1", Said::Pass, Said::Pass),
            ("2", Said::Pass, found(Info, Advice)),
            ("77", Said::Pass, found(Info, Advice)),
            ("junk", Said::Unreadable, Said::Unreadable),
        ] {
            let fixture = Fixture::new(&[(KEY, value)]);
            assert_eq!(fixture.ask("NETOBS-TCP-001"), off, "{value}");
            assert_eq!(fixture.ask("NETOBS-TCP-002"), no_offset, "{value}");
        }
        assert_eq!(Fixture::new(&[]).ask("NETOBS-TCP-001"), Said::NotApplicable);
        assert_eq!(
            Fixture::new(&[]).unreadable(KEY).ask("NETOBS-TCP-001"),
            Said::Unreadable
        );
    }

    #[test]
    fn evidence_makes_it_graver() {
        let off = || Fixture::new(&[(KEY, "0"), ("net.ipv4.ip_local_port_range", "100 199")]);
        let paws = off().moved(&[("TcpExt.PAWSEstab", 3)]);
        assert_eq!(paws.ask("NETOBS-TCP-001"), found(Critical, Evidence));
        let old = off().totals(&[("TcpExt.PAWSEstab", 3)]);
        assert_eq!(old.ask("NETOBS-TCP-001"), found(Warning, Advice));
        let bare =
            off().sockets(|s| (s.established.count, s.established.without_timestamps) = (9, 7));
        assert_eq!(bare.ask("NETOBS-TCP-001"), found(Warning, Evidence));
        let ports = off().sockets(|s| {
            s.port_use.push(PortUse {
                source: "10.0.0.1".parse().unwrap(),
                destination: "10.0.0.2:80".parse().unwrap(),
                ports: 80,
                time_wait: 70,
            });
        });
        assert_eq!(ports.ask("NETOBS-TCP-001"), found(Critical, Evidence));
    }

    #[test]
    fn cookies_without_time_stamps() {
        let with = |ts, cookies| Fixture::new(&[(KEY, ts), ("net.ipv4.tcp_syncookies", cookies)]);
        let seen = [("TcpExt.SyncookiesRecv", 4), ("TcpExt.SyncookiesSent", 9)];
        let id = "NETOBS-TCP-003";
        assert_eq!(
            with("0", "1").moved(&seen).ask(id),
            found(Critical, Evidence)
        );
        assert_eq!(with("0", "1").totals(&seen).ask(id), found(Warning, Advice));
        assert_eq!(with("0", "1").ask(id), Said::Pass);
        assert_eq!(with("1", "1").moved(&seen).ask(id), Said::Pass);
        assert_eq!(with("0", "0").moved(&seen).ask(id), Said::Pass);
    }
}
