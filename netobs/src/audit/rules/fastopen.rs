//! `net.ipv4.tcp_fastopen`, bit by bit, and its key and back-off.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;
use crate::audit::value::SecretState;

const KEY: &str = "net.ipv4.tcp_fastopen";
const SECRET: &str = "net.ipv4.tcp_fastopen_key";
const BLACKHOLE: &str = "net.ipv4.tcp_fastopen_blackhole_timeout_sec";

const CLIENT: i64 = 0x1;
const SERVER: i64 = 0x2;
const CLIENT_NO_COOKIE: i64 = 0x4;
const SERVER_NO_COOKIE: i64 = 0x200;
const ALL_LISTENERS: i64 = 0x400;
const KNOWN: i64 = CLIENT | SERVER | CLIENT_NO_COOKIE | SERVER_NO_COOKIE | ALL_LISTENERS;

const RFC: &str = "https://www.rfc-editor.org/rfc/rfc7413";

pub(super) static RULES: &[&Rule] = &[
    &INERT_BITS,
    &NO_COOKIE,
    &EVERY_LISTENER,
    &UNUSED_SERVER,
    &CLIENT_WITHOUT_COOKIE,
    &CLIENT_OFF,
    &UNKNOWN_BITS,
    &BACK_OFF,
    &FAILURES,
];

/// The bits of a value in words.
fn words(value: i64) -> String {
    let mut words = Vec::new();
    for (bit, word) in [
        (CLIENT, "client"),
        (SERVER, "server"),
        (CLIENT_NO_COOKIE, "client without cookie"),
        (SERVER_NO_COOKIE, "server without cookie"),
        (ALL_LISTENERS, "every listener"),
    ] {
        if value & bit != 0 {
            words.push(word);
        }
    }
    if words.is_empty() {
        "off".to_owned()
    } else {
        words.join(", ")
    }
}

/// `value` with only the bits that are safe to have: one remedy for every rule about risky bits.
fn plain(value: i64) -> i64 {
    value & (CLIENT | SERVER)
}

/// `value` in hexadecimal and words, as evidence of what the bits mean.
fn decoded(value: i64) -> Evidence {
    Evidence::context(KEY, format!("{value} is {value:#x}: {}", words(value)))
}

static INERT_BITS: Rule = Rule {
    id: "NETOBS-TCP-010",
    title: "Fast Open bits that need another bit",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has 0x200 (server without cookie) or 0x400 (every listener) without 0x2 (server), or 0x4 (client without cookie) without 0x1 (client).",
        why: "The kernel looks at those bits only after the one they build on, so such a value does nothing, while whoever set it believes it does.",
        evidence: "The value itself: two bits contradict each other. Always advice, since an inert bit harms nobody.",
        suggestion: "Add the missing bit if Fast Open is wanted, else remove the others. 0x1 is the kernel's default, 0x3 turns on both sides for programs that ask for it.",
        ignore: "Never; the value can only mislead.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/tcp_fastopen.c: tcp_try_fastopen()",
            "net/ipv4/af_inet.c: inet_listen()",
        ],
    },
    check: inert_bits,
};

fn inert_bits(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    let mut problems = Vec::new();
    let mut say = |bits: i64, needs: i64, what: &str| {
        let present = value & bits;
        if present != 0 && value & needs == 0 {
            problems.push(
                Problem::new(
                    Severity::Warning,
                    KEY,
                    format!("{what} ({present:#x}) without {needs:#x} does nothing"),
                )
                .expect(format!("{needs:#x} wherever {present:#x} is set"))
                .set((value & !bits).to_string())
                .advise(format!("or {} if Fast Open is wanted", value | needs))
                .with([decoded(value)]),
            );
        }
    };
    say(SERVER_NO_COOKIE | ALL_LISTENERS, SERVER, "a server bit");
    say(
        CLIENT_NO_COOKIE,
        CLIENT,
        "the client bit for data without a cookie",
    );
    Ok(problems)
}

static NO_COOKIE: Rule = Rule {
    id: "NETOBS-TCP-011",
    title: "Fast Open server accepts data without a cookie",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has both 0x2 (server) and 0x200 (server without cookie).",
        why: "The cookie is what proves that the client's address is its own. Without it a single packet with an invented source address brings data to the program, which answers it: the request is carried out, and the answer hits somebody else.",
        evidence: "TcpExt.TCPFastOpenPassive moving in the window: connections are accepted in this way now. With 0x400 as well, that makes it critical.",
        suggestion: "Remove 0x200. If every server behind one address must accept the same cookie, give them one tcp_fastopen_key instead.",
        ignore: "A network where source addresses cannot be forged and every request may be repeated.",
        sources: &[
            IP_SYSCTL,
            RFC,
            "net/ipv4/tcp_fastopen.c: tcp_fastopen_no_cookie()",
        ],
    },
    check: no_cookie,
};

