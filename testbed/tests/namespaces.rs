//! Namespaces: isolated, reachable, and gone afterwards.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
};

use testbed::{Family, Link, NetNs, RawPeer, require};

fn mounted(name: &str) -> bool {
    fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .contains(name)
}

#[test]
fn a_namespace_is_its_own_and_leaves_nothing() {
    require!(require::root());
    let ns = NetNs::new("own").unwrap();
    let (name, path) = (ns.name().to_owned(), ns.path());
    let here = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let there = ns.run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino());
    assert_ne!(here, there);
    assert_eq!(u64::from(ns.inode()), there);
    assert_eq!(fs::metadata(&path).unwrap().ino(), there);
    assert!(mounted(&name));
    let devices = ns.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert_eq!(
        devices
            .lines()
            .skip(2)
            .filter(|line| !line.contains("lo:"))
            .count(),
        0,
        "{devices}"
    );
    drop(ns);
    assert!(!path.exists());
    assert!(!mounted(&name));
}

#[test]
fn loopback_works_and_sockets_outlive_the_closure() {
    require!(require::root());
    let ns = NetNs::new("lo").unwrap();
    let listener = ns.run(|| TcpListener::bind("[::1]:0").unwrap());
    let address = listener.local_addr().unwrap();
    let client = ns
        .spawn(move || TcpStream::connect(address).unwrap())
        .join()
        .unwrap();
    assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    assert!(
        TcpStream::connect(address).is_err(),
        "the port is not visible outside"
    );
}

#[test]
fn settings_are_the_namespaces_own() {
    require!(require::root());
    let (a, b) = (NetNs::new("set").unwrap(), NetNs::new("set").unwrap());
    a.sysctl("net.ipv4.tcp_syncookies", "0").unwrap();
    b.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
    assert_eq!(a.read_sysctl("net.ipv4.tcp_syncookies").unwrap(), "0");
    assert_eq!(b.read_sysctl("net.ipv4.tcp_syncookies").unwrap(), "2");
    assert!(a.sysctl("kernel.hostname", "x").is_err());
}

#[test]
fn a_panic_passes_through_and_leaves_nothing() {
    require!(require::root(), require::command("ip"), require::tun());
    let panic = std::panic::catch_unwind(|| {
        let a = NetNs::new("panic").unwrap();
        let b = NetNs::new("panic").unwrap();
        let _link = Link::veth(&a, &b).unwrap();
        let _peer = RawPeer::new(&a, Family::V4).unwrap();
        let names = [a.name().to_owned(), b.name().to_owned()];
        a.run(|| std::panic::resume_unwind(Box::new(names)));
    })
    .unwrap_err();
    for name in panic.downcast::<[String; 2]>().unwrap().iter() {
        assert!(!Path::new("/run/netns").join(name).exists());
        assert!(!mounted(name));
    }
}

#[test]
fn what_a_killed_run_left_is_swept() {
    require!(require::root());
    // Above the largest process id there can be (PID_MAX_LIMIT is 2^22).
    let stale = Path::new("/run/netns/netobstb-stale-4194305-0");
    fs::create_dir_all("/run/netns").unwrap();
    fs::write(stale, "").unwrap();
    let _ns = NetNs::new("sweeper").unwrap();
    assert!(!stale.exists());
}
