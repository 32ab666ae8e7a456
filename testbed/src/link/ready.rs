//! The moments from which a new device really carries packets: both come later than the answer to
//! the command that asks for them, and what is sent before is lost without a trace.

use std::{fs, io, net::IpAddr, time::Duration};

use anyhow::{Context, Result};

use crate::{ioctl, netns::Ns, witness::wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the kernel's link watch has noticed that the other end of `device` is up. It gives
/// the device its queue under the same lock that the next `ip` command takes.
pub(crate) fn wait_running(ns: &Ns, device: &str) -> Result<()> {
    wait_until(PATIENCE, &format!("{device} to run"), || {
        Ok(ns.run(|| ioctl::flags(device))? & libc::IFF_RUNNING != 0)
    })
}

/// Waits until packets to an own address are accepted. For IPv6 the route that does so is made by
/// a worker of the kernel, even without duplicate address detection.
pub(crate) fn wait_local(ns: &Ns, address: IpAddr) -> Result<()> {
    let IpAddr::V6(address) = address else {
        return Ok(());
    };
    // Destination and prefix length in hexadecimal begin a line: 128 bits are "80".
    let route = format!("{:032x} 80 ", address.to_bits());
    wait_until(
        PATIENCE,
        &format!("the local route of {address}"),
        || match ns.run(|| fs::read_to_string("/proc/thread-self/net/ipv6_route")) {
            Ok(routes) => Ok(routes.lines().any(|line| line.starts_with(&route))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("read the IPv6 routes"),
        },
    )
}
