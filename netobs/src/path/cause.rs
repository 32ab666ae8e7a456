//! The closed set of causes: what the `error_type` of a result and of a metric can be.

use std::io;

use serde::Serialize;

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a phase failed. The set is closed, so it is safe as a label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum ErrorType {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl ErrorType {
            /// Every cause with what it means, for the documentation.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, concat!($($doc),+))),+];

            /// As JSON and labels have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

causes! {
    /// It took longer than it may.
    TimedOut = "timed_out",
    /// The host answered that nobody listens there, or a DNS server refused to answer.
    Refused = "refused",
    /// The peer ended the connection with a reset.
    Reset = "reset",
    /// The peer closed the connection before its answer was whole.
    Closed = "closed",
    /// No way to the host: a router or the own stack said so.
    HostUnreachable = "host_unreachable",
    /// No route to the network.
    NetUnreachable = "net_unreachable",
    /// No local address of that family, or no free port.
    NoLocalAddress = "no_local_address",
    /// A local rule or a missing right forbids it.
    NotPermitted = "not_permitted",
    /// The name does not exist (NXDOMAIN).
    NoSuchName = "no_such_name",
    /// The name exists and has no address of the family asked for.
    NoAddress = "no_address",
    /// The DNS servers answered that they could not find out (SERVFAIL).
    ServerFailure = "server_failure",
    /// What came back was no answer to the question: wrong id, wrong question, or no DNS message.
    BadAnswer = "bad_answer",
    /// No DNS server is configured, or resolv.conf cannot be used.
    NoResolver = "no_resolver",
    /// The DNS answer has another response code than expected.
    UnexpectedResponseCode = "unexpected_response_code",
    /// A certificate of the chain has ended.
    CertificateExpired = "certificate_expired",
    /// A certificate of the chain has not begun.
    CertificateNotYetValid = "certificate_not_yet_valid",
    /// The certificate was issued by itself, and is no root of this machine.
    SelfSigned = "self_signed",
    /// The chain leads to no root of this machine: a private authority, or a part is missing.
    UnknownIssuer = "unknown_issuer",
    /// The certificate is for other names.
    NameMismatch = "name_mismatch",
    /// The certificate is revoked, malformed, badly signed, or not meant for servers.
    BadCertificate = "bad_certificate",
    /// The handshake failed otherwise: no common version or cipher, an alert, or no TLS at all.
    TlsProtocol = "tls_protocol",
    /// What came back is no HTTP.
    BadResponse = "bad_response",
    /// The head of the answer is larger than it may be.
    HeaderTooLarge = "header_too_large",
    /// The status is not one of those expected.
    UnexpectedStatus = "unexpected_status",
    /// A redirect leads back to where it came from.
    RedirectLoop = "redirect_loop",
    /// More redirects than allowed.
    TooManyRedirects = "too_many_redirects",
    /// A redirect leads nowhere: no location, or none that can be followed.
    BadRedirect = "bad_redirect",
    /// Something else; the message says what.
    Other = "other",
}

impl ErrorType {
    /// The cause that an error of a socket stands for.
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => return Self::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => return Self::Reset,
            Some(libc::ETIMEDOUT) => return Self::TimedOut,
            Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => return Self::HostUnreachable,
            Some(libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT) => {
                return Self::NetUnreachable;
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => return Self::NoLocalAddress,
            Some(libc::EACCES | libc::EPERM) => return Self::NotPermitted,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_the_same_in_json() {
        let names: HashSet<&str> = ErrorType::ALL.iter().map(|(it, _)| it.name()).collect();
        assert_eq!(names.len(), ErrorType::ALL.len());
        for (cause, _) in ErrorType::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
        }
    }

    #[test]
    fn errors_of_sockets() {
        let of = |errno| ErrorType::of_io(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::ECONNREFUSED), ErrorType::Refused);
        assert_eq!(of(libc::ENETUNREACH), ErrorType::NetUnreachable);
        assert_eq!(of(libc::EIO), ErrorType::Other);
    }
}
