//! Name servers that are dead, slow or failing.

use std::{fs, net::UdpSocket, thread, time::Duration};

use testbed::{
    NetNs,
    dns::{self, NameServer},
    require, wait_until,
};

use super::{Diagnosing, assert_says, comm, finding};
use crate::support::{PATIENCE, program::Program};

#[test]
fn a_dead_resolver_is_found_with_who_asked_and_for_what() {
    require!(
        require::root(),
        require::command("getent"),
        require::command("unshare")
    );
    let ns = NetNs::new("dnsdead").unwrap();
    // It takes queries and says nothing.
    let server = NameServer::open(&ns, "127.0.0.1".parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(
        &file,
        "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n",
    )
    .unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec getent hosts never.example",
        file.display()
    );
    let diagnosing = Diagnosing::start(&ns);
    let _asking: Vec<Program> = (0..4)
        .map(|_| Program::start(&ns, "unshare", &["-m", "sh", "-c", &script]))
        .collect();
    wait_until(PATIENCE, "four queries", || Ok(server.queries() >= 4)).unwrap();
    // A lookup is given up after five seconds.
    thread::sleep(Duration::from_secs(6));
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "dns-unanswered");
    assert!(server.queries() >= 4);
    assert!(found["events"].as_u64().unwrap() >= 4, "{found:#}");
    assert_eq!(found["process"], "getent");
    assert_eq!(found["netns"], ns.inode());
    assert_says(found, "server 127.0.0.1: ");
    assert_says(found, "never.example A");
    assert_says(found, "one name server does not answer");
}

fn client(ns: &NetNs, server: &NameServer) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    socket.connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).unwrap();
}

#[test]
fn a_slow_resolver_is_found() {
    require!(require::root());
    let ns = NetNs::new("dnsslow").unwrap();
    let server = NameServer::open(&ns, "127.0.0.1".parse().unwrap()).unwrap();
    let socket = client(&ns, &server);
    let diagnosing = Diagnosing::start(&ns);
    for id in 0..8 {
        socket.send(&dns::query(id, "late.example", 28)).unwrap();
    }
    wait_until(PATIENCE, "eight queries", || Ok(server.queries() == 8)).unwrap();
    thread::sleep(Duration::from_millis(800));
    assert_eq!(server.release().unwrap(), 8);
    (0..8).for_each(|_| receive(&socket));
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "dns-slow");
    assert_eq!(found["events"], 8);
    assert_eq!(found["process"], comm().as_str());
    assert_says(found, "late.example AAAA (8 times)");
}

#[test]
fn a_resolver_that_fails_is_found() {
    require!(require::root());
    let ns = NetNs::new("dnsfail").unwrap();
    let server = NameServer::open(&ns, "127.0.0.1".parse().unwrap()).unwrap();
    let socket = client(&ns, &server);
    let diagnosing = Diagnosing::start(&ns);
    for id in 0..6 {
        socket.send(&dns::query(id, "servfail.example", 1)).unwrap();
        receive(&socket);
    }
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "dns-failing");
    assert_eq!(found["events"], 6);
    assert_says(found, "servfail.example A (SERVFAIL)");
}
