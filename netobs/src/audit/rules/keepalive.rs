//! Keep-alive: whether idle connections are noticed before something on the way forgets them.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Problem, Severity};
use crate::audit::subject::Subject;

const TIME: &str = "net.ipv4.tcp_keepalive_time";
const INTERVAL: &str = "net.ipv4.tcp_keepalive_intvl";
const PROBES: &str = "net.ipv4.tcp_keepalive_probes";
const CONNTRACK: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

pub(super) static RULES: &[&Rule] = &[&FORGOTTEN, &IMPATIENT];

static FORGOTTEN: Rule = Rule {
    id: "NETOBS-TCP-075",
    title: "Idle connections are forgotten before the first keep-alive probe",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[TIME, CONNTRACK],
    doc: Doc {
        checks: "tcp_keepalive_time is not below nf_conntrack_tcp_timeout_established of the same namespace.",
        why: "Connection tracking forgets an idle connection after that time. The next packet then finds no entry: NAT does not know where to send it, a firewall calls it invalid, and the connection hangs or is reset.",
        evidence: "The two values contradict each other. TcpExt.TCPKeepAlive and Tcp.EstabResets are shown beside it. Always advice.",
        suggestion: "Send the first probe well before, at half the tracker's time or less. It only concerns sockets with SO_KEEPALIVE; programs can set TCP_KEEPIDLE themselves. Load balancers on the way may forget much sooner (350 s is common), which no setting here shows.",
        ignore: "No connection of the namespace passes the tracker.",
        sources: &[
            IP_SYSCTL,
            "https://docs.kernel.org/networking/nf_conntrack-sysctl.html",
        ],
    },
    check: forgotten,
};

fn forgotten(s: &Subject<'_>) -> Verdict {
    let first = s.int(TIME)?;
    let forget = s.int(CONNTRACK)?;
    if first < forget {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Warning, TIME, format!("the first probe is sent after {first} s, and the connection tracker forgets after {forget} s"))
            .wanted("below nf_conntrack_tcp_timeout_established")
            .set((forget / 2).max(1).to_string())
            .advise("programs must ask for keep-alive (SO_KEEPALIVE) for it to count")
            .with(s.history(&["TcpExt.TCPKeepAlive", "Tcp.EstabResets"])),
    ])
}

static IMPATIENT: Rule = Rule {
    id: "NETOBS-TCP-076",
    title: "Keep-alive gives up quickly, or hardly ever",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[INTERVAL, PROBES, TIME],
    doc: Doc {
        checks: "A dead peer is given up less than 10 s after the first probe, or not within a day of the last data (interval times probes, plus the time before the first).",
        why: "A short time drops connections when the path is interrupted for a moment; a long one keeps dead ones for days. The defaults (7200 s, then 9 probes 75 s apart) mean 2 h 11 min.",
        evidence: "TcpExt.TCPAbortOnTimeout moving in the window, when the time is short.",
        suggestion: "Set TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT in the program that needs it, rather than for all.",
        ignore: "Measured and meant.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_timer.c: tcp_keepalive_timer()"],
    },
    check: impatient,
};

fn impatient(s: &Subject<'_>) -> Verdict {
    let interval = s.int(INTERVAL)?;
    let probes = s.int(PROBES)?;
    let first = s.int(TIME)?;
    let window = interval.saturating_mul(probes);
    let total = first.saturating_add(window);
    let problem = if window < 10 {
        Problem::new(
            Severity::Info,
            PROBES,
            format!("a connection is given up {window} s after the first unanswered probe"),
        )
        .set("9")
        .with(s.counters(&["TcpExt.TCPAbortOnTimeout"]))
    } else if total > 86_400 {
        let key = if first > 86_400 { TIME } else { INTERVAL };
        let default = if first > 86_400 { "7200" } else { "75" };
        Problem::new(
            Severity::Info,
            key,
            format!("a dead peer is noticed after {total} s"),
        )
        .set(default)
    } else {
        return Ok(vec![]);
    };
    Ok(vec![problem.wanted(
        "between 10 s after the first probe and a day in all",
    )])
}

#[cfg(test)]
mod tests {
    use super::{CONNTRACK, INTERVAL, PROBES, TIME};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn keepalive_against_the_tracker_and_itself() {
        let with = |t, c| Fixture::new(&[(TIME, t), (CONNTRACK, c)]);
        assert_eq!(with("7200", "432000").ask("075"), Said::Pass);
        assert_eq!(with("7200", "3600").ask("075"), found(Warning, Advice));
        assert_eq!(
            Fixture::new(&[(TIME, "7200")]).ask("075"),
            Said::NotApplicable
        );
        let own = |t, i, p| Fixture::new(&[(TIME, t), (INTERVAL, i), (PROBES, p)]);
        assert_eq!(own("7200", "75", "9").ask("076"), Said::Pass);
        assert_eq!(own("7200", "1", "3").ask("076"), found(Info, Advice));
        let dying = own("7200", "1", "3").moved(&[("TcpExt.TCPAbortOnTimeout", 1)]);
        assert_eq!(dying.ask("076"), found(Info, Evidence));
        assert_eq!(own("90000", "75", "9").ask("076"), found(Info, Advice));
        assert_eq!(own("7200", "32767", "127").ask("076"), found(Info, Advice));
    }
}
