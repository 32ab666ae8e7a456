//! `net.ipv4.tcp_fastopen`, bit by bit.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::Subject;

pub(super) const KEY: &str = "net.ipv4.tcp_fastopen";

pub(super) const CLIENT: i64 = 0x1;
pub(super) const SERVER: i64 = 0x2;
const CLIENT_NO_COOKIE: i64 = 0x4;
const SERVER_NO_COOKIE: i64 = 0x200;
pub(super) const ALL_LISTENERS: i64 = 0x400;
const KNOWN: i64 = CLIENT | SERVER | CLIENT_NO_COOKIE | SERVER_NO_COOKIE | ALL_LISTENERS;

pub(super) const RFC: &str = "https://www.rfc-editor.org/rfc/rfc7413";

pub(super) static RULES: &[&Rule] = &[
    &INERT_BITS,
    &NO_COOKIE,
    &EVERY_LISTENER,
    &CLIENT_WITHOUT_COOKIE,
    &CLIENT_OFF,
    &UNKNOWN_BITS,
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
pub(super) fn decoded(value: i64) -> Evidence {
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
                .wanted(format!("{needs:#x} wherever {present:#x} is set"))
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
    .wanted("no 0x200")
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
    .wanted("no 0x400: programs ask for Fast Open themselves")
    .set(plain(value).to_string())
    .with([decoded(value)])
    .with(concerned)
    .with(s.counters(&["TcpExt.TCPFastOpenPassive"]));
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
    .wanted("no 0x4")
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
        .wanted("0x1 set, as in every kernel since 3.13")
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
        .wanted("only 0x1, 0x2, 0x4, 0x200, 0x400")
        .set((value & KNOWN).to_string())
        .with([decoded(value)]),
    ])
}

#[cfg(test)]
mod tests {
    use super::{KEY, words};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Warning};
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
}
