//! Addresses that no two devices of this process share.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Result, bail};

/// The first two bytes of every IPv4 address: one /24 for each plan inside 10.78.0.0/16 and on.
const V4_FIRST: u8 = 10;
const V4_SECOND: u8 = 78;
/// How many /24 there are from 10.78 to 10.255.
const PLANS: u16 = (256 - V4_SECOND as u16) * 256;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An IPv4 /24, an IPv6 /64 and link addresses for one device or pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    serial: u16,
}

impl Plan {
    /// The next unused plan of this process.
    ///
    /// # Errors
    /// When all are used up.
    pub(crate) fn next() -> Result<Self> {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        if serial >= PLANS {
            bail!("this process has used all {PLANS} subnets");
        }
        Ok(Self { serial })
    }

    /// Unique in the process; also part of device names.
    pub(crate) fn serial(self) -> u16 {
        self.serial
    }

    /// Host number `host` of the IPv4 subnet.
    pub(crate) fn v4_host(self, host: u8) -> IpAddr {
        let [high, low] = self.serial.to_be_bytes();
        // `next` keeps the sum below 256.
        IpAddr::V4(Ipv4Addr::new(
            V4_FIRST,
            V4_SECOND.saturating_add(high),
            low,
            host,
        ))
    }

    /// Host number `host` of the IPv6 subnet, a unique local one (RFC 4193).
    pub(crate) fn v6_host(self, host: u8) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(
            0xfd00,
            0x6e6f,
            self.serial,
            0,
            0,
            0,
            0,
            u16::from(host),
        ))
    }

    /// A locally administered link address.
    pub(crate) fn mac(self, host: u8) -> String {
        let [high, low] = self.serial.to_be_bytes();
        format!("02:6e:6f:{high:02x}:{low:02x}:{host:02x}")
    }
}
