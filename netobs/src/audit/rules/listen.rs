//! Accept queues: `somaxconn`, the `listen()` argument, and what happens when they are full.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::snapshot::Listener;
use crate::audit::subject::Subject;

const SOMAXCONN: &str = "net.core.somaxconn";
const ABORT: &str = "net.ipv4.tcp_abort_on_overflow";
const MIGRATE: &str = "net.ipv4.tcp_migrate_req";
const OVERFLOWS: &str = "TcpExt.ListenOverflows";
const DROPS: &str = "TcpExt.ListenDrops";
/// Listeners named one by one; a host may have thousands.
const MAX_NAMED: usize = 20;
/// An argument above this is no wish for a queue of that length, but for the longest there is:
/// -1, `INT_MAX`, what a runtime takes for "no limit of mine".
const LONGEST_WISH: u32 = 65_535;

const LISTEN_MAN: &str = "https://man7.org/linux/man-pages/man2/listen.2.html";
const FULL: &str = "include/net/sock.h: sk_acceptq_is_full()";

pub(super) static RULES: &[&Rule] = &[
    &CUT_BY_SOMAXCONN,
    &APPLICATION_BACKLOG,
    &LOWERED_AFTER_LISTEN,
    &LOW_SOMAXCONN,
    &UNNAMED_OVERFLOWS,
    &ABORT_ON_OVERFLOW,
    &MIGRATION,
];

/// Proof that a listener overflows: full right now, or drops while the namespace's
/// overflow counter moved. `sk_drops` alone counts other drops too.
fn overflowing(s: &Subject<'_>, listener: &Listener) -> Vec<Evidence> {
    let mut facts = Vec::new();
    let name = format!("listener {}", listener.name());
    let dropped = listener.new_drops();
    if listener.full() {
        facts.push(Evidence::seen(
            &name,
            format!(
                "queue is full now: {} waiting, limit {}",
                listener.queue, listener.limit
            ),
        ));
    }
    if dropped > 0 && s.moved(OVERFLOWS) {
        facts.push(Evidence::seen(
            &name,
            format!(
                "{dropped} packets dropped in the window (an upper bound for lost connections)"
            ),
        ));
    }
    if !facts.is_empty() {
        facts.extend(s.counters(&[OVERFLOWS, DROPS]));
    }
    facts
}

/// Whether `somaxconn` is known to have cut what the listener asked for.
fn was_cut(listener: &Listener) -> bool {
    listener.asked.is_some_and(|asked| asked > listener.limit)
}

/// A listener in words.
fn describe(listener: &Listener) -> String {
    let process = listener.process.as_deref().unwrap_or("unknown process");
    format!("{} ({process}, uid {})", listener.name(), listener.uid)
}

static CUT_BY_SOMAXCONN: Rule = Rule {
    id: "NETOBS-TCP-040",
    title: "A listener's queue is cut by somaxconn",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[SOMAXCONN],
    doc: Doc {
        checks: "A listener asked listen() for more than somaxconn, where the argument was seen; or its limit equals somaxconn and its queue overflows.",
        why: "The kernel cuts the argument of listen() to somaxconn without telling anybody. When more connections than that wait for accept(), the last packet of the handshake is dropped: the client believes it is connected, sends, and waits for 1, 3, 7 seconds. A new namespace starts from the kernel's default, whatever the node's value is.",
        evidence: "The listener's queue above its limit at the time of the audit, or its drops together with TcpExt.ListenOverflows moving in the window.",
        suggestion: "Raise somaxconn in that namespace to what the program asks for, then restart the program: the limit is fixed when listen() is called. If the queue still fills, the program accepts too slowly and no limit will help.",
        ignore: "The queue never fills; then only the belief that it is longer is wrong.",
        sources: &[IP_SYSCTL, LISTEN_MAN, "net/socket.c: __sys_listen()", FULL],
    },
    check: cut_by_somaxconn,
};

