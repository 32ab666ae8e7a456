//! A burst of some tenths of a second between two scrapes, as it is seen afterwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use testbed::{Family, Link, Listener, NetNs, require, scenario, wait_until};

use crate::{
    server::Prometheus,
    support::{Agent, any},
};

/// As most people have it.
const SCRAPES: &str = "15s";
/// The peak is that of the last full minute, and is scraped up to 15 s later.
const PATIENCE: Duration = Duration::from_secs(100);
const SYNS: u32 = 200;
const DROPS: u64 = 400;

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// Waits for a number that satisfies a condition.
fn number(prometheus: &Prometheus, query: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let mut last = None;
    let found = wait_until(PATIENCE, query, || {
        last = prometheus.number(query);
        Ok(last.is_some_and(&wanted))
    });
    found.unwrap_or_else(|error| panic!("{error}: {last:?}"));
    println!("{query}\n    {}", last.unwrap());
    last.unwrap()
}

/// The agent does not run meanwhile: the time is the kernel's, not that of who looks.
#[test]
fn a_burst_between_two_scrapes_is_seen_afterwards_with_its_size_and_time() {
    require!(
        require::root(),
        require::prometheus(),
        require::command("ip"),
        require::command("nft")
    );
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (NetNs::new("bursta").unwrap(), NetNs::new("burstb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    let listener = Listener::builder(any(Family::V4)).backlog(2);
    let listener = listener.open(&a).unwrap();
    listener.fill().unwrap();
    let agent = Agent::start(&[]);
    let prometheus = Prometheus::start_every(folder.path(), agent.address(), SCRAPES);
    let retransmits = |part: &str| {
        format!(
            "netobs_tcp_retransmits_per_100ms{part}{{netns=\"{}\"}}",
            a.inode()
        )
    };
    let drops = |part: &str| {
        format!(
            "netobs_tcp_listen_drops_per_100ms{part}{{netns=\"{}\",local_port=\"{}\"}}",
            a.inode(),
            listener.port()
        )
    };
    // Right after a scrape.
    for bins in [retransmits("_count"), drops("_count")] {
        number(&prometheus, &bins, |bins| bins > 0.0);
    }
    assert_eq!(prometheus.number(&drops("_sum")), Some(0.0));

    agent.signal(Signal::SIGSTOP);
    let begun = now();
    for _ in 0..4 {
        scenario::overflow_syns(&listener, DROPS / 4).unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    let dropped = now();
    // Every SYN is sent again a second later.
    scenario::syn_blackhole(&link, Family::V4, SYNS, 1).unwrap();
    let sent_again = now();
    agent.signal(Signal::SIGCONT);
    println!("drops for {:.3} s from {begun:.3} on", dropped - begun);

    // The next scrape has the sums, and bins that tell a burst from a trickle.
    number(&prometheus, &drops("_sum"), |sum| sum == 400.0);
    // A few may come where this kernel runs no program.
    let most = f64::from(SYNS);
    number(&prometheus, &retransmits("_sum"), |sum| {
        sum > 0.8 * most && sum <= most
    });
    let dense = |count: &str, bucket: &str| {
        let le = |text: &str| text.replace('}', ",le=\"10.0\"}");
        format!("{count} - on() {}", le(bucket))
    };
    let bins = dense(&retransmits("_count"), &retransmits("_bucket"));
    number(&prometheus, &bins, |bins| (1.0..=4.0).contains(&bins));
    let bins = dense(&drops("_count"), &drops("_bucket"));
    number(&prometheus, &bins, |bins| (1.0..=4.0).contains(&bins));

    // Once the minute is over: how large and when.
    let peak = number(&prometheus, &retransmits("_peak"), |peak| peak > 50.0);
    assert!(peak <= most);
    let at = number(&prometheus, &retransmits("_peak_timestamp_seconds"), |_| {
        true
    });
    assert!(
        (dropped + 0.8..=sent_again).contains(&at),
        "{dropped} {at} {sent_again}"
    );
    number(&prometheus, &drops("_peak"), |peak| {
        (100.0..=400.0).contains(&peak)
    });
    let at = number(&prometheus, &drops("_peak_timestamp_seconds"), |_| true);
    // Counted by looking, they lie somewhere between two looks.
    assert!(
        (begun - 0.2..=sent_again).contains(&at),
        "{begun} {at} {sent_again}"
    );
    agent.stop();
}
