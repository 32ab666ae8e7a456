//! Local ports: running out of them, and ranges that collide.

use super::{Applies, Doc, IP_SYSCTL, Rule, Verdict};
use crate::audit::finding::{Evidence, Problem, Severity};
use crate::audit::subject::{Skip, Subject};

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
const REUSE: &str = "net.ipv4.tcp_tw_reuse";
const NODE_PORTS: (u16, u16) = (30000, 32767);

pub(super) static RULES: &[&Rule] = &[&EXHAUSTED, &SMALL_RANGE, &COLLISION];

/// The range as the kernel takes it, and how many ports of it are not reserved.
fn range(s: &Subject<'_>) -> Result<(u16, u16, u32), Skip> {
    let [low, high] = s.vector(RANGE)?;
    let (Ok(low), Ok(high)) = (u16::try_from(low), u16::try_from(high)) else {
        return Err(Skip::Unreadable {
            key: RANGE,
            reason: "its value is no port range".to_owned(),
        });
    };
    let reserved = reserved(s.text(RESERVED).unwrap_or(""));
    let held: u32 = reserved
        .iter()
        .filter_map(|(a, b)| {
            let (a, b) = ((*a).max(low), (*b).min(high));
            (a <= b).then(|| u32::from(b) - u32::from(a) + 1)
        })
        .sum();
    let all = (u32::from(high) + 1).saturating_sub(u32::from(low));
    Ok((low, high, all.saturating_sub(held)))
}

/// Whether `ports` are four fifths of the range or more.
pub(super) fn nearly_used_up(ports: u32, low: i64, high: i64) -> bool {
    let all = high.saturating_sub(low).saturating_add(1).clamp(1, 65536);
    i64::from(ports) * 5 >= all * 4
}

/// `ip_local_reserved_ports`: numbers and ranges with commas. What is no port is left out.
fn reserved(text: &str) -> Vec<(u16, u16)> {
    text.split(',')
        .filter_map(|part| {
            let (a, b) = part
                .trim()
                .split_once('-')
                .unwrap_or((part.trim(), part.trim()));
            let (a, b): (u16, u16) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
            (a <= b).then_some((a, b))
        })
        .take(65536)
        .collect()
}

static EXHAUSTED: Rule = Rule {
    id: "NETOBS-TCP-070",
    title: "Local ports towards one destination are nearly used up",
    applies: Applies::Namespace,
    severity: Severity::Critical,
    keys: &[RANGE, RESERVED, REUSE],
    doc: Doc {
        checks: "The ports of ip_local_port_range (without reserved ones) in use from one local address towards one destination, TIME_WAIT included, reach 80 %.",
        why: "Each connection to the same address and port needs a local port of its own. At 100 % connect() fails with EADDRNOTAVAIL; well before, the search for a free port takes long. About 28,000 ports by default, each held for 60 s after it is closed, make some 470 connections per second.",
        evidence: "Sockets by destination, as sock_diag lists them now.",
        suggestion: "Reuse connections (keep-alive, pools). Where most ports are in TIME_WAIT, tcp_tw_reuse=1 with time stamps frees them after a second; else widen the range, or use more addresses on either side.",
        ignore: "Never above 80 %.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/inet_hashtables.c: __inet_hash_connect()",
        ],
    },
    check: exhausted,
};

