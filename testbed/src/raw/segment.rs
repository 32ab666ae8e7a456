//! A TCP segment with its addresses, to and from the bytes of an IP packet.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result, bail, ensure};

use super::checksum;

pub(super) const PROTOCOL_TCP: u8 = 6;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const HOP_LIMIT: u8 = 64;

/// TCP header flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No flag at all.
    pub const NONE: Self = Self(0);
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// PSH.
    pub const PSH: Self = Self(0x08);
    /// ACK.
    pub const ACK: Self = Self(0x10);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All flags of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 5] = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
        ];
        let names: Vec<&str> = NAMES
            .iter()
            .filter(|(flag, _)| self.has(*flag))
            .map(|(_, name)| *name)
            .collect();
        if names.is_empty() {
            f.write_str("no flags")
        } else {
            f.write_str(&names.join("|"))
        }
    }
}

/// One TCP segment. Numbers are in host byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver; of the same family.
    pub destination: SocketAddr,
    /// Sequence number of the first byte (or of the SYN).
    pub sequence: u32,
    /// Acknowledgement number; only meant with [`Flags::ACK`].
    pub acknowledgement: u32,
    /// Header flags.
    pub flags: Flags,
    /// Window, unscaled.
    pub window: u16,
    /// Options as on the wire; padded with zeros to a multiple of four bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

impl Segment {
    /// The option for a maximum segment size of `bytes`.
    #[must_use]
    pub fn maximum_segment_size(bytes: u16) -> Vec<u8> {
        let [high, low] = bytes.to_be_bytes();
        vec![2, 4, high, low]
    }

    /// The timestamp option, with its usual padding in front.
    #[must_use]
    pub fn timestamps(value: u32, echo: u32) -> Vec<u8> {
        let mut option = vec![1, 1, 8, 10];
        option.extend_from_slice(&value.to_be_bytes());
        option.extend_from_slice(&echo.to_be_bytes());
        option
    }

    /// The whole IP packet, with all checksums.
    ///
    /// # Errors
    /// When the families differ, or options or data are too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut tcp = self.tcp()?;
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let sum = checksum::transport(source, destination, PROTOCOL_TCP, &tcp);
        put(&mut tcp, 16, &sum.to_be_bytes())?;
        packet(source, destination, PROTOCOL_TCP, &tcp)
    }

    /// The TCP header with a zero checksum, and the data.
    fn tcp(&self) -> Result<Vec<u8>> {
        let options = self.options.len().next_multiple_of(4);
        let words = u8::try_from((TCP_HEADER + options) / 4).context("options too long")?;
        ensure!(words < 16, "{} bytes of TCP options", self.options.len());
        let mut tcp = Vec::with_capacity(TCP_HEADER + options + self.payload.len());
        tcp.extend_from_slice(&self.source.port().to_be_bytes());
        tcp.extend_from_slice(&self.destination.port().to_be_bytes());
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        tcp.extend_from_slice(&self.acknowledgement.to_be_bytes());
        tcp.extend_from_slice(&[words << 4, self.flags.0]);
        tcp.extend_from_slice(&self.window.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]); // checksum, urgent pointer
        tcp.extend_from_slice(&self.options);
        tcp.resize(TCP_HEADER + options, 0);
        tcp.extend_from_slice(&self.payload);
        Ok(tcp)
    }

    /// Reads an IP packet: nothing when it is not TCP.
    ///
    /// # Errors
    /// When it is TCP and truncated, or a checksum is wrong.
    pub fn decode(packet: &[u8]) -> Result<Option<Self>> {
        let version = packet.first().context("an empty packet")? >> 4;
        let (protocol, source, destination, start, end) = match version {
            4 => {
                let header = usize::from(u8_at(packet, 0)? & 0x0f) * 4;
                let bytes = packet.get(..header).context("a truncated IPv4 header")?;
                ensure!(header >= V4_HEADER, "an IPv4 header of {header} bytes");
                ensure!(checksum::plain(bytes) == 0, "a wrong IPv4 header checksum");
                let source = Ipv4Addr::from(array::<4>(packet, 12)?);
                let destination = Ipv4Addr::from(array::<4>(packet, 16)?);
                let end = usize::from(u16_at(packet, 2)?);
                (
                    u8_at(packet, 9)?,
                    IpAddr::V4(source),
                    IpAddr::V4(destination),
                    header,
                    end,
                )
            }
            6 => {
                let source = Ipv6Addr::from(array::<16>(packet, 8)?);
                let destination = Ipv6Addr::from(array::<16>(packet, 24)?);
                let end = V6_HEADER + usize::from(u16_at(packet, 4)?);
                (
                    u8_at(packet, 6)?,
                    IpAddr::V6(source),
                    IpAddr::V6(destination),
                    V6_HEADER,
                    end,
                )
            }
            other => bail!("an IP packet of version {other}"),
        };
        if protocol != PROTOCOL_TCP {
            return Ok(None);
        }
        let tcp = packet.get(start..end).context("a truncated packet")?;
        let sum = checksum::transport(source, destination, PROTOCOL_TCP, tcp);
        ensure!(sum == 0, "a wrong TCP checksum");
        let data = usize::from(u8_at(tcp, 12)? >> 4) * 4;
        Ok(Some(Self {
            source: SocketAddr::new(source, u16_at(tcp, 0)?),
            destination: SocketAddr::new(destination, u16_at(tcp, 2)?),
            sequence: u32::from_be_bytes(array(tcp, 4)?),
            acknowledgement: u32::from_be_bytes(array(tcp, 8)?),
            flags: Flags(u8_at(tcp, 13)?),
            window: u16_at(tcp, 14)?,
            options: tcp
                .get(TCP_HEADER..data)
                .context("truncated TCP options")?
                .to_vec(),
            payload: tcp.get(data..).unwrap_or_default().to_vec(),
        }))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {} to {}",
            self.flags, self.source, self.destination
        )
    }
}

