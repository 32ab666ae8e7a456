//! Two agents, killed agents, hostile names, and limits.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use testbed::{Family, Listener, NetNs, Ns, RawPeer, raw::Flags, require, scenario, wait_until};

use crate::support::{
    Agent, Ledger, PATIENCE,
    books::{DROPS, HELD, NETSTAT, OVERFLOWS, UNATTRIBUTED, drops_are},
    has,
    metrics::Labels,
    objects::Objects,
    settled,
};

fn open(ns: &Ns) -> Listener {
    let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(2);
    builder.open(ns).unwrap()
}

fn overflow(listener: &Listener, n: u64) {
    listener.fill().unwrap();
    scenario::overflow_syns(listener, n).unwrap();
}

#[test]
fn two_agents_at_once_are_both_right() {
    require!(require::root());
    let first = Agent::start(&[]);
    let second = Agent::start(&[]);
    let ns = NetNs::new("two").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let listener = open(&ns);
    overflow(&listener, 21);
    for agent in [&first, &second] {
        let metrics = ledger.balanced(agent);
        drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 21)]);
    }
    // The end of one does not disturb the other.
    first.stop();
    scenario::overflow_syns(&listener, 4).unwrap();
    let metrics = ledger.balanced(&second);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 25)]);
}

#[test]
fn a_killed_agent_leaves_nothing_in_the_kernel() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let held = Objects::of_process(agent.pid());
    let attached = agent.scrape().sum("netobs_probe_attached", &[]);
    assert!(attached > 0);
    let attached = usize::try_from(attached).unwrap();
    assert!(
        held.maps.len() >= 4 && held.links.len() >= attached,
        "{held:?}"
    );
    agent.kill();
    wait_until(PATIENCE, "everything of the agent to be gone", || {
        Ok(held.among(&Objects::now()) == Objects::default())
    })
    .unwrap();
}

#[test]
fn a_stopped_agent_leaves_nothing_in_the_kernel() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let held = Objects::of_process(agent.pid());
    assert!(!held.links.is_empty());
    let said = agent.stop();
    assert!(said.contains("everything is detached"), "{said}");
    wait_until(PATIENCE, "everything of the agent to be gone", || {
        Ok(held.among(&Objects::now()) == Objects::default())
    })
    .unwrap();
}

mod host_only {
    use super::*;

    /// The name of this process, until dropped.
    struct Name(Vec<u8>);

    impl Name {
        fn set(name: &[u8]) -> Self {
            let before = fs::read("/proc/self/comm").unwrap();
            fs::write("/proc/self/comm", name).unwrap();
            Self(before.trim_ascii_end().to_vec())
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = fs::write("/proc/self/comm", &self.0);
        }
    }

    #[test]
    fn hostile_process_names_leave_the_metrics_valid() {
        require!(require::root());
        for (name, shown) in [
            (b"quo\"te'\n\\n\"}".as_slice(), "quo\"te'\\x0a\\x5cn\"}"),
            (b"\xff\xfe\x80bad\xc3".as_slice(), "\\xff\\xfe\\x80bad\\xc3"),
            (b"# HELP x\n# EOF\n".as_slice(), "# HELP x\\x0a# EOF\\x0a"),
        ] {
            let _name = Name::set(name);
            let ns = NetNs::new("name").unwrap();
            // Found by who holds the socket, and by who calls listen().
            let before = open(&ns);
            let agent = Agent::start(&[]);
            let after = open(&ns);
            for listener in [&before, &after] {
                overflow(listener, 3);
            }
            let metrics = settled(&agent, &ns);
            for listener in [&before, &after] {
                let labels: Labels<'_> = &[
                    ("netns", &ns.inode()),
                    ("local_port", &listener.port()),
                    ("process", &shown),
                ];
                assert_eq!(metrics.sum(DROPS, labels), 3, "{}", metrics.text);
            }
            if has("promtool") {
                check_with_promtool(&agent.scrape_text());
            }
        }
    }

    /// `promtool check metrics`: the text is what Prometheus takes.
    fn check_with_promtool(text: &str) {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn beyond_the_label_cap_the_sums_stay_right() {
        require!(require::root());
        let agent = Agent::start(&["--max-label-sets", "3"]);
        let ns = NetNs::new("cap").unwrap();
        let listeners: Vec<Listener> = (0..8).map(|_| open(&ns)).collect();
        for (listener, n) in listeners.iter().zip(1..) {
            overflow(listener, n);
        }
        let metrics = settled(&agent, &ns);
        // Listeners of this machine's other namespaces share the cap, so whose were folded is open; all
        // of this namespace's are in its own series and in the one of those that were folded.
        let own: Labels<'_> = &[("netns", &ns.inode())];
        let folded: Labels<'_> = &[("netns", &"other"), ("process", &"other")];
        for family in [DROPS, OVERFLOWS] {
            assert!(metrics.all(family, folded).count() > 0, "{}", metrics.text);
            assert_eq!(metrics.sum(family, own) + metrics.sum(family, folded), 36);
        }
        let sets = metrics.all("netobs_tcp_accept_queue_length", &[]).count();
        assert_eq!(sets, 4, "three and the folded one: {}", metrics.text);
        let family: Labels<'_> = &[("family", &"netobs_tcp_listeners")];
        assert!(metrics.sum("netobs_label_sets_folded_total", family) >= 5);
        for (_, _, counter) in HELD {
            let labels: Labels<'_> = &[("netns", &ns.inode()), ("counter", &counter)];
            assert_eq!(
                metrics.get(UNATTRIBUTED, labels),
                Some(0.0),
                "{}",
                metrics.text
            );
        }
    }
}

