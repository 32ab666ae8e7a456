//! ICMP errors about a segment that the stack has sent.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    checksum,
    segment::{self, Segment},
};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMP_V6: u8 = 58;
/// Destination unreachable, host unreachable (RFC 792).
const HOST_UNREACHABLE: [u8; 2] = [3, 1];
/// Destination unreachable, communication administratively prohibited (RFC 4443).
const PROHIBITED_V6: [u8; 2] = [1, 1];

/// The packet with which the receiver of `offending` says that it cannot be reached.
pub(super) fn encode(offending: &Segment) -> Result<Vec<u8>> {
    let (source, destination) = (offending.destination.ip(), offending.source.ip());
    let (protocol, kind) = match source {
        IpAddr::V4(_) => (PROTOCOL_ICMP, HOST_UNREACHABLE),
        IpAddr::V6(_) => (PROTOCOL_ICMP_V6, PROHIBITED_V6),
    };
    let mut message = Vec::new();
    message.extend_from_slice(&kind);
    message.extend_from_slice(&[0; 6]); // checksum, unused
    message.extend_from_slice(&offending.encode()?);
    let sum = match source {
        IpAddr::V4(_) => checksum::plain(&message),
        IpAddr::V6(_) => checksum::transport(source, destination, protocol, &message),
    };
    segment::put(&mut message, 2, &sum.to_be_bytes())?;
    segment::packet(source, destination, protocol, &message)
}
