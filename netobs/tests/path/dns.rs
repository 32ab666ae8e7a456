//! Name servers that are late, dead, ignorant, or lie.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, rdata},
};
use testbed::require;

use crate::support::{
    Net, Server, failed, measure, serve_tcp, serve_udp, story, took, wait_listening,
};

/// dnsmasq with what a test wants it to know.
pub(crate) fn dnsmasq(net: &Net, address: SocketAddr, args: &[&str]) -> Server {
    let mut command = Command::new("dnsmasq");
    command
        .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv"])
        .args([
            "--no-hosts",
            "--bind-interfaces",
            "--log-facility=/dev/null",
        ])
        .arg(format!("--listen-address={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .args(args)
        .stderr(Stdio::null());
    let server = Server::start(&net.server, &mut command);
    wait_listening(&net.server, address);
    server
}

/// unbound, which asks `upstream` about everything.
fn unbound(net: &Net, folder: &Path, address: SocketAddr, upstream: SocketAddr) -> Server {
    let text = format!(
        "server:\n interface: {}@{}\n access-control: 0.0.0.0/0 allow\n do-daemonize: no\n \
         username: \"\"\n chroot: \"\"\n directory: \"{folder}\"\n pidfile: \"\"\n \
         use-syslog: no\n logfile: \"/dev/null\"\n module-config: \"iterator\"\n \
         do-not-query-localhost: no\n num-threads: 1\n\
         forward-zone:\n name: \".\"\n forward-addr: {}@{}\n",
        address.ip(),
        address.port(),
        upstream.ip(),
        upstream.port(),
        folder = folder.display(),
    );
    let file = folder.join("unbound.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("unbound");
    command.args(["-d", "-c"]).arg(&file).stderr(Stdio::null());
    let server = Server::start(&net.server, &mut command);
    wait_listening(&net.server, address);
    server
}

fn address_of(message: &Message, last: u8) -> Record {
    let name = message.queries.first().unwrap().name().clone();
    Record::from_rdata(name, 60, RData::A(rdata::A::new(10, 1, 2, last)))
}

/// A server that makes of a question what `change` makes of its answer.
fn liar(
    net: &Net,
    port: u16,
    change: impl Fn(&mut Message) + Send + 'static,
) -> crate::support::Thread {
    serve_udp(&net.server, net.at(port), move |bytes| {
        let mut message = Message::from_vec(bytes).unwrap();
        message.metadata.message_type = MessageType::Response;
        change(&mut message);
        vec![message.to_vec().unwrap()]
    })
}

#[test]
fn a_server_that_answers() {
    require!(require::root(), require::command("dnsmasq"));
    let net = Net::new("dnsfine");
    let at = net.at(53);
    let _server = dnsmasq(&net, at, &["--address=/a.example/10.1.2.3"]);
    let line = measure(&net.client, &["dns:a.example", "--server", &at.to_string()]);
    assert_eq!(line["success"], true, "{line:#}");
    assert_eq!(line["steps"][0]["lookup"]["records"][0], "10.1.2.3");
    assert_eq!(
        line["steps"][0]["lookup"]["queries"][0]["outcome"],
        "answered"
    );
}

#[test]
fn the_first_server_is_dead_and_the_second_answers() {
    require!(require::root(), require::command("dnsmasq"));
    let net = Net::new("dnsdead");
    let (dead, alive) = (net.at(5301), net.at(53));
    let _silent = serve_udp(&net.server, dead, |_| Vec::new());
    let _server = dnsmasq(&net, alive, &["--address=/a.example/10.1.2.3"]);
    let (dead, alive) = (dead.to_string(), alive.to_string());
    let args = ["dns:a.example", "--server", &dead, "--server", &alive];
    let line = measure(&net.client, &args);
    assert_eq!(line["success"], true, "{line:#}");
    // glibc's patience with the first server.
    took(&line, "dns", 5.0);
    let queries = &line["steps"][0]["lookup"]["queries"];
    assert_eq!(queries[0]["outcome"], "no_answer");
    assert_eq!(queries[1]["outcome"], "answered");
    assert!(
        story(&line).contains("no answer from the first server"),
        "{line:#}"
    );
    assert!(story(&line).contains("the second"), "{line:#}");
}

#[test]
fn a_server_that_is_late() {
    require!(require::root());
    let net = Net::new("dnslate");
    let _late = liar(&net, 53, |message| {
        std::thread::sleep(Duration::from_millis(1500));
        message.metadata.response_code = ResponseCode::NXDomain;
    });
    let server = net.at(53).to_string();
    let args = ["dns:a.example", "--server", &server];
    let line = measure(&net.client, &args);
    failed(&line, "dns", "no_such_name");
    took(&line, "dns", 1.5);
    // The same answer may be what is wanted.
    let line = measure(
        &net.client,
        &[&args[..], &["--expect-code", "nxdomain"]].concat(),
    );
    assert_eq!(line["success"], true, "{line:#}");
}

/// A real server in front of one that takes its time: late with the first answer, quick when it
/// knows it.
#[test]
fn a_real_server_that_waits_for_another() {
    require!(require::root(), require::command("dnsmasq"));
    let net = Net::new("dnswaits");
    let slow = net.at(5399);
    let _slow = liar(&net, slow.port(), |message| {
        std::thread::sleep(Duration::from_millis(1200));
        let record = address_of(message, 3);
        message.add_answer(record);
    });
    let at = net.at(53);
    let upstream = format!("--server={}#{}", slow.ip(), slow.port());
    let _dnsmasq = dnsmasq(&net, at, &[&upstream]);
    let server = at.to_string();
    for planted in [1.2, 0.0] {
        let line = measure(&net.client, &["dns:a.example", "--server", &server]);
        assert_eq!(line["success"], true, "{line:#}");
        took(&line, "dns", planted);
        assert_eq!(line["steps"][0]["lookup"]["records"][0], "10.1.2.3");
    }
}

/// A real server in front of one that never answers: it is alive, and of no use.
#[test]
fn a_real_server_whose_own_is_dead() {
    require!(require::root(), require::command("unbound"));
    let net = Net::new("dnsbehind");
    let folder = tempfile::tempdir().unwrap();
    let _silent = serve_udp(&net.server, net.at(5399), |_| Vec::new());
    let at = net.at(53);
    let _unbound = unbound(&net, folder.path(), at, net.at(5399));
    let server = at.to_string();
    let args = ["http://a.example./", "--server", &server, "--timeout", "2s"];
    let line = measure(&net.client, &args);
    failed(&line, "dns", "timed_out");
    took(&line, "dns", 2.0);
}

/// What cannot be asked for is not asked, and what a server says of a name it was not asked for is
/// not believed.
#[test]
fn names_that_no_server_can_resolve() {
    require!(require::root());
    let net = Net::new("dnsnames");
    let at = net.at(53).to_string();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&asked);
    let _server = serve_udp(&net.server, net.at(53), move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Vec::new()
    });
    let label = "a".repeat(64);
    let long = format!("{}a", "a2345678.".repeat(29));
    for name in [&*label, &*long] {
        let line = measure(
            &net.client,
            &[
                &format!("http://{name}./"),
                "--server",
                &at,
                "--timeout",
                "1s",
            ],
        );
        failed(&line, "dns", "no_such_name");
        took(&line, "dns", 0.0);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
    let _other = liar(&net, 5301, |message| {
        let mut record = address_of(message, 3);
        record.name = Name::from_utf8("b.example.").unwrap();
        message.add_answer(record);
    });
    // A name that stands for itself.
    let _circle = liar(&net, 5302, |message| {
        let name = message.queries.first().unwrap().name().clone();
        let alias = RData::CNAME(rdata::CNAME(name.clone()));
        message.add_answer(Record::from_rdata(name, 60, alias));
    });
    for port in [5301, 5302] {
        let server = net.at(port).to_string();
        let line = measure(&net.client, &["http://a.example./", "--server", &server]);
        failed(&line, "dns", "no_address");
    }
}

#[test]
fn names_that_do_not_exist() {
    require!(require::root(), require::command("dnsmasq"));
    let net = Net::new("dnsnx");
    let at = net.at(53);
    // NXDOMAIN for everything in the zone that is not known; one name has an IPv4 address alone.
    let _server = dnsmasq(
        &net,
        at,
        &["--local=/example/", "--host-record=a.example,10.1.2.3"],
    );
    let server = at.to_string();
    let line = measure(&net.client, &["http://b.example./", "--server", &server]);
    failed(&line, "dns", "no_such_name");
    let args = [
        "http://a.example./",
        "--server",
        &server,
        "--ip-version",
        "6",
    ];
    let line = measure(&net.client, &args);
    failed(&line, "dns", "no_address");
    assert!(story(&line).contains("no IPv6 address"), "{line:#}");
}

#[test]
fn nobody_ever_answers() {
    require!(require::root());
    let net = Net::new("dnsmute");
    let _silent = serve_udp(&net.server, net.at(53), |_| Vec::new());
    let server = net.at(53).to_string();
    let args = ["http://a.example./", "--server", &server, "--timeout", "2s"];
    let line = measure(&net.client, &args);
    failed(&line, "dns", "timed_out");
    took(&line, "dns", 2.0);
    assert!(story(&line).contains("no answer from"), "{line:#}");
}

#[test]
fn nobody_listens_for_questions() {
    require!(require::root());
    let net = Net::new("dnsnone");
    let server = net.at(53).to_string();
    let line = measure(&net.client, &["http://a.example./", "--server", &server]);
    failed(&line, "dns", "refused");
    assert!(story(&line).contains("nobody listens"), "{line:#}");
}

#[test]
fn answers_to_other_questions_are_not_taken() {
    require!(require::root());
    let net = Net::new("dnslies");
    let _wrong_id = liar(&net, 5301, |message| message.metadata.id ^= 1);
    let _garbage = serve_udp(&net.server, net.at(5302), |_| vec![b"garbage".to_vec(); 3]);
    let _other_name = liar(&net, 5303, |message| {
        let name = Name::from_utf8("b.example.").unwrap();
        message.queries.first_mut().unwrap().set_name(name);
    });
    for (port, strange) in [(5301, 1), (5302, 3), (5303, 1)] {
        let server = net.at(port).to_string();
        let args = ["dns:a.example", "--server", &server, "--timeout", "1s"];
        let line = measure(&net.client, &args);
        failed(&line, "dns", "bad_answer");
        took(&line, "dns", 1.0);
        let query = &line["steps"][0]["lookup"]["queries"][0];
        assert_eq!(query["strange_answers"], strange);
        assert!(story(&line).contains("answered something else"), "{line:#}");
    }
}

/// Whoever sends more than anybody reads is given up, long before the time is over.
#[test]
fn a_flood_of_answers_ends() {
    require!(require::root());
    let net = Net::new("dnsflood");
    let _flood = serve_udp(&net.server, net.at(53), |_| vec![vec![0xff; 12]; 5000]);
    let server = net.at(53).to_string();
    let line = measure(&net.client, &["dns:a.example", "--server", &server]);
    failed(&line, "dns", "bad_answer");
    let total = line["phases"]["total"].as_f64().unwrap();
    assert!(total < 10.5, "{line:#}");
}

#[test]
fn servers_that_cannot_or_will_not_find_out() {
    require!(require::root());
    let net = Net::new("dnsfail");
    let codes = [
        (5301, ResponseCode::ServFail, "server_failure"),
        (5302, ResponseCode::Refused, "refused"),
    ];
    for (port, code, error_type) in codes {
        let _server = liar(&net, port, move |message| {
            message.metadata.response_code = code;
        });
        let server = net.at(port).to_string();
        let line = measure(&net.client, &["http://a.example./", "--server", &server]);
        failed(&line, "dns", error_type);
    }
}

/// An answer cut short is asked for again over TCP.
#[test]
fn a_long_answer_comes_over_tcp() {
    require!(require::root());
    let net = Net::new("dnstcp");
    let _cut = liar(&net, 53, |message| message.metadata.truncation = true);
    let (_, _whole) = serve_tcp(&net.server, net.at(53), |mut stream, _| {
        use std::io::{Read, Write};
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question).unwrap();
        let mut message = Message::from_vec(&question).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = ResponseCode::NXDomain;
        let answer = message.to_vec().unwrap();
        let length = u16::try_from(answer.len()).unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let server = net.at(53).to_string();
    let line = measure(
        &net.client,
        &[
            "dns:a.example",
            "--server",
            &server,
            "--expect-code",
            "NXDOMAIN",
        ],
    );
    assert_eq!(line["success"], true, "{line:#}");
    let queries = &line["steps"][0]["lookup"]["queries"];
    assert_eq!(queries[0]["outcome"], "truncated");
    assert_eq!(queries[1]["transport"], "tcp");
}
