//! Settings that undo each other.

use std::net::TcpStream;

use testbed::{Listener, NetNs, require};

use super::{Diagnosing, assert_says, finding, own};

#[test]
fn settings_that_contradict_are_told_where_connections_are_made() {
    require!(require::root());
    let (busy, idle) = (NetNs::new("contra").unwrap(), NetNs::new("idle").unwrap());
    for ns in [&busy, &idle] {
        ns.sysctl("net.ipv4.tcp_tw_reuse", "1").unwrap();
        ns.sysctl("net.ipv4.tcp_timestamps", "0").unwrap();
    }
    let listener = Listener::builder("127.0.0.1:0".parse().unwrap());
    let listener = listener.open(&busy).unwrap();
    let diagnosing = Diagnosing::start(&busy);
    let client = busy.run(|| TcpStream::connect(listener.address()).unwrap());
    let (code, diagnosis) = diagnosing.ends();
    assert_eq!(code, 3);
    let found = finding(&diagnosis, "settings-contradict");
    assert_eq!(found["netns"], busy.inode());
    assert_says(
        found,
        "tcp_tw_reuse=1 does nothing while time stamps are off",
    );
    drop(client);

    let (_, diagnosis) = Diagnosing::start(&idle).ends();
    assert!(own(&diagnosis).is_empty(), "{diagnosis:#}");
}