fn no_cookie(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & SERVER == 0 || value & SERVER_NO_COOKIE == 0 {
        return Ok(vec![]);
    }
    let mut problem = Problem::new(
        Severity::Warning,
        KEY,
        "data in a SYN reaches the program without a cookie, so its source address may be invented",
    )
    .expect("no 0x200")
    .set(plain(value).to_string())
    .with([decoded(value)])
    .with(s.counters(&["TcpExt.TCPFastOpenPassive"]));
    if value & ALL_LISTENERS != 0 {
        problem = problem.graver_if_live(Severity::Critical);
    }
    Ok(vec![problem])
}

static EVERY_LISTENER: Rule = Rule {
    id: "NETOBS-TCP-012",
    title: "Fast Open is on for every listener",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has both 0x2 (server) and 0x400 (every listener).",
        why: "Data in a SYN can be delivered twice. A program that asks for Fast Open is meant to know; 0x400 turns it on for programs that never asked, whose requests may not be safe to repeat. It takes effect at listen(): listeners from before keep what they had.",
        evidence: "TcpExt.TCPFastOpenPassive moving in the window, and the listeners it concerns.",
        suggestion: "Remove 0x400 and let programs set TCP_FASTOPEN themselves; restart those that were started meanwhile.",
        ignore: "A namespace with one program, whose requests may be repeated, and which cannot set the option.",
        sources: &[IP_SYSCTL, RFC, "net/ipv4/af_inet.c: inet_listen()"],
    },
    check: every_listener,
};

fn every_listener(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & SERVER == 0 || value & ALL_LISTENERS == 0 {
        return Ok(vec![]);
    }
    let listeners = s.listeners().len();
    let concerned = (listeners > 0).then(|| {
        Evidence::context(
            "sock_diag",
            format!("{listeners} listeners here may be concerned"),
        )
    });
    let problem = Problem::new(
        Severity::Warning,
        KEY,
        "Fast Open is on for listeners that never asked for it; their requests may arrive twice",
    )
    .expect("no 0x400: programs ask for Fast Open themselves")
    .set(plain(value).to_string())
    .with([decoded(value)])
    .with(concerned)
    .with(s.counters(&["TcpExt.TCPFastOpenPassive"]));
    Ok(vec![problem])
}

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
    .expect("a listener with TCP_FASTOPEN, or 1")
    .advise("set TCP_FASTOPEN on the listener, or leave the setting at its default")
    .in_application()
    .with([
        decoded(value),
        Evidence::context("sock_diag", format!("{listeners} listeners")),
    ]);
    Ok(vec![problem])
}

static CLIENT_WITHOUT_COOKIE: Rule = Rule {
    id: "NETOBS-TCP-014",
    title: "Fast Open client sends data without a cookie",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has both 0x1 (client) and 0x4 (client without cookie).",
        why: "Data goes out in the first SYN to servers that never gave a cookie. Most ignore it and it is sent again; middle boxes that do not expect data in a SYN drop the packet, and the connection waits for a second or more.",
        evidence: "TcpExt.TCPFastOpenActiveFail moving in the window.",
        suggestion: "Remove 0x4.",
        ignore: "Both ends are yours, the servers run with 0x200, and nothing is between them.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/tcp_fastopen.c: tcp_fastopen_cookie_check()",
        ],
    },
    check: client_without_cookie,
};

fn client_without_cookie(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & CLIENT == 0 || value & CLIENT_NO_COOKIE == 0 {
        return Ok(vec![]);
    }
    let problem = Problem::new(
        Severity::Warning,
        KEY,
        "data is sent in the SYN to servers that gave no cookie; what drops such a SYN delays the connection",
    )
    .expect("no 0x4")
    .set(plain(value).to_string())
    .with([decoded(value)])
    .with(s.counters(&["TcpExt.TCPFastOpenActiveFail"]));
    Ok(vec![problem])
}

static CLIENT_OFF: Rule = Rule {
    id: "NETOBS-TCP-015",
    title: "Fast Open client is off",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen lacks 0x1 (client), which every kernel since 3.13 sets.",
        why: "A program that connects with MSG_FASTOPEN or TCP_FASTOPEN_CONNECT gets EOPNOTSUPP. Some fall back to connect(), some report an error.",
        evidence: "None: the kernel does not count refusals. Always advice.",
        suggestion: "Set it to 1, the default, unless Fast Open is meant to be off.",
        ignore: "It was turned off on purpose, for example because a middle box drops SYNs with data.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp.c: tcp_sendmsg_fastopen()"],
    },
    check: client_off,
};

