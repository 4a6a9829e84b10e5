//! Links between namespaces: one switch and a cable to each host, or one cable between two hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, anyhow};
use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use super::Namespace;

/// The name of every host's interface on the underlay.
pub const UNDERLAY_INTERFACE: &str = "eth0";
const BRIDGE: &str = "switch";
/// What the other end of a cable is called until it is moved.
const CABLE_END: &str = "cable";

/// An Ethernet switch in a namespace of its own: the network below the overlay.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: Namespace,
}

/// A host's addresses on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayAddresses {
    /// IPv4, in a /16.
    pub v4: Ipv4Addr,
    /// IPv6, in a /64.
    pub v6: Ipv6Addr,
}

impl UnderlayAddresses {
    /// The addresses of host `number`, from 1.
    #[must_use]
    pub fn of(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            v4: Ipv4Addr::new(10, 77, high, low),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number),
        }
    }
}

impl Switch {
    /// A switch without hosts.
    ///
    /// # Errors
    /// Where namespaces or bridges are not to be had.
    pub fn new() -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        namespace.netlink(async |netlink| {
            netlink
                .link()
                .add(LinkBridge::new(BRIDGE).build())
                .execute()
                .await
                .context("make a bridge")?;
            up(&netlink, BRIDGE).await
        })?;
        Ok(Self { namespace })
    }

    /// The switch's own namespace, through which all of the underlay passes.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A new namespace with an interface on this switch.
    ///
    /// # Errors
    /// Where the kernel refuses any of it.
    pub fn connect(&self, number: u16) -> anyhow::Result<(Namespace, UnderlayAddresses)> {
        let host = Namespace::new()?;
        let addresses = UnderlayAddresses::of(number);
        let port = format!("port{number}");
        let target = host.raw_fd();
        self.namespace.netlink(async |netlink| {
            let cable = LinkVeth::new(&port, UNDERLAY_INTERFACE).build();
            netlink
                .link()
                .add(cable)
                .execute()
                .await
                .context("make a veth pair")?;
            let bridge = index(&netlink, BRIDGE).await?;
            let ours = index(&netlink, &port).await?;
            let theirs = index(&netlink, UNDERLAY_INTERFACE).await?;
            let plug = LinkUnspec::new_with_index(ours)
                .controller(bridge)
                .up()
                .build();
            netlink
                .link()
                .set(plug)
                .execute()
                .await
                .context("plug in")?;
            let hand_over = LinkUnspec::new_with_index(theirs)
                .setns_by_fd(target.as_raw_fd())
                .build();
            netlink
                .link()
                .set(hand_over)
                .execute()
                .await
                .context("move the host's end")
        })?;
        bring_up(&host, addresses)?;
        Ok((host, addresses))
    }
}

/// Two hosts, 1 and 2, with nothing but a cable between them.
///
/// # Errors
/// Where the kernel refuses any of it.
pub fn cable() -> anyhow::Result<[(Namespace, UnderlayAddresses); 2]> {
    let (left, right) = (Namespace::new()?, Namespace::new()?);
    let target = right.raw_fd();
    left.netlink(async |netlink| {
        let cable = LinkVeth::new(UNDERLAY_INTERFACE, CABLE_END).build();
        netlink
            .link()
            .add(cable)
            .execute()
            .await
            .context("make a veth pair")?;
        let theirs = LinkUnspec::new_with_index(index(&netlink, CABLE_END).await?)
            .name(UNDERLAY_INTERFACE.to_owned())
            .setns_by_fd(target)
            .build();
        netlink
            .link()
            .set(theirs)
            .execute()
            .await
            .context("move the other end")
    })?;
    let hosts = [
        (left, UnderlayAddresses::of(1)),
        (right, UnderlayAddresses::of(2)),
    ];
    for (host, addresses) in &hosts {
        bring_up(host, *addresses)?;
    }
    Ok(hosts)
}

/// Gives a host's interface its addresses and sets it up.
fn bring_up(host: &Namespace, addresses: UnderlayAddresses) -> anyhow::Result<()> {
    host.netlink(async |netlink| {
        let index = index(&netlink, UNDERLAY_INTERFACE).await?;
        for (address, prefix) in [
            (IpAddr::V4(addresses.v4), 16),
            (IpAddr::V6(addresses.v6), 64),
        ] {
            netlink
                .address()
                .add(index, address, prefix)
                .execute()
                .await
                .with_context(|| format!("add {address}"))?;
        }
        up(&netlink, UNDERLAY_INTERFACE).await
    })
}

/// Sets a link up.
///
/// # Errors
/// Where there is none of this name.
pub async fn up(netlink: &Handle, name: &str) -> anyhow::Result<()> {
    let index = index(netlink, name).await?;
    netlink
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .with_context(|| format!("set {name} up"))
}

/// The index of a link.
///
/// # Errors
/// Where there is none of this name.
pub async fn index(netlink: &Handle, name: &str) -> anyhow::Result<u32> {
    let found = netlink
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
        .with_context(|| format!("look for {name}"))?;
    found
        .map(|link| link.header.index)
        .ok_or_else(|| anyhow!("no link {name}"))
}
