//! Taking the addresses, before anything is attached to the kernel.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use thiserror::Error;

/// Why an address could not be listened on. Each message ends with what to do about it.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody else has the address.
    #[error(
        "{address} is in use: another netobs or exporter listens there; \
         choose another with --web.listen-address"
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error(
        "{address} is not an address of this machine; \
         choose one of its own, or 127.0.0.1, with --web.listen-address"
    )]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port needs a privilege that this process lacks.
    #[error(
        "{address} is refused by the kernel: ports below net.ipv4.ip_unprivileged_port_start need \
         CAP_NET_BIND_SERVICE; choose a higher port with --web.listen-address"
    )]
    Refused {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("failed to listen on {address}; choose another with --web.listen-address")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The list of addresses is empty.
    #[error("no address to listen on; name one with --web.listen-address")]
    NoAddress,
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            io::ErrorKind::PermissionDenied => Self::Refused { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Listens on every address, or on none.
///
/// `[::]` means all addresses of both families. On a kernel without IPv6 it falls back to
/// `0.0.0.0`, so that the same command line works everywhere.
pub(super) fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    if addresses.is_empty() {
        return Err(BindError::NoAddress);
    }
    addresses
        .iter()
        .map(|&address| listen_on(address))
        .collect()
}

fn listen_on(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = TcpListener::bind(address).or_else(|error| {
        let no_ipv6 = error.raw_os_error() == Some(libc::EAFNOSUPPORT)
            || error.kind() == io::ErrorKind::AddrNotAvailable;
        if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6 {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        } else {
            Err(error)
        }
    });
    bound
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| BindError::new(address, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_says_what_to_do() {
        let first = listen(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = first.first().unwrap().local_addr().unwrap();
        assert_eq!(
            listen(&[address]).unwrap_err().to_string(),
            format!(
                "{address} is in use: another netobs or exporter listens there; \
                 choose another with --web.listen-address"
            )
        );
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let foreign = "192.0.2.1:0".parse().unwrap();
        let error = listen(&[foreign]).unwrap_err();
        assert!(
            matches!(error, BindError::NotLocal { address } if address == foreign),
            "{error}"
        );
    }

    #[test]
    fn one_bad_address_fails_all() {
        let good = "127.0.0.1:0".parse().unwrap();
        assert!(listen(&[good, "192.0.2.1:0".parse().unwrap()]).is_err());
        assert!(matches!(listen(&[]), Err(BindError::NoAddress)));
    }

    #[test]
    fn all_addresses_include_ipv4() {
        let listeners = listen(&["[::]:0".parse().unwrap()]).unwrap();
        let port = listeners.first().unwrap().local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