fn client_off(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & CLIENT != 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            KEY,
            "programs that ask for Fast Open on connect get EOPNOTSUPP",
        )
        .expect("0x1 set, as in every kernel since 3.13")
        .set((value | CLIENT).to_string())
        .with([decoded(value)]),
    ])
}

static UNKNOWN_BITS: Rule = Rule {
    id: "NETOBS-TCP-016",
    title: "Fast Open bits that no kernel of today knows",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[KEY],
    doc: Doc {
        checks: "tcp_fastopen has bits other than 0x1, 0x2, 0x4, 0x200 and 0x400, or is negative.",
        why: "The kernel takes any number and ignores bits it does not know. A bit such as 0x800, which kernels before 4.x knew, has no effect now, and may get a new meaning later.",
        evidence: "The value itself. Always advice.",
        suggestion: "Remove the unknown bits.",
        ignore: "The kernel is newer than this version of netobs and documents them.",
        sources: &[IP_SYSCTL, "include/net/tcp.h: TFO_CLIENT_ENABLE and below"],
    },
    check: unknown_bits,
};

fn unknown_bits(s: &Subject<'_>) -> Verdict {
    let value = s.int(KEY)?;
    if value & !KNOWN == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            KEY,
            format!(
                "bits {:#x} have no documented meaning",
                value & !KNOWN & 0xffff_ffff
            ),
        )
        .expect("only 0x1, 0x2, 0x4, 0x200, 0x400")
        .set((value & KNOWN).to_string())
        .with([decoded(value)]),
    ])
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
    .expect("0, the default since 5.14")
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
    .expect("no failures")
    .advise(advice)
    .with(facts)
    .with(s.history(&["TcpExt.TCPFastOpenPassive", "TcpExt.TCPFastOpenActive"]));
    Ok(vec![problem])
}

#[cfg(test)]
mod tests {
    use super::{BLACKHOLE, KEY, SECRET, words};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    /// Which of the rules about bits speak for a value: inert, no cookie, every listener,
    /// client without cookie, client off, unknown.
    fn speak(value: &str) -> Vec<&'static str> {
        let fixture = Fixture::new(&[(KEY, value)]);
        ["010", "011", "012", "014", "015", "016"]
            .into_iter()
            .filter(|id| fixture.ask(id) != Said::Pass)
            .collect()
    }

    #[test]
    fn every_bit_and_combination_has_its_rule() {
        for (value, want) in [
            (0x0, vec!["015"]),
            (0x1, vec![]),
            (0x2, vec!["015"]),
            (0x3, vec![]),
            (0x5, vec!["014"]),
            (0x4, vec!["010", "015"]),
            (0x201, vec!["010"]),
            (0x401, vec!["010"]),
            (0x203, vec!["011"]),
            (0x403, vec!["012"]),
            (0x603, vec!["011", "012"]),
            (0x607, vec!["011", "012", "014"]),
            (0x604, vec!["010", "015"]),
            (0x801, vec!["016"]),
            (0x9, vec!["016"]),
        ] {
            assert_eq!(speak(&value.to_string()), want, "{value:#x}");
        }
        assert_eq!(speak("-1"), vec!["011", "012", "014", "016"]);
        assert_eq!(Fixture::new(&[]).ask("010"), Said::NotApplicable);
        assert_eq!(Fixture::new(&[(KEY, "x")]).ask("011"), Said::Unreadable);
    }

    #[test]
    fn two_inert_groups_are_two_problems() {
        let said = Fixture::new(&[(KEY, "1540")]).ask("010");
        assert_eq!(
            said,
            Said::Found(vec![(Warning, Advice), (Warning, Advice)])
        );
    }

    #[test]
    fn bits_are_said_in_words() {
        assert_eq!(words(0), "off");
        assert_eq!(
            words(0x603),
            "client, server, server without cookie, every listener"
        );
    }

    #[test]
    fn accepted_connections_make_a_cookieless_server_critical() {
        let passive = [("TcpExt.TCPFastOpenPassive", 2)];
        let open = Fixture::new(&[(KEY, "1539")]);
        assert_eq!(open.moved(&passive).ask("011"), found(Critical, Evidence));
        let some = Fixture::new(&[(KEY, "515")]);
        assert_eq!(some.moved(&passive).ask("011"), found(Warning, Evidence));
    }

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
