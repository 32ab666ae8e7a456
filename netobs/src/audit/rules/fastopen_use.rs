//! Fast Open at work: whether anything uses it, and what stops it.

use super::fastopen::{ALL_LISTENERS, CLIENT, KEY, RFC, SERVER, decoded};
use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;
use crate::audit::value::SecretState;

const SECRET: &str = "net.ipv4.tcp_fastopen_key";
const BLACKHOLE: &str = "net.ipv4.tcp_fastopen_blackhole_timeout_sec";

pub(super) static RULES: &[&Rule] = &[&UNUSED_SERVER, &BACK_OFF, &FAILURES];

static UNUSED_SERVER: Rule = Rule {
    id: "NETOBS-TCP-013",
    title: "Fast Open server bit that no listener uses",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has 0x2 (server) and not 0x400, there are listeners, and not one Fast Open connection or cookie request was ever seen in this namespace.",
        why: "The server bit only permits: a program must set TCP_FASTOPEN on its listener. Until one does, the setting has no effect, and no time is saved.",
        evidence: "TcpExt.TCPFastOpenPassive, TCPFastOpenPassiveFail and TCPFastOpenCookieReqd at zero since the namespace was made, beside its listeners. Absence proves no harm, so always advice.",
        suggestion: "Turn Fast Open on in the program, or go back to 1.",
        ignore: "Images that set 3 everywhere (tuned's latency profiles and OpenShift nodes do) and do not rely on it.",
        sources: &[
            IP_SYSCTL,
            "https://man7.org/linux/man-pages/man7/tcp.7.html",
        ],
    },
    check: unused_server,
};

fn unused_server(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & SERVER == 0 || value & ALL_LISTENERS != 0 {
        return Ok(vec![]);
    }
    let listeners = s.sockets()?.listeners.len();
    let used = [
        "TcpExt.TCPFastOpenPassive",
        "TcpExt.TCPFastOpenPassiveFail",
        "TcpExt.TCPFastOpenCookieReqd",
    ]
    .iter()
    .any(|c| s.total(c).is_none_or(|n| n > 0));
    if listeners == 0 || used {
        return Ok(vec![]);
    }
    let problem = Problem::new(
        Severity::Info,
        KEY,
        "the server bit is set, and no listener of this namespace ever used Fast Open",
    )
    .wanted("a listener with TCP_FASTOPEN, or 1")
    .advise("set TCP_FASTOPEN on the listener, or leave the setting at its default")
    .in_application()
    .with([
        decoded(value),
        Evidence::context("sock_diag", format!("{listeners} listeners")),
    ]);
    Ok(vec![problem])
}

static BACK_OFF: Rule = Rule {
    id: "NETOBS-TCP-017",
    title: "Fast Open turns itself off after a suspected black hole",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[BLACKHOLE, KEY],
    doc: Doc {
        checks: "tcp_fastopen_blackhole_timeout_sec is not 0 while the client side (0x1) is on.",
        why: "After one connection that looks as if a middle box swallowed it, all active Fast Open of the namespace stops for this many seconds, twice as long after each further event, up to 64 times. It explains why Fast Open \"does nothing\". The default was 3600 before 5.14 and is 0 since, also in stable kernels that took the change back.",
        evidence: "TcpExt.TCPFastOpenBlackhole moving in the window: it was just turned off.",
        suggestion: "Set it to 0 where Fast Open is relied upon.",
        ignore: "Fast Open is not used.",
        sources: &[
            IP_SYSCTL,
            "213ad73d0607 (5.14: default 0)",
            "net/ipv4/tcp_fastopen.c: tcp_fastopen_active_should_disable()",
        ],
    },
    check: back_off,
};

fn back_off(s: &Subject<'_>) -> Verdict {
    let timeout = s.int(BLACKHOLE)?;
    let used = s.total("TcpExt.TCPFastOpenActive").unwrap_or(0)
        + s.total("TcpExt.TCPFastOpenActiveFail").unwrap_or(0)
        + s.total("TcpExt.TCPFastOpenBlackhole").unwrap_or(0);
    if timeout <= 0 || s.int(KEY)? & CLIENT == 0 {
        return Ok(vec![]);
    }
    if used == 0 && s.default_int(BLACKHOLE) == Some(timeout) {
        return Ok(vec![]);
    }
    let problem = Problem::new(
        Severity::Info,
        BLACKHOLE,
        format!("one connection that looks swallowed turns active Fast Open off for {timeout} s and longer"),
    )
    .wanted("0, the default since 5.14")
    .set("0")
    .with(s.counters(&["TcpExt.TCPFastOpenBlackhole"]))
    .with(s.history(&["TcpExt.TCPFastOpenActive"]))
    .graver_if_live(Severity::Warning);
    Ok(vec![problem])
}

