//! A connection to a host by name, for the rooms that talk to somebody and measure nothing.
//!
//! The name is looked up as a probe would. The C library's `getaddrinfo` would do it, too; linked
//! statically it brings 160 KB, and what `/etc/nsswitch.conf` names it loads from libraries of the
//! version that it was linked with, which few machines and no container from scratch have.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    cause::ErrorType,
    course::Course,
    kernel::NoKernel,
    outcome::{Failure, Lookup},
    plan::Plan,
    resolver::{self, Files},
    target::{Host, Target},
};

/// Connects to the first address of `host`, an address or a name, that answers.
///
/// # Errors
/// When the name has no address, nobody answers at any, or `within` has passed.
pub async fn connect_to(
    host: &str,
    port: u16,
    files: &Files,
    within: Duration,
) -> io::Result<TcpStream> {
    let started = Instant::now();
    let course = Course {
        started,
        deadline: started.checked_add(within).unwrap_or(started),
        files,
        kernel: &NoKernel,
    };
    let host = match host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(host.to_owned()),
    };
    let plan = Plan::new(Target::Port {
        host: host.clone(),
        port,
        tls: false,
    });
    let mut lookup = Lookup::default();
    resolver::addresses(&course, &plan, &host, &mut lookup, course.deadline)
        .await
        .map_err(unknown)?;
    let addresses = lookup.addresses.iter();
    let addresses: Vec<SocketAddr> = addresses.map(|it| SocketAddr::new(*it, port)).collect();
    timeout_at(course.deadline, TcpStream::connect(addresses.as_slice()))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn unknown(failure: Failure) -> io::Error {
    let kind = match failure.error_type {
        ErrorType::TimedOut => io::ErrorKind::TimedOut,
        ErrorType::NoSuchName | ErrorType::NoAddress => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, failure.message)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    /// A hosts file with these lines, and no server to ask.
    fn files(folder: &tempfile::TempDir, hosts: &str) -> Files {
        let at = |name, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Files {
            resolv_conf: at("resolv.conf", "nameserver 127.254.254.254\n"),
            hosts: at("hosts", hosts),
        }
    }

    #[tokio::test]
    async fn hosts_are_found_by_name_and_by_address() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        // Nobody listens at the first of the two.
        let files = files(&folder, "127.254.254.254 server\n127.0.0.1 server\n");
        for host in ["server", "Server.", "127.0.0.1"] {
            let stream = connect_to(host, port, &files, WITHIN).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().port(), port, "{host}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder, "");
        for (host, why) in [
            ("a..b", "a..b is no name that DNS can be asked for"),
            ("server", "nobody listens for DNS at 127.254.254.254"),
        ] {
            let error = connect_to(host, 1, &files, WITHIN).await.unwrap_err();
            assert_eq!(error.to_string(), why);
        }
        let error = connect_to("127.0.0.1", 1, &files, WITHIN)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
