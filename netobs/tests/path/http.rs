//! Servers that are silent, slow, endless, or lead nowhere.

use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use testbed::require;

use crate::support::{
    Net, answer, command, failed, measure, read_head, run, serve_tcp, story, took,
};

fn until_stopped(stop: &AtomicBool, mut each: impl FnMut() -> bool, pause: Duration) {
    while !stop.load(Ordering::Relaxed) && each() {
        std::thread::sleep(pause);
    }
}

fn reset(stream: &TcpStream) {
    let linger = socket2::SockRef::from(stream);
    linger.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_server_that_accepts_and_stays_silent() {
    require!(require::root());
    let net = Net::new("silent");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |_stream, stop| {
        until_stopped(stop, || true, Duration::from_millis(20));
    });
    let url = format!("http://{server}/");
    let line = measure(&net.client, &[&url, "--timeout", "1s"]);
    failed(&line, "first_byte", "timed_out");
    took(&line, "first_byte", 1.0);
    assert!(line["phases"]["transfer"].is_null());
}

#[test]
fn a_server_that_thinks_before_it_answers() {
    require!(require::root());
    let net = Net::new("thinks");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, _| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(1));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
        std::thread::sleep(Duration::from_secs(2));
        let _ = stream.write_all(b"hi");
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    assert_eq!(line["success"], true, "{line:#}");
    took(&line, "first_byte", 1.0);
    took(&line, "transfer", 2.0);
    took(&line, "total", 3.0);
    assert_eq!(line["steps"][0]["http"]["body_bytes"], 2);
}

#[test]
fn a_byte_at_a_time() {
    require!(require::root());
    let net = Net::new("dribble");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        let each = || stream.write_all(b"x").is_ok();
        until_stopped(stop, each, Duration::from_millis(100));
    });
    let url = format!("http://{server}/");
    let line = measure(&net.client, &[&url, "--phase-timeout", "transfer=1s"]);
    failed(&line, "transfer", "timed_out");
    took(&line, "transfer", 1.0);
    assert!(story(&line).contains("bytes came"), "{line:#}");
}

#[test]
fn a_head_at_a_byte_a_second() {
    require!(require::root());
    let net = Net::new("dribhead");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        read_head(&mut stream);
        let mut bytes = b"HTTP/1.1 200 OK\r\n".iter();
        let each = || {
            bytes
                .next()
                .is_some_and(|byte| stream.write_all(&[*byte]).is_ok())
        };
        until_stopped(stop, each, Duration::from_secs(1));
    });
    let url = format!("http://{server}/");
    let line = measure(&net.client, &[&url, "--timeout", "2500ms"]);
    failed(&line, "transfer", "timed_out");
    took(&line, "first_byte", 0.0);
    took(&line, "total", 2.5);
    assert!(story(&line).contains("3 bytes came"), "{line:#}");
}

/// Answers before the answer, for ever.
#[test]
fn an_answer_that_is_always_to_come() {
    require!(require::root());
    let net = Net::new("interim");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        read_head(&mut stream);
        let each = || {
            let many = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(500);
            stream.write_all(&many).is_ok()
        };
        until_stopped(stop, each, Duration::ZERO);
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "transfer", "header_too_large");
    assert!(story(&line).contains("no end of them"), "{line:#}");
}

#[test]
fn an_endless_head() {
    require!(require::root());
    let net = Net::new("endless");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        let each = || stream.write_all(&[b'y'; 4096]).is_ok();
        until_stopped(stop, each, Duration::ZERO);
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "transfer", "header_too_large");
}

#[test]
fn what_is_no_http() {
    require!(require::root());
    let net = Net::new("nohttp");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| {
        answer(stream, "220 hello\r\n\r\n");
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "transfer", "bad_response");
}

#[test]
fn a_reset_after_the_request() {
    require!(require::root());
    let net = Net::new("reset");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, _| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(500));
        reset(&stream);
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "first_byte", "reset");
    took(&line, "first_byte", 0.5);
    assert!(story(&line).starts_with("reset by the peer 5"), "{line:#}");
    assert!(story(&line).contains("ms after the request"), "{line:#}");
}