static FAILURES: Rule = Rule {
    id: "NETOBS-TCP-018",
    title: "Fast Open attempts fail",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[KEY, SECRET],
    doc: Doc {
        checks: "Fast Open failures were counted in the window: wrong cookies, a full Fast Open queue, or clients whose data was not taken.",
        why: "Each failure costs the round trip that Fast Open should save, or more. Behind a load balancer the usual cause is that every server makes up its own key, so a cookie from one is wrong at the next; each network namespace has a key of its own as well.",
        evidence: "TcpExt.TCPFastOpenPassiveFail, TCPFastOpenListenOverflow, TCPFastOpenActiveFail. Only said when one moved in the window.",
        suggestion: "Give all servers of one address the same tcp_fastopen_key (old and new during a change); enlarge the queue that the program passes with TCP_FASTOPEN if it overflows.",
        ignore: "A few failures while keys are being changed.",
        sources: &[
            IP_SYSCTL,
            RFC,
            "net/ipv4/tcp_fastopen.c: tcp_try_fastopen()",
        ],
    },
    check: failures,
};

fn failures(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & (CLIENT | SERVER) == 0 {
        return Ok(vec![]);
    }
    let facts = s.counters(&[
        "TcpExt.TCPFastOpenPassiveFail",
        "TcpExt.TCPFastOpenListenOverflow",
        "TcpExt.TCPFastOpenActiveFail",
    ]);
    if !facts.iter().any(|f| f.live) {
        return Ok(vec![]);
    }
    let server = s.moved("TcpExt.TCPFastOpenPassiveFail");
    let key = if server {
        Some(s.secret(SECRET)?)
    } else {
        None
    };
    let (about, advice) = match key {
        Some(SecretState::Unset | SecretState::One) => (
            SECRET,
            "give all servers behind one address the same key; while changing it, an old and a new one",
        ),
        Some(SecretState::Two) => (
            SECRET,
            "see whether all servers behind one address have the same two keys",
        ),
        None if s.moved("TcpExt.TCPFastOpenListenOverflow") => (
            KEY,
            "enlarge the queue length the program passes with TCP_FASTOPEN",
        ),
        None => (KEY, "see whether something on the way drops SYNs with data"),
    };
    let problem = Problem::new(
        Severity::Warning,
        about,
        "Fast Open attempts fail and cost what they should save",
    )
    .wanted("no failures")
    .advise(advice)
    .with(facts)
    .with(s.history(&["TcpExt.TCPFastOpenPassive", "TcpExt.TCPFastOpenActive"]));
    Ok(vec![problem])
}

#[cfg(test)]
mod tests {
    use super::{BLACKHOLE, KEY, SECRET};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    #[test]
    fn an_unused_server_bit_needs_listeners_and_counters() {
        let zero = [
            ("TcpExt.TCPFastOpenPassive", 0),
            ("TcpExt.TCPFastOpenPassiveFail", 0),
            ("TcpExt.TCPFastOpenCookieReqd", 0),
        ];
        let three = || Fixture::new(&[(KEY, "3")]);
        assert_eq!(
            three().totals(&zero).listener(0, 9, None).ask("013"),
            found(Info, Advice)
        );
        assert_eq!(three().totals(&zero).ask("013"), Said::Pass);
        assert_eq!(three().listener(0, 9, None).ask("013"), Said::Pass);
        let blind = three().host(|ns| ns.sockets = None);
        assert_eq!(blind.ask("013"), Said::Unreadable);
    }

    #[test]
    fn back_off_and_failures() {
        let on = |t| Fixture::new(&[(KEY, "1"), (BLACKHOLE, t)]);
        assert_eq!(on("0").ask("017"), Said::Pass);
        assert_eq!(on("3600").ask("017"), found(Info, Advice));
        assert_eq!(on("3600").kernel("5.10.1").ask("017"), Said::Pass);
        let fired = on("3600").moved(&[("TcpExt.TCPFastOpenBlackhole", 1)]);
        assert_eq!(fired.ask("017"), found(Warning, Evidence));

        let server = |key| Fixture::new(&[(KEY, "3"), (SECRET, key)]);
        let fail = [("TcpExt.TCPFastOpenPassiveFail", 3)];
        assert_eq!(
            server("0-0").moved(&fail).ask("018"),
            found(Warning, Evidence)
        );
        assert_eq!(
            server("1-1,2-2").moved(&fail).ask("018"),
            found(Warning, Evidence)
        );
        assert_eq!(server("1-1").totals(&fail).ask("018"), Said::Pass);
        let blind = Fixture::new(&[(KEY, "3")]).unreadable(SECRET).moved(&fail);
        assert_eq!(blind.ask("018"), Said::Unreadable);
    }
}
