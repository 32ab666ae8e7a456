//! Real programs at either end: nginx under wrk, haproxy's health checks, clients in Python and C.
//!
//! Not for guests: what these programs do to the kernel does not depend on it, and an emulated
//! machine has no room for them.

mod host_only {
    use std::{fs, path::Path};

    use nix::sys::signal::Signal;
    use testbed::{Counters, Family, Listener, NetNs, require, wait_until};

    use crate::support::{
        Agent, Ledger, PATIENCE, any,
        books::DROPS,
        metrics::Labels,
        program::{Program, haproxy, nginx, run},
    };

    const ACCEPTS: &str = "netobs_tcp_accepts_total";
    const CONNECTS: &str = "netobs_tcp_connects_total";
    const FAILURES: &str = "netobs_tcp_connect_failures_total";
    const RESETS: &str = "netobs_tcp_resets_total";
    const WAITS: &str = "netobs_tcp_accept_latency_seconds_count";

    #[test]
    fn nginx_with_a_small_backlog_under_wrk() {
        require!(
            require::root(),
            require::command("nginx"),
            require::command("wrk")
        );
        let agent = Agent::shared();
        let ns = NetNs::new("nginx").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = nginx(&ns, folder.path(), 2);
        let netns = ns.inode();
        let kernel = |group: &str, name: &str| Counters::read_in(&ns).unwrap().get(group, name);
        // Workers that are held up until the queue has overflowed: a quick machine's would keep up.
        server.signal_children(Signal::SIGSTOP);
        let load = Program::start(&ns, "wrk", &["-t1", "-c100", "-d3", "http://127.0.0.1:88/"]);
        let overflowed = wait_until(PATIENCE, "an overflow", || {
            Ok(kernel("TcpExt", "ListenDrops") > 0)
        });
        server.signal_children(Signal::SIGCONT);
        overflowed.unwrap();
        load.ends();
        drop(server);
        let drops = kernel("TcpExt", "ListenDrops");
        let metrics = Ledger::from_birth(&ns).balanced(agent);
        let server: Labels<'_> = &[
            ("netns", &netns),
            ("process", &"nginx"),
            ("local_port", &88),
        ];
        assert_eq!(metrics.sum(DROPS, server), drops);
        // Accepted by the workers, counted for the listener that the master opened.
        let accepted = metrics.sum(ACCEPTS, server);
        let opened = kernel("Tcp", "PassiveOpens");
        assert!(accepted > 0 && accepted <= opened, "{accepted} of {opened}");
        assert!(metrics.sum(WAITS, server) <= accepted);
        let client: Labels<'_> = &[("netns", &netns), ("process", &"wrk"), ("port", &88)];
        assert!(metrics.sum(CONNECTS, client) >= accepted);
        assert_eq!(crate::support::books::lost(&metrics), 0);
    }

    #[test]
    fn haproxys_health_checks_abort_with_a_reset() {
        require!(require::root(), require::command("haproxy"));
        let agent = Agent::shared();
        let ns = NetNs::new("haproxy").unwrap();
        let listener = Listener::builder("127.0.0.1:89".parse().unwrap());
        let listener = listener.open(&ns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let haproxy = haproxy(&ns, folder.path(), 100);
        wait_until(PATIENCE, "five checks", || {
            drop(listener.accept_all()?);
            Ok(Counters::read_in(&ns)?.get("Tcp", "OutRsts") >= 5)
        })
        .unwrap();
        drop(haproxy);
        let netns = ns.inode();
        let out = Counters::read_in(&ns).unwrap().get("Tcp", "OutRsts");
        let sent: Labels<'_> = &[
            ("netns", &netns),
            ("direction", &"sent"),
            ("role", &"client"),
            ("process", &"haproxy"),
            ("port", &89),
        ];
        let metrics = agent.scrape_until("the resets of the checks", |metrics| {
            metrics.sum(RESETS, sent) >= out
        });
        assert_eq!(metrics.sum(RESETS, sent), out, "{}", metrics.text);
    }

    const PYTHON: &str = "
