//! Faults on the way to an established connection.

use std::time::Duration;

use testbed::{Hook, Rule, require, rule::Select};

use crate::support::{Net, answer, command, failed, measure, run, serve_tcp, story, took};

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[test]
fn the_first_syn_is_lost() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("synloss");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    // The first of a thousand: the SYN. What is sent again comes through.
    let rule = Rule::drop_each(&net.server, Hook::Input, Select::To(server.port()), 1000).unwrap();
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    assert_eq!(rule.dropped().unwrap(), 1);
    assert_eq!(line["success"], true, "{line:#}");
    // The initial retransmission timeout of RFC 6298 is one second.
    took(&line, "connect", 1.0);
    assert_eq!(line["steps"][0]["connections"][0]["syns_sent"], 2);
    assert!(
        story(&line).contains("SYN sent 2 times, no answer to the first"),
        "{line:#}"
    );
    assert!(story(&line).contains("0 retransmissions after"), "{line:#}");
}

#[test]
fn nobody_answers_a_syn() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("synhole");
    let _rule = Rule::drop_all(&net.server, Hook::Input, Select::To(81)).unwrap();
    let target = net.at(81).to_string();
    let line = measure(&net.client, &[&target, "--timeout", "1500ms"]);
    failed(&line, "connect", "timed_out");
    took(&line, "connect", 1.5);
    assert!(
        story(&line).contains("SYN sent 2 times, no answer to any"),
        "{line:#}"
    );
}

#[test]
fn a_phase_has_a_limit_of_its_own() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("limit");
    let _rule = Rule::drop_all(&net.server, Hook::Input, Select::To(81)).unwrap();
    let target = net.at(81).to_string();
    let line = measure(&net.client, &[&target, "--phase-timeout", "connect=300ms"]);
    failed(&line, "connect", "timed_out");
    took(&line, "connect", 0.3);
}

#[test]
fn nobody_listens() {
    require!(require::root());
    let net = Net::new("refused");
    let target = net.at(81).to_string();
    let line = measure(&net.client, &[&target]);
    failed(&line, "connect", "refused");
    assert!(
        story(&line).contains("nobody listens on the port"),
        "{line:#}"
    );
}

#[test]
fn ipv6_without_a_route() {
    require!(require::root());
    let net = Net::new("noroute");
    let line = measure(&net.client, &["[2001:db8::1]:80"]);
    failed(&line, "connect", "net_unreachable");
    // Asked for the other family, an address says so before anything is sent.
    let line = measure(&net.client, &["10.9.9.9:80", "--ip-version", "6"]);
    failed(&line, "dns", "no_address");
}

/// A broken family shows, and does not hide behind the other.
#[test]
fn each_family_by_itself() {
    require!(require::root(), require::command("nft"));
    let net = Net::new("families");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    let given = [net.v4(), net.v6()].map(|address| format!("a.example={address}"));
    let url = format!("http://a.example:{}/", server.port());
    let args = [
        &url,
        "--resolve",
        &given[0],
        "--resolve",
        &given[1],
        "--ip-version",
        "both",
        "--json",
    ];
    let result = run(&net.client, command(&args));
    assert_eq!(result.code, Some(3));
    let lines = result.lines();
    let of = |version: &str| {
        let mut own = lines.iter().filter(|line| line["ip_version"] == version);
        own.next().unwrap().clone()
    };
    assert_eq!(of("4")["success"], true);
    failed(&of("6"), "connect", "refused");
    // `any` takes IPv6 first, says that it failed, and arrives.
    let line = measure(
        &net.client,
        &[&url, "--resolve", &given[0], "--resolve", &given[1]],
    );
    assert_eq!(line["success"], true);
    assert_eq!(line["steps"][0]["connections"].as_array().unwrap().len(), 2);
    assert!(story(&line).contains("refused by the host"), "{line:#}");
}

#[test]
fn many_measurements_are_summed_up_also_when_stopped() {
    require!(require::root());
    let net = Net::new("series");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, FINE));
    let target = server.to_string();
    let result = run(
        &net.client,
        command(&[&target, "--count", "3", "--interval", "10ms", "--json"]),
    );
    let lines = result.lines();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["kind"], "summary");
    assert_eq!(lines[3]["phases"]["connect"]["count"], 3);

    let mut endless = command(&[&target, "--count", "0", "--interval", "50ms"]);
    let child = net.client.run(|| endless.spawn()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("as expected") && text.contains("p95"),
        "{text}"
    );
    assert!(text.contains("slowest"), "{text}");
}