fn exhausted(s: &Subject<'_>) -> Verdict {
    let (low, high, usable) = range(s)?;
    let reuse = s.maybe_int(REUSE);
    let mut problems = Vec::new();
    for used in s.sockets()?.port_use.iter().take(20) {
        let (ports, usable64) = (u64::from(used.ports), u64::from(usable));
        if usable == 0 || ports * 100 < usable64 * 80 {
            continue;
        }
        let severity = if ports * 100 >= usable64 * 95 {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let text = format!(
            "{} of {usable} local ports in use from {} towards {}, {} of them in TIME_WAIT",
            used.ports, used.source, used.destination, used.time_wait
        );
        let waiting = u64::from(used.time_wait) * 2 >= ports;
        let loopback = used.destination.ip().is_loopback() && reuse == Some(2);
        let problem = if waiting && reuse.is_some_and(|r| r != 1) && !loopback {
            Problem::new(severity, REUSE, text.clone())
                .wanted("1 where ports in TIME_WAIT run out towards a destination")
                .set("1")
                .advise("better still, keep connections open; both ends need time stamps")
        } else {
            let wide = (i64::from(low).min(10_000), i64::from(high).max(60_999));
            Problem::new(severity, RANGE, text.clone())
                .wanted("a fifth of the ports free towards every destination")
                .set(format!("{} {}", wide.0, wide.1))
                .advise("better still, keep connections open, or use more addresses")
        };
        problems.push(problem.with([Evidence::seen("sock_diag", text)]));
    }
    Ok(problems)
}

static SMALL_RANGE: Rule = Rule {
    id: "NETOBS-TCP-071",
    title: "The range of local ports is small or empty",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RANGE, RESERVED],
    doc: Doc {
        checks: "Fewer than 10,000 ports of ip_local_port_range are not reserved, or the range starts below 1024.",
        why: "The number of connections to one destination is bounded by it. Ports below 1024 belong to services: one that restarts may find its port taken by a connection.",
        evidence: "The busiest destination, as context. Rule 070 speaks when ports do run out; this is always advice.",
        suggestion: "Widen it; 32768 60999 is the default.",
        ignore: "A firewall that lets only these ports pass.",
        sources: &[
            IP_SYSCTL,
            "net/ipv4/inet_connection_sock.c: inet_sk_get_local_port_range()",
        ],
    },
    check: small_range,
};

fn small_range(s: &Subject<'_>) -> Verdict {
    let (low, _, usable) = range(s)?;
    if usable >= 10_000 && low >= 1024 {
        return Ok(vec![]);
    }
    let message = if low < 1024 {
        format!("local ports start at {low}, among those of services")
    } else {
        format!("{usable} local ports can be used towards one destination")
    };
    let busiest =
        s.ns.sockets
            .as_ref()
            .and_then(|k| k.port_use.first())
            .map(|u| {
                Evidence::context(
                    "sock_diag",
                    format!("busiest destination {}: {} ports", u.destination, u.ports),
                )
            });
    let default = s
        .default_of(RANGE)
        .map_or_else(|| "32768 60999".to_owned(), |d| d.value);
    Ok(vec![
        Problem::new(Severity::Warning, RANGE, message)
            .wanted("10,000 ports or more, from 1024 up")
            .set(default)
            .with(busiest),
    ])
}

static COLLISION: Rule = Rule {
    id: "NETOBS-TCP-072",
    title: "Local ports collide with listeners or node ports",
    applies: Applies::Namespace,
    severity: Severity::Warning,
    keys: &[RANGE, RESERVED],
    doc: Doc {
        checks: "A listener's port lies in ip_local_port_range and is not in ip_local_reserved_ports; on the host, the range overlaps Kubernetes' node ports (30000-32767) where pods are seen.",
        why: "While such a program restarts, an outgoing connection may take its port, and bind() fails with EADDRINUSE: rare, and hard to explain. A connection on a node port can be caught by the rules for that service.",
        evidence: "The listeners concerned, as context. Always advice: the collision itself is not counted.",
        suggestion: "Add the ports to ip_local_reserved_ports.",
        ignore: "Listeners on ports that the kernel chose (bind to port 0), which move at every start.",
        sources: &[
            IP_SYSCTL,
            "https://kubernetes.io/docs/concepts/services-networking/service/",
        ],
    },
    check: collision,
};