fn cut_by_somaxconn(s: &Subject<'_>) -> Verdict {
    let cap = s.int(SOMAXCONN)?;
    let mut problems = Vec::new();
    for listener in &s.sockets()?.listeners {
        let limit = i64::from(listener.limit);
        let wish = listener.asked.filter(|asked| *asked <= LONGEST_WISH);
        let facts = overflowing(s, listener);
        let concerns = match listener.asked {
            Some(_) => was_cut(listener) && (wish.is_some() || !facts.is_empty()),
            None => limit == cap && !facts.is_empty(),
        };
        if !concerns {
            continue;
        }
        let asked = match (wish, listener.asked) {
            (Some(wish), _) => format!("asked for {wish}"),
            (None, Some(_)) => "asked for as much as there is".to_owned(),
            (None, None) => format!("asked for {cap} or more"),
        };
        let name = describe(listener);
        let problem = if cap > limit && wish.is_none_or(|wish| cap >= i64::from(wish)) {
            Problem::new(
                Severity::Warning,
                SOMAXCONN,
                format!("{name} {asked} and got {limit}, cut by a somaxconn that is {cap} now"),
            )
            .wanted("at least what the listener asks for, when it calls listen()")
            .advise("restart the program: the limit is taken over at listen()")
            .in_application()
        } else {
            let target = wish.map_or_else(|| cap.saturating_mul(2).max(1024), i64::from);
            Problem::new(
                Severity::Warning,
                SOMAXCONN,
                format!("{name} {asked} and got {limit}, cut by somaxconn"),
            )
            .wanted("at least what the listener asks for")
            .set(target.to_string())
            .advise("restart the program afterwards: the limit is taken over at listen()")
        };
        problems.push(problem.with(facts).graver_if_live(Severity::Critical));
        if problems.len() == MAX_NAMED {
            break;
        }
    }
    Ok(problems)
}

static APPLICATION_BACKLOG: Rule = Rule {
    id: "NETOBS-TCP-041",
    title: "A listener overflows at the limit its program chose",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[SOMAXCONN],
    doc: Doc {
        checks: "A listener overflows while its limit is what it asked listen() for, where the argument was seen; or while its limit is below somaxconn.",
        why: "Then the argument of listen() binds, and raising somaxconn alone changes nothing: the usual remedy is the wrong one here.",
        evidence: "The listener's queue above its limit, or its drops together with TcpExt.ListenOverflows moving in the window. Never said without.",
        suggestion: "Raise the backlog in the program's configuration (nginx `backlog=`, Java's and Node's listen argument, and so on), or make it accept faster.",
        ignore: "A short queue is wanted, so that clients turn to another server early.",
        sources: &[LISTEN_MAN, "net/socket.c: __sys_listen()", FULL],
    },
    check: application_backlog,
};

fn application_backlog(s: &Subject<'_>) -> Verdict {
    let cap = s.int(SOMAXCONN)?;
    let mut problems = Vec::new();
    for listener in &s.sockets()?.listeners {
        let room = cap > i64::from(listener.limit);
        let chosen = listener.asked.map_or(room, |_| !was_cut(listener));
        let facts = overflowing(s, listener);
        if !chosen || facts.is_empty() {
            continue;
        }
        let somaxconn = if room {
            format!("somaxconn allows {cap}, and raising that will not help")
        } else {
            format!("somaxconn is {cap}, and raising that alone will not help")
        };
        problems.push(
            Problem::new(
                Severity::Critical,
                SOMAXCONN,
                format!(
                    "{} overflows at {}, which its program asked for; {somaxconn}",
                    describe(listener),
                    listener.limit
                ),
            )
            .wanted("a backlog in the program that fits its bursts")
            .advise("raise the program's own listen() backlog, or accept faster")
            .in_application()
            .with(facts),
        );
        if problems.len() == MAX_NAMED {
            break;
        }
    }
    Ok(problems)
}

static LOWERED_AFTER_LISTEN: Rule = Rule {
    id: "NETOBS-TCP-042",
    title: "A restart would shorten a listener's queue",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SOMAXCONN],
    doc: Doc {
        checks: "A listener's limit is above somaxconn.",
        why: "somaxconn is applied when listen() is called. It has been lowered since: the running program still has the long queue, and loses it at its next restart.",
        evidence: "The limit that sock_diag shows for the listener, which is a state seen now, not harm. Always advice.",
        suggestion: "Raise somaxconn back to the listener's limit, or plan for the shorter queue.",
        ignore: "The lower value is meant, and waits for the restart.",
        sources: &[IP_SYSCTL, "net/socket.c: __sys_listen()"],
    },
    check: lowered_after_listen,
};