import array, os, socket, sys
sys.stdin.close()
port = int(sys.argv[1])
for _ in range(3):
    socket.create_connection(('127.0.0.1', port)).close()
try:
    socket.create_connection(('127.0.0.1', 9))
except ConnectionRefusedError:
    pass
";

    const C: &str = "
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int n, char **arguments) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    struct linger now = {1, 0};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* Renamed before its first connection, and again before it ends. */
    prctl(PR_SET_NAME, \"renamed\", 0, 0, 0);
    for (int i = 0; i < 4; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) return 1;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        if (i == 3) prctl(PR_SET_NAME, \"another\", 0, 0, 0);
        close(fd);
    }
    return 0;
}
";

    #[test]
    fn a_python_and_a_c_client_are_known_by_name() {
        require!(
            require::root(),
            require::command("python3"),
            require::command("cc")
        );
        let agent = Agent::shared();
        let ns = NetNs::new("clients").unwrap();
        let listener = Listener::builder(any(Family::V4)).open(&ns).unwrap();
        let port = listener.port().to_string();
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("c.c"), folder.path().join("cclient"));
        fs::write(&source, C).unwrap();
        let [source, program] = [&source, &program].map(|path| path.to_str().unwrap());
        run(&ns, "cc", &["-o", program, source]);
        run(&ns, program, &[&port]);
        let python = run(&ns, "python3", &["-c", "import sys; print(sys.executable)"]);
        run(&ns, python.trim_end(), &["-c", PYTHON, &port]);
        let netns = ns.inode();
        let comm = Path::new(python.trim_end()).file_name().unwrap();
        let comm = comm.to_str().unwrap();
        let of = |process: &str, metrics: &crate::support::Metrics, family: &str| {
            metrics.sum(family, &[("netns", &netns), ("process", &process)])
        };
        let metrics = agent.scrape_until("both clients", |metrics| {
            of("renamed", metrics, CONNECTS) == 4 && of(comm, metrics, CONNECTS) == 3
        });
        assert_eq!(of(comm, &metrics, FAILURES), 1, "{}", metrics.text);
        // The name that it had when it connected.
        let aborted: Labels<'_> = &[
            ("netns", &netns),
            ("process", &"renamed"),
            ("direction", &"sent"),
            ("role", &"client"),
        ];
        assert_eq!(metrics.sum(RESETS, aborted), 4, "{}", metrics.text);
        assert_eq!(of("another", &metrics, CONNECTS), 0);
    }

    const PASSING: &str = "
import array, os, socket, sys
ours, theirs = socket.socketpair()
listener = socket.create_server(('127.0.0.1', 91))
pid = os.fork()
if pid == 0:
    open('/proc/self/comm', 'w').write('acceptor')
    socket.send_fds(theirs, [b'x'], [listener.fileno()])
    _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    passed = socket.socket(fileno=fds[0])
    for _ in range(3):
        passed.accept()[0].close()
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
socket.send_fds(ours, [b'x'], fds)
listener.close()
for _ in range(3):
    socket.create_connection(('127.0.0.1', 91)).close()
os.waitpid(pid, 0)
";

    #[test]
    fn a_listener_passed_to_another_process_counts_for_who_opened_it() {
        require!(require::root(), require::command("python3"));
        let agent = Agent::shared();
        let ns = NetNs::new("passed").unwrap();
        let python = run(&ns, "python3", &["-c", "import sys; print(sys.executable)"]);
        run(&ns, python.trim_end(), &["-c", PASSING]);
        let netns = ns.inode();
        let labels: Labels<'_> = &[("netns", &netns), ("local_port", &91)];
        let metrics =
            agent.scrape_until("three accepts", |metrics| metrics.sum(ACCEPTS, labels) == 3);
        assert_eq!(metrics.sum(WAITS, labels), 3, "{}", metrics.text);
        let comm = Path::new(python.trim_end()).file_name().unwrap();
        let opener: Labels<'_> = &[
            ("netns", &netns),
            ("local_port", &91),
            ("process", &comm.to_str().unwrap()),
        ];
        assert_eq!(metrics.sum(ACCEPTS, opener), 3, "{}", metrics.text);
    }
}
