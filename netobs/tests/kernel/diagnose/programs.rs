//! Real programs, ill and well. Not for guests: see [`crate::peers`].

mod host_only {
    use std::{fs, thread, time::Duration};

    use nix::sys::signal::Signal;
    use testbed::{Counters, Listener, NetNs, require, wait_until};

    use super::super::{Diagnosing, assert_says, finding, is_well, own};
    use crate::support::{
        PATIENCE,
        program::{Program, haproxy, nginx, run, wait_listening},
    };

    const LOAD: [&str; 4] = ["-t1", "-c100", "-d3", "http://127.0.0.1:88/"];

    #[test]
    fn nginx_with_a_small_backlog_overflows() {
        require!(
            require::root(),
            require::command("nginx"),
            require::command("wrk")
        );
        let ns = NetNs::new("dnginx").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = nginx(&ns, folder.path(), 2);
        let dropped = || Counters::read_in(&ns).unwrap().get("TcpExt", "ListenDrops");
        let diagnosing = Diagnosing::start(&ns);
        server.signal_children(Signal::SIGSTOP);
        let load = Program::start(&ns, "wrk", &LOAD);
        let overflowed = wait_until(PATIENCE, "an overflow", || Ok(dropped() > 0));
        server.signal_children(Signal::SIGCONT);
        overflowed.unwrap();
        load.ends();
        let (code, diagnosis) = diagnosing.ends();
        assert_eq!(code, 3);
        let found = finding(&diagnosis, "accept-queue-overflow");
        assert_eq!(found["process"], "nginx");
        assert_eq!(found["events"], dropped());
        assert_says(found, "of a limit of 2 ");
        assert_says(found, "port 88");
    }

    #[test]
    fn haproxys_health_checks_are_no_fault() {
        require!(require::root(), require::command("haproxy"));
        let ns = NetNs::new("dhaproxy").unwrap();
        let listener = Listener::builder("127.0.0.1:89".parse().unwrap());
        let listener = listener.open(&ns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let diagnosing = Diagnosing::start(&ns);
        let haproxy = haproxy(&ns, folder.path(), 200);
        wait_until(PATIENCE, "twelve checks", || {
            drop(listener.accept_all()?);
            Ok(Counters::read_in(&ns)?.get("Tcp", "OutRsts") >= 12)
        })
        .unwrap();
        drop(haproxy);
        let (code, diagnosis) = diagnosing.ends();
        is_well(code, &diagnosis);
    }

    #[test]
    fn a_busy_web_server_and_a_busy_resolver_are_well() {
        require!(
            require::root(),
            require::command("nginx"),
            require::command("wrk"),
            require::command("dnsmasq"),
            require::command("getent"),
            require::command("unshare")
        );
        let ns = NetNs::new("dwell").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = nginx(&ns, folder.path(), 511);
        let resolver = Program::start(
            &ns,
            "dnsmasq",
            &[
                "-k",
                "--no-resolv",
                "--no-hosts",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--address=/example/127.0.0.1",
                "--address=/example/::1",
                "--pid-file=",
                "--user=root",
            ],
        );
        wait_listening(&ns, 53);
        let file = folder.path().join("resolv.conf");
        fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let script = format!(
            "mount --bind {} /etc/resolv.conf && for n in $(seq 40); do getent hosts n$n.example; done",
            file.display()
        );
        let diagnosing = Diagnosing::start(&ns);
        // It leaves by resetting its connections: few enough, also where a slow machine makes few.
        let load = ["-t1", "-c4", "-d3", "http://127.0.0.1:88/"];
        let load = Program::start(&ns, "wrk", &load);
        run(&ns, "unshare", &["-m", "sh", "-c", &script]);
        load.ends();
        thread::sleep(Duration::from_millis(100));
        let (code, diagnosis) = diagnosing.ends();
        drop((server, resolver));
        is_well(code, &diagnosis);
        assert!(own(&diagnosis).is_empty());
        let well: Vec<_> = diagnosis["healthy"].as_array().unwrap().iter().collect();
        assert!(well.iter().any(|it| it["rule"] == "dns"), "{diagnosis:#}");
    }
}