fn lowered_after_listen(s: &Subject<'_>) -> Verdict {
    let cap = s.int(SOMAXCONN)?;
    let longer: Vec<&Listener> = s
        .sockets()?
        .listeners
        .iter()
        .filter(|l| i64::from(l.limit) > cap)
        .collect();
    let Some(longest) = longer.iter().max_by_key(|l| l.limit) else {
        return Ok(vec![]);
    };
    let problem = Problem::new(
        Severity::Warning,
        SOMAXCONN,
        format!(
            "{} of the listeners here have a longer queue than a restart would give them",
            longer.len()
        ),
    )
    .wanted("at least the longest queue in use")
    .set(longest.limit.to_string())
    .with(longer.iter().take(MAX_NAMED).map(|l| {
        Evidence::context(
            format!("listener {}", l.name()),
            format!("limit {}, now at most {cap}", l.limit),
        )
    }));
    Ok(vec![problem])
}

static LOW_SOMAXCONN: Rule = Rule {
    id: "NETOBS-TCP-043",
    title: "somaxconn is below the kernel's default",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[SOMAXCONN],
    doc: Doc {
        checks: "somaxconn is lower than what this kernel gives a fresh namespace.",
        why: "The default is 4096 since 5.4 and was 128 before. Files from that time still set 128 or 1024, and so make every listener's queue shorter than the kernel would.",
        evidence: "TcpExt.ListenOverflows moving in the window.",
        suggestion: "Remove the old setting and let the default stand.",
        ignore: "Short queues are wanted in this namespace.",
        sources: &[IP_SYSCTL, "19f92a030ca6 (5.4: 128 to 4096)"],
    },
    check: low_somaxconn,
};

fn low_somaxconn(s: &Subject<'_>) -> Verdict {
    let value = s.int(SOMAXCONN)?;
    let Some(default) = s.default_int(SOMAXCONN) else {
        return Ok(vec![]);
    };
    if value >= default {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Warning, SOMAXCONN, format!("no listener here can have a queue longer than {value}, where the kernel would allow {default}"))
            .wanted(format!("{default}, this kernel's default, or more"))
            .set(default.to_string())
            .with(s.counters(&[OVERFLOWS])),
    ])
}

static UNNAMED_OVERFLOWS: Rule = Rule {
    id: "NETOBS-TCP-044",
    title: "Accept queues overflow and no listener can be named",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[SOMAXCONN],
    doc: Doc {
        checks: "TcpExt.ListenOverflows moved in the window, but no listener is full and none dropped anything.",
        why: "Connections were lost all the same: the listener was closed meanwhile, its sockets could not be listed, or the burst was short. The agent names the listener event by event.",
        evidence: "TcpExt.ListenOverflows and TcpExt.ListenDrops in the window.",
        suggestion: "Watch with `netobs trace listen-drop` or the agent, which attribute each drop to its listener.",
        ignore: "Never; connections were lost.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_ipv4.c: tcp_v4_syn_recv_sock()"],
    },
    check: unnamed_overflows,
};

fn unnamed_overflows(s: &Subject<'_>) -> Verdict {
    s.int(SOMAXCONN)?;
    if !s.moved(OVERFLOWS) || s.listeners().iter().any(|l| !overflowing(s, l).is_empty()) {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(Severity::Critical, SOMAXCONN, "accept queues overflowed during the audit; their listener is gone or was not full when looked at")
            .wanted("no overflows")
            .advise("run the agent, or `netobs trace listen-drop`, to see which listener it is")
            .with(s.counters(&[OVERFLOWS, DROPS])),
    ])
}

