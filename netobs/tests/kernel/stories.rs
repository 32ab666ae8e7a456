//! The story of a connection, from both of its ends.

use std::time::Duration;

use testbed::{
    Counters, Family, Link, Listener, NetNs, connect_nonblocking, listener::abort, require,
    wait_until,
};

use crate::support::{Agent, PATIENCE};

#[test]
fn an_overflow_is_told_from_the_first_syn_to_the_reset() {
    require!(require::root(), require::command("ip"));
    let agent = Agent::shared();
    let (a, b) = (NetNs::new("sa").unwrap(), NetNs::new("sb").unwrap());
    let link = Link::veth(&a, &b).unwrap();
    let listener = Listener::builder(link.b.address(Family::V4, 87)).backlog(1);
    let listener = listener.open(&b).unwrap();
    let queued = listener.fill_from(&a, listener.address()).unwrap();
    let late = a.run(|| connect_nonblocking(listener.address()).unwrap());
    let client = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn>(
        std::os::fd::AsRawFd::as_raw_fd(&late),
    )
    .unwrap();
    // Its SYN is dropped at once, and again after a second.
    wait_until(PATIENCE, "two dropped SYNs", || {
        Ok(Counters::read_in(&b)?.get("TcpExt", "ListenDrops") == 2)
    })
    .unwrap();
    // Now there is room for the third.
    assert_eq!(listener.accept_all().unwrap().len(), 2);
    wait_until(PATIENCE, "the late connection", || {
        Ok(listener.queued()? == 1)
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(200)); // the acceptor takes its time
    let taken = listener.accept_all().unwrap();
    abort(late).unwrap();
    wait_until(PATIENCE, "the reset", || {
        Ok(taken[0].take_error()?.is_some())
    })
    .unwrap();

    let from = client.to_string();
    let mut last = String::new();
    wait_until(PATIENCE, "the whole story", || {
        let stories = agent.stories();
        let own = stories["stories"].as_array().unwrap().iter();
        let story = own
            .clone()
            .find(|story| story["client"]["address"] == from.as_str());
        last = story.map_or_else(
            || format!("none of {} is from {from}", own.count()),
            |story| story["text"].as_str().unwrap().to_owned(),
        );
        Ok(last.contains("reset by"))
    })
    .unwrap_or_else(|error| panic!("{error}: {last}"));
    println!("{last}");
    let to = listener.address();
    for part in [
        format!("connect from {from} ("),
        format!(") to {to} ("),
        "SYN retransmitted 2 times".to_owned(),
        // At both, or at one where a busy machine looked too late to see the other.
        format!("the accept queue of {to} full at "),
        "connected after ".to_owned(),
        "after the first SYN (".to_owned(),
        "reset by the client, whose process ended it hard".to_owned(),
        "in ESTABLISHED".to_owned(),
    ] {
        assert!(last.contains(&part), "{part:?} is not in {last:?}");
    }
    drop(queued);
}
