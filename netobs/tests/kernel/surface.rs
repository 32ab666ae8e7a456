//! The running agent in the hands of clients that ask too often or too slowly, and of whoever starts
//! and stops it.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{Family, Listener, NetNs, require, scenario, wait_until, witness::wait_for};

use crate::support::{
    Agent, Ledger, PATIENCE,
    agent::{LISTEN, binary},
    any,
    books::drops_are,
};

/// One scrape on a connection of its own: its status, and how long it took.
fn ask(address: SocketAddr) -> std::io::Result<(u16, Duration)> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.unwrap_or_default(), begun.elapsed()))
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// Fifty that ask every ten milliseconds are answered or refused, none is kept waiting for ever, the
/// counts stay right, and the agent does not grow.
#[test]
fn fifty_clients_every_ten_milliseconds_harm_nothing() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("fifty").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let listener = Listener::builder(any(Family::V4))
        .backlog(2)
        .open(&ns)
        .unwrap();
    listener.fill().unwrap();
    let (stop, answered, refused) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let address = agent.address();
    let slowest = std::thread::scope(|scope| {
        let client = || {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let (status, took) = ask(address).unwrap();
                match status {
                    200 => answered.fetch_add(1, Ordering::Relaxed),
                    503 => refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("status {other}"),
                };
                slowest = slowest.max(took);
                std::thread::sleep(Duration::from_millis(10));
            }
            slowest
        };
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(client)).collect();
        for _ in 0..20 {
            scenario::overflow_syns(&listener, 25).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        let slowest = clients.into_iter().map(|client| client.join().unwrap());
        slowest.max().unwrap_or_default()
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    println!("{answered} answered, {refused} refused, the slowest took {slowest:?}");
    assert!(answered > 20, "{answered} answered, {refused} refused");
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    let metrics = ledger.balanced(&agent);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 500)]);
    let memory = resident(agent.pid());
    // It peaks at 42 MB while it reads the kernel's type information.
    assert!(memory < 128 << 20, "{memory} bytes");
}

/// More connections than are served at once, which send a byte now and then: a scrape waits until
/// their time for headers is up, and the agent goes on counting meanwhile.
#[test]
fn a_slow_loris_holds_neither_scrapes_nor_counts() {
    require!(require::root());
    let agent = Agent::start(&[]);
    let ns = NetNs::new("loris").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let listener = Listener::builder(any(Family::V4))
        .backlog(2)
        .open(&ns)
        .unwrap();
    listener.fill().unwrap();
    let address = agent.address();
    let stop = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let loris = scope.spawn(|| {
            let mut held: Vec<TcpStream> = (0..100)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            for stream in &mut held {
                // The first have given way to the last.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
            }
            while !stop.load(Ordering::Relaxed) {
                for stream in &mut held {
                    // Those that were closed meanwhile fail; the others go on.
                    let _ = stream.write_all(b"a");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        scenario::overflow_syns(&listener, 30).unwrap();
        let (status, took) = ask(address).unwrap();
        assert_eq!(status, 200);
        stop.store(true, Ordering::Relaxed);
        loris.join().unwrap();
        took
    });
    println!("a scrape beside 100 slow connections took {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let metrics = ledger.balanced(&agent);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 30)]);
}

/// SIGHUP with a file that is taken and with one that is not, between drops: each is counted, once.
#[test]
fn a_reload_loses_no_count() {
    require!(require::root());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netobs.toml");
    std::fs::write(&path, "").unwrap();
    let agent = Agent::start(&["--config", path.to_str().unwrap()]);
    let ns = NetNs::new("reload").unwrap();
    let ledger = Ledger::from_birth(&ns);
    let listener = Listener::builder(any(Family::V4))
        .backlog(2)
        .open(&ns)
        .unwrap();
    listener.fill().unwrap();
    for (text, taken) in [
        ("[limits]\nmax_label_sets = \"many\"\n", 0.0),
        (
            "[limits]\nmax_label_sets = 500\n[log]\nlevel = \"warn\"\n",
            1.0,
        ),
        ("[limits]\nmax_label_sets = 0\n", 0.0),
    ] {
        scenario::overflow_syns(&listener, 7).unwrap();
        std::fs::write(&path, text).unwrap();
        agent.signal(Signal::SIGHUP);
        agent.scrape_until("the file to be read", |metrics| {
            metrics.get("netobs_config_last_reload_successful", &[]) == Some(taken)
        });
    }
    scenario::overflow_syns(&listener, 7).unwrap();
    let metrics = ledger.balanced(&agent);
    drops_are(&metrics, &listener, &[("syn", "accept_queue_full", 28)]);
}

/// Whenever SIGTERM comes, the agent ends soon: by the signal before it listens to it, else with
/// exit code 0.
#[test]
fn sigterm_while_it_starts_ends_it() {
    require!(require::root());
    for milliseconds in [0, 2, 5, 10, 20, 40, 80, 160, 320] {
        let mut all = vec!["run"];
        all.extend(LISTEN);
        let child = binary(&all)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let ended = wait_for(PATIENCE, "the agent to end", || Ok(child.try_wait()?));
        let Ok(status) = ended else {
            let _ = child.kill();
            panic!("SIGTERM after {milliseconds} ms does not end it");
        };
        let good = status.code() == Some(0) || status.signal() == Some(15);
        assert!(good, "after {milliseconds} ms: {status}");
    }
}

/// A log on a full disk is no reason to stop observing.
#[test]
fn a_log_that_cannot_be_written_harms_nothing() {
    require!(require::root());
    // The address cannot be read from the log.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let address = address.unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let listen = address.to_string();
    let mut child = binary(&["run", "--web.listen-address", &listen, "--log-level=trace"])
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let served = wait_until(PATIENCE, "an answer", || {
        Ok(ask(address).is_ok_and(|(status, _)| status == 200))
    });
    let pid = Pid::from_raw(child.id().cast_signed());
    let hung = kill(pid, Signal::SIGHUP);
    let again = ask(address);
    kill(pid, Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    served.unwrap();
    hung.unwrap();
    assert_eq!(again.unwrap().0, 200);
    assert_eq!(status.code(), Some(0), "{status}");
}