static ABORT_ON_OVERFLOW: Rule = Rule {
    id: "NETOBS-TCP-045",
    title: "Overflowing listeners reset their clients",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[ABORT],
    doc: Doc {
        checks: "tcp_abort_on_overflow is not 0.",
        why: "With 0 a full accept queue drops the last packet of the handshake and the client tries again: a burst is survived. With 1 the client gets a reset, and a moment of slowness becomes an error. The kernel's text says that it can harm the clients of the server.",
        evidence: "TcpExt.ListenOverflows moving in the window: clients are being reset. Tcp.OutRsts is shown beside it.",
        suggestion: "Set it to 0 and look at the listener that overflows.",
        ignore: "Clients that go to another server at once when refused, which is what you want.",
        sources: &[IP_SYSCTL, "net/ipv4/tcp_minisocks.c: tcp_check_req()"],
    },
    check: abort_on_overflow,
};

fn abort_on_overflow(s: &Subject<'_>) -> Verdict {
    if s.int(ABORT)? == 0 {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Warning,
            ABORT,
            "when an accept queue is full, clients are reset where they would have tried again",
        )
        .wanted("0, as in every kernel")
        .set("0")
        .with(s.counters(&[OVERFLOWS]))
        .with(s.history(&["Tcp.OutRsts"]))
        .graver_if_live(Severity::Critical),
    ])
}

static MIGRATION: Rule = Rule {
    id: "NETOBS-TCP-046",
    title: "Requests of a closed listener are not moved to its siblings",
    applies: Applies::Namespace,
    severity: Severity::Info,
    keys: &[MIGRATE],
    doc: Doc {
        checks: "tcp_migrate_req is 0 and two or more listeners share one address and port (SO_REUSEPORT); or it is 1 and migrations failed in the window.",
        why: "When one of several listeners on a port closes, at a reload for example, the connections in its queue are reset, unless tcp_migrate_req moves them to another one.",
        evidence: "TcpExt.TCPMigrateReqFailure moving in the window. The number of listeners that share a port is shown as context.",
        suggestion: "Set it to 1 where a server is reloaded under load. Without a BPF program to choose, the kernel picks a sibling.",
        ignore: "The program drains its listeners before it closes them.",
        sources: &[
            IP_SYSCTL,
            "net/core/sock_reuseport.c: reuseport_migrate_sock()",
        ],
    },
    check: migration,
};

