//! One line per signal for the kernel matrix: which method serves it here, how exact it claims to
//! be, and whether its numbers are the kernel's.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::{SocketAddr, TcpStream},
};

use testbed::{
    Counters, Family, Link, Listener, NetNs, RawPeer, listener::abort, require, scenario,
};

use crate::support::{
    Agent, Ledger, Metrics, any,
    books::{self, DROPS, OVERFLOWS, SEGMENTS, UNATTRIBUTED},
    metrics::Labels,
};

/// What one signal came to.
struct Verdict {
    signal: &'static str,
    kernel: u64,
    attributed: u64,
    unattributed: f64,
}

impl Verdict {
    /// Writes the line where the matrix looks for it, and says whether the signal holds.
    fn report(&self, metrics: &Metrics) -> bool {
        let labels: Labels<'_> = &[("signal", &self.signal)];
        let info = metrics.all("netobs_signal_info", labels).next();
        let label = |name: &str| {
            info.and_then(|sample| sample.labels.get(name).cloned())
                .unwrap_or_else(|| "none".to_owned())
        };
        // What is missing must be said. That nothing is missing is for the tests of each signal to
        // demand: they know which kernels hide events, and which events those were.
        #[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
        let missing = self.kernel as f64 - self.attributed as f64 - self.unattributed;
        let less = ["lower_bound", "unavailable"].contains(&&*label("exactness"));
        let exact = missing == 0.0 || (less && missing > 0.0);
        let line = format!(
            "SIGNAL {} method={} exactness={} result={} kernel {} attributed {} unattributed {}",
            self.signal,
            label("method"),
            label("exactness"),
            if exact { "pass" } else { "fail" },
            self.kernel,
            self.attributed,
            self.unattributed
        );
        println!("{line}");
        if let Some(path) = std::env::var_os("NETOBS_REPORT") {
            let mut report = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            writeln!(report, "{line}").unwrap();
        }
        exact
    }
}

#[test]
fn signals_are_the_kernels() {
    require!(
        require::root(),
        require::command("ip"),
        require::command("nft"),
        require::tun()
    );
    let agent = Agent::shared();
    let mut holds = true;

    // Listeners: SYNs and final ACKs on a full queue.
    let ns = NetNs::new("matrix").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let listener = Listener::builder(any(Family::V4))
        .backlog(8)
        .open(&ns)
        .unwrap();
    let acks = scenario::final_ack_overflow(&peer, &listener, 4, 2).unwrap();
    scenario::overflow_syns(&listener, 9).unwrap();
    let metrics = books::settled(agent, &ns);
    let netns = ns.inode();
    let counted = Counters::read_in(&ns).unwrap();
    for (signal, family, counter) in [
        ("listen_drops", DROPS, "ListenDrops"),
        ("listen_overflows", OVERFLOWS, "ListenOverflows"),
    ] {
        let verdict = Verdict {
            signal,
            kernel: counted.get("TcpExt", counter),
            attributed: metrics.sum(family, &[("netns", &netns)]),
            unattributed: unattributed(&metrics, netns, &format!("TcpExt_{counter}")),
        };
        holds &= verdict.report(&metrics);
    }
    let queue = Verdict {
        signal: "accept_queue",
        kernel: listener.queued().unwrap().into(),
        attributed: metrics.sum("netobs_tcp_accept_queue_length", &[("netns", &netns)]),
        unattributed: 0.0,
    };
    holds &= queue.report(&metrics);
    drop(acks);

    // Segments: SYNs to nowhere, and data under loss.
    let (a, b) = (NetNs::new("near").unwrap(), NetNs::new("far").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    scenario::syn_blackhole(&link, Family::V4, 20, 1).unwrap();
    scenario::lossy_transfer(&link, Family::V4, 2 << 20, 40).unwrap();
    let metrics = books::finally(&Ledger::from_birth(&a), agent);
    let netns = a.inode();
    let verdict = Verdict {
        signal: "retransmits",
        kernel: Counters::read_in(&a).unwrap().get("Tcp", "RetransSegs"),
        attributed: metrics.sum(SEGMENTS, &[("netns", &netns)]),
        unattributed: unattributed(&metrics, netns, "Tcp_RetransSegs"),
    };
    holds &= verdict.report(&metrics);

    // SYN-ACKs that nobody answers, where no other handshake is open.
    drop((listener, peer, ns));
    let ns = NetNs::new("synack").unwrap();
    let peer = RawPeer::new(&ns, Family::V4).unwrap();
    let listener = Listener::builder(any(Family::V4))
        .backlog(64)
        .open(&ns)
        .unwrap();
    scenario::syn_ack_retransmits(&peer, &listener, 8, 1).unwrap();
    let metrics = books::settled(agent, &ns);
    let netns = ns.inode();
    let syn_acks: Labels<'_> = &[("netns", &netns), ("type", &"syn_ack")];
    let verdict = Verdict {
        signal: "syn_ack_retransmits",
        kernel: Counters::read_in(&ns)
            .unwrap()
            .get("TcpExt", "TCPSynRetrans"),
        attributed: metrics.sum(SEGMENTS, syn_acks),
        unattributed: unattributed(&metrics, netns, "TcpExt_TCPSynRetrans"),
    };
    holds &= verdict.report(&metrics);
    assert!(holds & connections(agent), "{}", metrics.text);
}

/// Handshakes by SYN cookies, all aborted, and connects to a port on which nothing listens.
fn connections(agent: &Agent) -> bool {
    let ns = NetNs::new("matrix").unwrap();
    ns.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
    let listener = Listener::builder(any(Family::V4))
        .backlog(8)
        .open(&ns)
        .unwrap();
    let target = listener.target();
    ns.run(|| {
        (0..5).for_each(|_| abort(TcpStream::connect(target).unwrap()).unwrap());
        let closed = SocketAddr::new(target.ip(), 9);
        (0..3).for_each(|_| assert!(TcpStream::connect(closed).is_err()));
    });
    let netns = ns.inode();
    let own: Labels<'_> = &[("netns", &netns)];
    let connects = |metrics: &Metrics| {
        metrics.sum("netobs_tcp_connects_total", own)
            + metrics.sum("netobs_tcp_connect_failures_total", own)
    };
    let metrics = agent.scrape_until("eight connects", |metrics| connects(metrics) >= 8);
    let counted = Counters::read_in(&ns).unwrap();
    let cookies = ["SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed"];
    let sent: Labels<'_> = &[("netns", &netns), ("direction", &"sent")];
    let verdict = |signal, kernel, attributed| Verdict {
        signal,
        kernel,
        attributed,
        unattributed: 0.0,
    };
    [
        verdict(
            "syn_cookies",
            cookies.map(|name| counted.get("TcpExt", name)).iter().sum(),
            metrics.sum("netobs_tcp_syn_cookies_total", own),
        ),
        verdict(
            "connects",
            counted.get("Tcp", "ActiveOpens"),
            connects(&metrics),
        ),
        verdict(
            "resets",
            counted.get("Tcp", "OutRsts"),
            metrics.sum("netobs_tcp_resets_total", sent),
        ),
    ]
    .iter()
    .map(|verdict| verdict.report(&metrics))
    .fold(true, |all, one| all & one)
}

fn unattributed(metrics: &Metrics, netns: u32, counter: &str) -> f64 {
    metrics
        .get(UNATTRIBUTED, &[("netns", &netns), ("counter", &counter)])
        .unwrap_or(f64::NAN)
}