/// Puts an IP header in front of `payload`.
pub(super) fn packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(V6_HEADER + payload.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(V4_HEADER + payload.len()).context("packet too long")?;
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0x40, 0]); // no fragments
            packet.extend_from_slice(&[HOP_LIMIT, protocol, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            let sum = checksum::plain(&packet);
            put(&mut packet, 10, &sum.to_be_bytes())?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).context("packet too long")?;
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&[protocol, HOP_LIMIT]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
        }
        _ => bail!("{source} and {destination} are of different families"),
    }
    packet.extend_from_slice(payload);
    Ok(packet)
}

/// Overwrites a field.
pub(super) fn put(bytes: &mut [u8], at: usize, field: &[u8]) -> Result<()> {
    bytes
        .get_mut(at..at.saturating_add(field.len()))
        .context("a field outside its header")?
        .copy_from_slice(field);
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = bytes
        .get(at..at.saturating_add(N))
        .context("a truncated header")?;
    Ok(bytes.try_into()?)
}

fn u8_at(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().context("a truncated header")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_be_bytes(array(bytes, at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(source: &str, destination: &str) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 0xfeed_beef,
            acknowledgement: 7,
            flags: Flags::SYN.and(Flags::ACK),
            window: 1000,
            options: Segment::maximum_segment_size(1400),
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for (source, destination) in [
            ("10.78.0.2:1", "10.78.0.1:65535"),
            ("[fd00::2]:1", "[fd00::1]:65535"),
        ] {
            let sent = segment(source, destination);
            let packet = sent.encode().unwrap();
            assert_eq!(Segment::decode(&packet).unwrap(), Some(sent));
        }
    }

    #[test]
    fn every_flipped_bit_of_the_segment_is_noticed() {
        let packet = segment("10.78.0.2:1", "10.78.0.1:2").encode().unwrap();
        for at in V4_HEADER..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x10;
            assert!(Segment::decode(&broken).is_err(), "byte {at}");
        }
        for length in 0..packet.len() {
            assert!(
                Segment::decode(&packet[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn families_do_not_mix() {
        assert!(segment("10.78.0.2:1", "[fd00::1]:2").encode().is_err());
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(Flags::SYN.and(Flags::ACK).to_string(), "SYN|ACK");
        assert_eq!(Flags::NONE.to_string(), "no flags");
    }
}
