//! A veth pair between two namespaces.

mod plan;
mod ready;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

pub use crate::ioctl::Offload;
pub(crate) use plan::Plan;
pub(crate) use ready::wait_local;

use crate::{command, ioctl, netns::Ns, raw::Family};

/// One end of a [`Link`].
#[derive(Clone, Debug)]
pub struct End {
    ns: Ns,
    device: String,
    v4: IpAddr,
    v6: IpAddr,
}

impl End {
    /// The namespace of this end.
    #[must_use]
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// The name of the interface in its namespace.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The IPv4 address of this end.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.v4
    }

    /// The IPv6 address of this end.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.v6
    }

    /// The address of this end in a family, with a port.
    #[must_use]
    pub fn address(&self, family: Family, port: u16) -> SocketAddr {
        let ip = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        SocketAddr::new(ip, port)
    }

    /// Switches an offload of this end. As created, segments cross the link joined (TSO and GSO
    /// on, GRO off), so one lost buffer can be many lost segments.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn set_offload(&self, offload: Offload, on: bool) -> Result<()> {
        self.ns
            .run(|| ioctl::set_offload(&self.device, offload, on))
    }
}

/// A veth pair, up, with an IPv4 /30 and an IPv6 /64 and each other's link addresses known in
/// advance: the first TCP segment is the first packet. It lives as long as its namespaces.
#[derive(Clone, Debug)]
pub struct Link {
    /// The end in the first namespace.
    pub a: End,
    /// The end in the second namespace.
    pub b: End,
}

impl Link {
    /// Connects two namespaces. Two namespaces may have several links.
    ///
    /// # Errors
    /// When `ip` is missing, veth is not in the kernel, or the addresses of this process are used up.
    pub fn veth(a: &Ns, b: &Ns) -> Result<Self> {
        let plan = Plan::next()?;
        let serial = plan.serial();
        let ends = [(a, "a", 1_u8), (b, "b", 2)].map(|(ns, side, host)| {
            let device = format!("tb{serial}{side}");
            End {
                ns: ns.clone(),
                device,
                v4: plan.v4_host(host),
                v6: plan.v6_host(host),
            }
        });
        let [a, b] = ends;
        let (mac_a, mac_b) = (plan.mac(1), plan.mac(2));
        let create = format!(
            "link add name {} address {mac_a} type veth peer name {} address {mac_b} netns {}\n",
            a.device,
            b.device,
            b.ns.path().display(),
        );
        command::ip(&a.ns, &create).context("make a veth pair")?;
        for end in [&a, &b] {
            end.ns.run(|| ioctl::set_up(&end.device))?;
        }
        for end in [&a, &b] {
            ready::wait_running(&end.ns, &end.device)?;
        }
        configure(&a, &b, &mac_b)?;
        configure(&b, &a, &mac_a)?;
        Ok(Self { a, b })
    }
}

/// Gives one end its addresses and the other end's link address.
fn configure(own: &End, other: &End, other_mac: &str) -> Result<()> {
    let device = &own.device;
    let lines = format!(
        "addr add {}/30 dev {device}\n\
         addr add {}/64 dev {device} nodad\n\
         neigh replace {} lladdr {other_mac} dev {device} nud permanent\n\
         neigh replace {} lladdr {other_mac} dev {device} nud permanent\n",
        own.v4, own.v6, other.v4, other.v6,
    );
    command::ip(&own.ns, &lines).with_context(|| format!("configure {device}"))?;
    wait_local(&own.ns, own.v6)
}