#[test]
fn an_end_before_the_end() {
    require!(require::root());
    let net = Net::new("short");
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi";
    let (server, _serving) = serve_tcp(&net.server, net.at(0), move |stream, _| {
        answer(stream, text);
    });
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "transfer", "closed");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, ""));
    let line = measure(&net.client, &[&format!("http://{server}/")]);
    failed(&line, "first_byte", "closed");
}

#[test]
fn redirects() {
    require!(require::root());
    let net = Net::new("redirect");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, _| {
        let mut head = [0; 2048];
        let length = std::io::Read::read(&mut stream, &mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        let to = |place: &str| format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\n\r\n");
        let path = head.split(' ').nth(1).unwrap_or_default();
        let text = match path {
            "/once" => to("/fine"),
            "/loop" => to("/pool"),
            "/pool" => to("loop"),
            "/far" => to(&format!("{path}r")),
            "/gopher" => to("gopher://a.example/"),
            other if other.starts_with("/far") => to(&format!("{other}r")),
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        let _ = stream.write_all(text.as_bytes());
    });
    let url = |path: &str| format!("http://{server}/{path}");
    let line = measure(&net.client, &[&url("once")]);
    assert_eq!(line["success"], true, "{line:#}");
    assert_eq!(line["steps"].as_array().unwrap().len(), 2);
    assert!(story(&line).contains("redirected 1 time"), "{line:#}");
    let table = [
        ("loop", "redirect_loop"),
        ("far", "too_many_redirects"),
        ("gopher", "bad_redirect"),
    ];
    for (path, error_type) in table {
        failed(
            &measure(&net.client, &[&url(path)]),
            "first_byte",
            error_type,
        );
    }
    let line = measure(&net.client, &[&url("loop"), "--max-redirects", "0"]);
    assert_eq!(line["success"], true, "{line:#}");
    let args = [&url("once"), "--expect-status", "404"];
    failed(
        &measure(&net.client, &args),
        "first_byte",
        "unexpected_status",
    );
}

/// A secret of the first server is not for others that it names.
#[test]
fn header_fields_stay_with_the_first_host() {
    require!(require::root());
    let net = Net::new("secret");
    let (sender, heads) = std::sync::mpsc::channel();
    let (other, _second) = serve_tcp(&net.server, net.at(0), move |mut stream, _| {
        let mut head = vec![0; 2048];
        let length = std::io::Read::read(&mut stream, &mut head).unwrap_or(0);
        sender
            .send(String::from_utf8_lossy(&head[..length]).into_owned())
            .unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let text = format!("HTTP/1.1 307 x\r\nlocation: http://{other}/\r\n\r\n");
    let (server, _first) = serve_tcp(&net.server, net.at(0), move |stream, _| {
        answer(stream, &text);
    });
    let url = format!("http://{server}/");
    let line = measure(&net.client, &[&url, "--header", "authorization: s3cret"]);
    assert_eq!(line["success"], true, "{line:#}");
    assert!(!line.to_string().contains("s3cret"));
    for _ in 0..1 {
        let head = heads.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(!head.contains("s3cret"), "{head}");
        assert!(head.contains("user-agent: netobs/"), "{head}");
    }
}

#[test]
fn a_body_is_read_up_to_the_limit() {
    require!(require::root());
    let net = Net::new("limit");
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |mut stream, stop| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        let each = || stream.write_all(&[b'y'; 65_536]).is_ok();
        until_stopped(stop, each, Duration::ZERO);
    });
    let url = format!("http://{server}/");
    let line = measure(&net.client, &[&url, "--body-limit", "100000"]);
    assert_eq!(line["success"], true, "{line:#}");
    assert_eq!(line["steps"][0]["http"]["body_cut"], true);
}

/// What the network says cannot move the terminal's cursor.
#[test]
fn text_from_the_network_is_escaped() {
    require!(require::root());
    let net = Net::new("escape");
    let text = "HTTP/1.1 302 x\r\nlocation: gopher://\u{1b}[31m/\r\n\r\n";
    let (server, _serving) = serve_tcp(&net.server, net.at(0), |stream, _| answer(stream, text));
    let url = format!("http://{server}/");
    for args in [&[&*url][..], &[&url, "--count", "2", "--interval", "1ms"]] {
        let result = run(&net.client, command(args));
        assert!(!result.stdout.contains('\u{1b}'), "{:?}", result.stdout);
        assert_eq!(result.code, Some(3), "{}", result.stdout);
    }
}