fn collision(s: &Subject<'_>) -> Verdict {
    let (low, high, _) = range(s)?;
    let reserved = reserved(s.text(RESERVED)?);
    let is_reserved = |port: u16| reserved.iter().any(|(a, b)| (*a..=*b).contains(&port));
    let mut problems = Vec::new();
    let mut ports: Vec<u16> = s
        .listeners()
        .iter()
        .map(|l| l.port)
        .filter(|p| (low..=high).contains(p) && !is_reserved(*p))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let already = s.text(RESERVED)?;
    let with = |more: &str| {
        if already.is_empty() {
            more.to_owned()
        } else {
            format!("{already},{more}")
        }
    };
    if !ports.is_empty() {
        let list: Vec<String> = ports.iter().take(50).map(u16::to_string).collect();
        let list = list.join(",");
        problems.push(
            Problem::new(
                Severity::Info,
                RESERVED,
                format!("listeners on {list} may find their port taken when they restart"),
            )
            .wanted("ports of listeners outside the range, or reserved")
            .set(with(&list))
            .with([Evidence::context(
                "sock_diag",
                format!(
                    "{} of the listeners' ports inside {low}-{high}",
                    ports.len()
                ),
            )]),
        );
    }
    let pods = s
        .machine
        .others
        .iter()
        .any(|ns| ns.owner.pod_uid.is_some() || ns.owner.pod.is_some());
    let overlap = low <= NODE_PORTS.1 && high >= NODE_PORTS.0;
    if s.ns.host && pods && overlap && !is_reserved(NODE_PORTS.0.max(low)) {
        problems.push(
            Problem::new(
                Severity::Warning,
                RESERVED,
                "the range overlaps Kubernetes' node ports, and pods run here",
            )
            .wanted("30000-32767 outside the range, or reserved")
            .set(with("30000-32767")),
        );
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{RANGE, RESERVED, REUSE, reserved};
    use crate::audit::finding::Basis::{Advice, Evidence};
    use crate::audit::finding::Severity::{Critical, Info, Warning};
    use crate::audit::rules::table::{Fixture, Said, found};
    use crate::audit::snapshot::PortUse;

    fn with(range: &'static str, held: &'static str) -> Fixture {
        Fixture::new(&[(RANGE, range), (RESERVED, held), (REUSE, "2")])
    }

    fn used(fixture: Fixture, ports: u32, time_wait: u32) -> Fixture {
        fixture.sockets(|s| {
            s.port_use.push(PortUse {
                source: "10.0.0.1".parse().unwrap(),
                destination: "10.0.0.2:443".parse().unwrap(),
                ports,
                time_wait,
            });
        })
    }

    #[test]
    fn ports_in_use_are_held_against_what_can_be_used() {
        assert_eq!(used(with("1 1000", ""), 799, 0).ask("070"), Said::Pass);
        assert_eq!(
            used(with("1 1000", ""), 800, 0).ask("070"),
            found(Warning, Evidence)
        );
        assert_eq!(
            used(with("1 1000", ""), 950, 900).ask("070"),
            found(Critical, Evidence)
        );
        assert_eq!(
            used(with("1 1000", "1-500"), 480, 0).ask("070"),
            found(Critical, Evidence)
        );
        assert_eq!(
            with("1 1000", "").host(|ns| ns.sockets = None).ask("070"),
            Said::Unreadable
        );
        assert_eq!(with("1 99999", "").ask("070"), Said::Unreadable);
        assert_eq!(used(with("9 3", ""), 5, 0).ask("070"), Said::Pass);
    }

    #[test]
    fn small_ranges_and_collisions() {
        assert_eq!(with("32768 60999", "").ask("071"), Said::Pass);
        assert_eq!(with("32768 40000", "").ask("071"), found(Warning, Advice));
        assert_eq!(
            with("32768 60999", "32768-60000").ask("071"),
            found(Warning, Advice)
        );
        assert_eq!(with("1 60999", "").ask("071"), found(Warning, Advice));
        assert_eq!(with("9 3", "").ask("071"), found(Warning, Advice));
        assert_eq!(
            with("32768 60999", "").listener(0, 9, None).ask("072"),
            Said::Pass
        );
        assert_eq!(
            with("10 60999", "").listener(0, 9, None).ask("072"),
            found(Info, Advice)
        );
        assert_eq!(
            with("10 60999", "70-90").listener(0, 9, None).ask("072"),
            Said::Pass
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_of_ports(text in "[0-9,\\- x]{0,60}") {
            for (a, b) in reserved(&text) {
                prop_assert!(a <= b);
            }
        }
    }
}