fn migration(s: &Subject<'_>) -> Verdict {
    let value = s.int(MIGRATE)?;
    let failed = s.counters(&["TcpExt.TCPMigrateReqFailure"]);
    if value != 0 {
        if !failed.iter().any(|f| f.live) {
            return Ok(vec![]);
        }
        return Ok(vec![
            Problem::new(
                Severity::Info,
                MIGRATE,
                "requests of closed listeners could not be moved to a sibling",
            )
            .wanted("no failures")
            .advise("keep one listener of the group open throughout a reload")
            .in_application()
            .with(failed)
            .with(s.history(&["TcpExt.TCPMigrateReqSuccess"])),
        ]);
    }
    let mut names: Vec<String> = s.sockets()?.listeners.iter().map(Listener::name).collect();
    names.sort_unstable();
    let shared: Vec<String> = names
        .chunk_by(|a, b| a == b)
        .filter(|g| g.len() > 1)
        .filter_map(|g| Some(format!("{} listeners on {}", g.len(), g.first()?)))
        .collect();
    if shared.is_empty() {
        return Ok(vec![]);
    }
    Ok(vec![
        Problem::new(
            Severity::Info,
            MIGRATE,
            "when one of the listeners that share a port closes, its waiting connections are reset",
        )
        .wanted("1 where such a server is reloaded under load")
        .set("1")
        .with(
            shared
                .into_iter()
                .take(MAX_NAMED)
                .map(|text| Evidence::context("sock_diag", text)),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::{ABORT, DROPS, MIGRATE, OVERFLOWS, SOMAXCONN};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};

    const MOVED: [(&str, u64); 2] = [(OVERFLOWS, 9), (DROPS, 9)];

    fn cap(value: &'static str) -> Fixture {
        Fixture::new(&[(SOMAXCONN, value)])
    }

    #[test]
    fn the_binding_limit_is_named() {
        // (queue, limit, asked) under somaxconn 128: cut, application, lowered.
        let pass = || Said::Pass;
        for (queue, limit, asked, cut, application, lowered) in [
            (0, 128, None, pass(), pass(), pass()),
            (129, 128, None, found(Critical, Evidence), pass(), pass()),
            (128, 128, None, pass(), pass(), pass()),
            (0, 128, Some(1024), found(Warning, Advice), pass(), pass()),
            (
                129,
                128,
                Some(1024),
                found(Critical, Evidence),
                pass(),
                pass(),
            ),
            (
                129,
                128,
                Some(128),
                pass(),
                found(Critical, Evidence),
                pass(),
            ),
            // As much as there is: a contradiction only once it hurts.
            (0, 128, Some(u32::MAX / 2), pass(), pass(), pass()),
            (
                129,
                128,
                Some(u32::MAX / 2),
                found(Critical, Evidence),
                pass(),
                pass(),
            ),
            // Cut when somaxconn was lower than now: raising it further is not what helps.
            (17, 16, Some(64), found(Critical, Evidence), pass(), pass()),
            (0, 16, Some(64), found(Warning, Advice), pass(), pass()),
            (17, 16, Some(16), pass(), found(Critical, Evidence), pass()),
            (0, 5, None, pass(), pass(), pass()),
            (6, 5, None, pass(), found(Critical, Evidence), pass()),
            (0, 512, None, pass(), pass(), found(Warning, Advice)),
        ] {
            let f = cap("128").listener(queue, limit, asked);
            let case = format!("{queue} {limit} {asked:?}");
            assert_eq!(f.ask("040"), cut, "{case}");
            assert_eq!(f.ask("041"), application, "{case}");
            assert_eq!(f.ask("042"), lowered, "{case}");
        }
    }

    #[test]
    fn drops_count_only_beside_overflows() {
        let with = |fixture: Fixture| {
            fixture.sockets(|s| s.listeners.iter_mut().for_each(|l| l.drops = 3))
        };
        let quiet = with(cap("16").listener(0, 16, None));
        assert_eq!(quiet.ask("040"), Said::Pass);
        let busy = with(cap("16").listener(0, 16, None)).moved(&MOVED);
        assert_eq!(busy.ask("040"), found(Critical, Evidence));
        assert_eq!(busy.ask("044"), Said::Pass);
        let nobody = cap("16").listener(0, 16, None).moved(&MOVED);
        assert_eq!(nobody.ask("044"), found(Critical, Evidence));
        assert_eq!(cap("16").totals(&MOVED).ask("044"), Said::Pass);
    }

    #[test]
    fn a_value_below_the_default_of_this_kernel() {
        assert_eq!(cap("128").ask("043"), found(Warning, Advice));
        assert_eq!(
            cap("128").moved(&MOVED).ask("043"),
            found(Warning, Evidence)
        );
        assert_eq!(cap("128").kernel("4.19.1").ask("043"), Said::Pass);
        assert_eq!(cap("4096").ask("043"), Said::Pass);
        assert_eq!(cap("128").kernel("?").ask("043"), Said::Pass);
        assert_eq!(cap("").ask("043"), Said::Unreadable);
    }

    #[test]
    fn resets_are_critical_while_they_happen() {
        let on = || Fixture::new(&[(ABORT, "1")]);
        assert_eq!(on().ask("045"), found(Warning, Advice));
        assert_eq!(on().moved(&MOVED).ask("045"), found(Critical, Evidence));
        assert_eq!(
            Fixture::new(&[(ABORT, "0")]).moved(&MOVED).ask("045"),
            Said::Pass
        );
    }

    #[test]
    fn listeners_that_share_a_port() {
        let with = |v| Fixture::new(&[(MIGRATE, v)]);
        assert_eq!(with("0").listener(0, 9, None).ask("046"), Said::Pass);
        let two = with("0").listener(0, 9, None).listener(0, 9, None);
        assert_eq!(two.ask("046"), found(Info, Advice));
        let failing = with("1").moved(&[("TcpExt.TCPMigrateReqFailure", 1)]);
        assert_eq!(failing.ask("046"), found(Info, Evidence));
        assert_eq!(Fixture::new(&[]).ask("046"), Said::NotApplicable);
        assert_eq!(
            with("0").host(|ns| ns.sockets = None).ask("046"),
            Said::Unreadable
        );
    }
}
