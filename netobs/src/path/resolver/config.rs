//! `/etc/resolv.conf` and `/etc/hosts`, read as glibc reads them (resolv.conf(5), hosts(5)).

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    time::Duration,
};

use hickory_proto::rr::Name;

/// What glibc uses of a longer list (MAXNS).
const MAX_SERVERS: usize = 3;
/// Domains of the search list that are tried.
const MAX_SEARCH: usize = 16;
/// A file of that size is no list of names that anybody keeps by hand.
const LIMIT_BYTES: u64 = 4 << 20;
/// The port of DNS.
pub(in crate::path) const DNS_PORT: u16 = 53;

/// The two files.
#[derive(Clone, Debug)]
pub struct Files {
    /// Servers, search list, options.
    pub resolv_conf: PathBuf,
    /// Names with their addresses.
    pub hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    /// Dots from which a name is first tried as it is.
    pub(super) ndots: usize,
    /// How long the first server is waited for.
    pub(super) timeout: Duration,
    /// How often each server is asked.
    pub(super) attempts: u32,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl ResolvConf {
    /// Reads the file; one that is missing names the server on this host, as for glibc.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut conf = match read(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error),
        };
        if conf.servers.is_empty() {
            conf.servers
                .push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        Ok(conf)
    }

    /// What is not understood is passed over, as glibc does.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MAX_SERVERS => {
                    conf.servers.extend(words.next().and_then(server));
                }
                Some("domain" | "search") => {
                    let names = words.filter_map(|word| Name::from_utf8(word).ok());
                    conf.search = names.filter(|it| !it.is_root()).take(MAX_SEARCH).collect();
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf
    }

    /// Values are capped as glibc caps them (RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY).
    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u32>() else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// How long to wait for the server at `index` of the list, in whole seconds: the first gets the
    /// configured time, later ones share twice that time for each step (glibc's `send_dg`).
    pub(super) fn patience(&self, index: usize) -> Duration {
        let shift = u32::try_from(index).unwrap_or(u32::MAX).min(8);
        let mut seconds = self.timeout.as_secs() << shift;
        if index > 0 {
            seconds /= (self.servers.len() as u64).max(1);
        }
        Duration::from_secs(seconds.max(1))
    }

    /// The names to ask for, in order, for one that a user gave.
    pub(super) fn candidates(&self, name: &str) -> Vec<Name> {
        let Ok(mut plain) = Name::from_utf8(name) else {
            return Vec::new();
        };
        let full = plain.is_fqdn();
        plain.set_fqdn(true);
        let dots = name.matches('.').count();
        if full {
            return vec![plain];
        }
        let mut searched: Vec<Name> = self
            .search
            .iter()
            .filter_map(|domain| {
                let mut relative = plain.clone();
                relative.set_fqdn(false);
                let mut whole = relative.append_domain(domain).ok()?;
                whole.set_fqdn(true);
                Some(whole)
            })
            .collect();
        if dots >= self.ndots {
            searched.insert(0, plain);
        } else {
            searched.push(plain);
        }
        searched
    }
}

/// A server's address; a link-local one may name its interface.
fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    let (address, scope) = text.split_once('%')?;
    let index = match scope.parse() {
        Ok(index) => index,
        Err(_) => nix::net::if_::if_nametoindex(scope).ok()?,
    };
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, index).into())
}

/// The addresses that the hosts file has for a name.
pub(super) fn hosts(path: &Path, name: &str) -> io::Result<Vec<IpAddr>> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let wanted = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        if words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(wanted))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LIMIT_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_kubernetes_writes_it() {
        let conf = ResolvConf::parse(
            "search a.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\n\
             options ndots:5 timeout:2 attempts:99 edns0 ndots:x\n; nameserver 1.1.1.1\n",
        );
        assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!((conf.ndots, conf.attempts), (5, 5));
        assert_eq!(conf.timeout, Duration::from_secs(2));
        let names = |name| -> Vec<String> {
            let names = conf.candidates(name);
            names.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names("api.b"),
            [
                "api.b.a.svc.cluster.local.",
                "api.b.svc.cluster.local.",
                "api.b."
            ]
        );
        assert_eq!(names("api.b."), ["api.b."]);
        assert_eq!(names("a.b.c.d.e.f").first().unwrap(), "a.b.c.d.e.f.");
        assert!(names("a..b").is_empty());
    }

    #[test]
    fn waiting_is_shared_out_as_glibc_does() {
        let mut conf = ResolvConf::default();
        for text in ["1.1.1.1", "2.2.2.2", "3.3.3.3"] {
            conf.servers.push(server(text).unwrap());
        }
        let seconds = [0, 1, 2].map(|index| conf.patience(index).as_secs());
        assert_eq!(seconds, [5, 3, 6]);
    }

    #[test]
    fn strange_files_are_read_as_far_as_they_go() {
        let conf =
            ResolvConf::parse("nameserver\nnameserver x\nnameserver ::1\noptions\n\0\u{fffd}");
        assert_eq!(conf.servers, ["[::1]:53".parse().unwrap()]);
        let many = "nameserver 1.1.1.1\n".repeat(9);
        assert_eq!(ResolvConf::parse(&many).servers.len(), MAX_SERVERS);
        assert_eq!(
            ResolvConf::read(Path::new("/nonexistent"))
                .unwrap()
                .servers
                .len(),
            1
        );
    }

    #[test]
    fn hosts_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "127.0.0.1 localhost # x\n::1 localhost ip6\nbad line\n10.0.0.1 A.example b\n",
        )
        .unwrap();
        let of = |name| hosts(file.path(), name).unwrap();
        assert_eq!(of("localhost").len(), 2);
        assert_eq!(of("a.example."), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(of("x").is_empty());
    }
}
