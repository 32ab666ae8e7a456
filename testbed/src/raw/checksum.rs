//! The Internet checksum (RFC 1071), with the pseudo headers of RFC 9293 and RFC 8200.

use std::net::IpAddr;

/// One's complement sum of big endian 16-bit words, not yet inverted; an odd byte is padded.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(u16::from_be_bytes([*high, 0])),
            _ => 0,
        })
        .sum()
}

/// Folds the carries in and inverts.
fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The loop leaves 16 bits.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum of bytes whose checksum field is zero; 0 when the field holds the right one.
pub(super) fn plain(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

/// As [`plain`], with the pseudo header of an upper layer protocol.
pub(super) fn transport(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let addresses = [source, destination].map(|address| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    });
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX) & 0xffff;
    finish(addresses.iter().sum::<u64>() + u64::from(protocol) + length + sum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(
            plain(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(plain(&[0x12]), !0x1200);
    }
}