#[test]
fn without_kfree_skb_listen_drops_are_never_too_many() {
    require!(require::root(), require::command("ip"), require::tun());
    let agent = Agent::start(&["--no-probe", "kfree_skb"]);
    let ns = NetNs::new("bound").unwrap();
    let netns = ns.inode();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let address = std::net::SocketAddr::new(peer.host(), 0);
    let listener = Listener::builder(address).backlog(2).open(&ns).unwrap();
    let metrics = agent.scrape();
    if metrics
        .all("netobs_signal_info", &[("method", &"sk_drops")])
        .count()
        == 0
    {
        return; // A better method is in use, which needs no kfree_skb.
    }
    let labels: Labels<'_> = &[("signal", &"listen_drops"), ("exactness", &"lower_bound")];
    assert_eq!(metrics.get("netobs_signal_info", labels), Some(1.0));
    let off: Labels<'_> = &[("probe", &"kfree_skb")];
    // Switched off by the user: nothing that is missing.
    assert_eq!(metrics.get("netobs_probe_attached", off), None);

    let stranger = peer.client(3000, listener.port());
    let noise = || (0..6).for_each(|_| stranger.stray(Flags::RST).unwrap());
    let within = |drops: u64| {
        let metrics = settled(&agent, &ns);
        let sum = metrics.sum(DROPS, &[("netns", &netns)]);
        let labels: Labels<'_> = &[("netns", &netns), ("counter", &"TcpExt_ListenDrops")];
        assert_eq!(metrics.sum(NETSTAT, labels), drops);
        assert!(sum <= drops, "{sum} of {drops}: {}", metrics.text);
        sum
    };
    noise();
    assert_eq!(within(0), 0);
    overflow(&listener, 7);
    within(7);
    noise();
    let before = within(7);
    // Real drops among the noise, after all of it was looked at.
    noise();
    scenario::overflow_syns(&listener, 5).unwrap();
    noise();
    assert!(within(12) >= before);
}

#[test]
fn an_agent_that_is_asked_often_stays_right() {
    require!(require::root());
    let agent = Agent::shared();
    let ns = NetNs::new("often").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let listener = open(&ns);
    listener.fill().unwrap();
    let storm = ns.spawn({
        let target = listener.target();
        move || {
            for _ in 0..20_000 {
                drop(testbed::connect_nonblocking(target).unwrap());
            }
        }
    });
    // While the numbers move, none may run ahead of the kernel's.
    while !storm.is_finished() {
        let metrics = settled(agent, &ns);
        let netns: Labels<'_> = &[("netns", &ns.inode())];
        for sample in metrics.all(UNATTRIBUTED, netns) {
            assert!(sample.value >= 0.0, "{sample:?}");
        }
        let counted = ledger.counted("TcpExt", "ListenDrops");
        assert!(metrics.sum(DROPS, netns) <= counted);
        std::thread::sleep(Duration::from_millis(5));
    }
    storm.join().unwrap();
    let metrics = ledger.balanced(agent);
    // A slow machine may lose a SYN before any listener: what counts is what the kernel counted.
    let dropped = ledger.counted("TcpExt", "ListenDrops");
    assert!((10_000..=20_000).contains(&dropped), "{dropped}");
    drops_are(
        &metrics,
        &listener,
        &[("syn", "accept_queue_full", dropped)],
    );
}
