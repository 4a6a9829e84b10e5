//! The host's own addresses: where peers on the same network can reach this device.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, anyhow};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::watch;

use gatereeve_shared::limits;
use gatereeve_shared::wire::map::OverlayPrefixes;

/// One address of one interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: String,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// The address.
    pub address: IpAddr,
}

/// The address that a netlink message is about.
#[must_use]
pub fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
            match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            }
        })
    };
    // On a point-to-point link `Address` is the other end.
    find(true).or_else(|| find(false))
}

/// The endpoints to announce: every usable address with `port`, at most as many as the protocol takes.
///
/// Left out are our own TUN device, the overlay (a tunnel through itself), link-local and other
/// addresses that mean nothing elsewhere, and loopback unless there is nothing else.
#[must_use]
pub fn endpoints(
    found: &[InterfaceAddress],
    port: u16,
    tun: &str,
    overlay: Option<&OverlayPrefixes>,
) -> Vec<SocketAddr> {
    let usable = |entry: &&InterfaceAddress| {
        entry.interface != tun
            && !overlay.is_some_and(|prefixes| prefixes.contains(entry.address))
            && !entry.address.is_unspecified()
            && !entry.address.is_multicast()
            && match entry.address {
                IpAddr::V4(v4) => !v4.is_link_local(),
                IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            }
    };
    let chosen = |loopback: bool| {
        let mut list: Vec<_> = found
            .iter()
            .filter(usable)
            .filter(|entry| (entry.loopback || entry.address.is_loopback()) == loopback)
            .map(|entry| SocketAddr::new(entry.address, port))
            .collect();
        // IPv4 first: it is the smaller outer header.
        list.sort_by_key(|endpoint| (endpoint.is_ipv6(), *endpoint));
        list.dedup();
        list.truncate(limits::ENDPOINTS);
        list
    };
    let real = chosen(false);
    if real.is_empty() { chosen(true) } else { real }
}

/// Reads the host's addresses now and at every change, until the receiver is dropped.
///
/// # Errors
/// When the kernel gives no netlink socket or does not list the addresses.
pub async fn watch() -> Result<watch::Receiver<Vec<InterfaceAddress>>> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, mut changes) =
        new_multicast_connection(&groups).context("cannot watch the interfaces by netlink")?;
    #[expect(clippy::disallowed_methods, reason = "aborted by the task below")]
    let connection = tokio::spawn(connection);
    let (sender, receiver) = watch::channel(list(&handle).await?);
    #[expect(
        clippy::disallowed_methods,
        reason = "ends when the receiver is dropped"
    )]
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => break,
                change = changes.next() => if change.is_none() { break },
            }
            // Changes come in bursts; one look after the burst is enough.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            while let Ok(Some(_)) =
                tokio::time::timeout(std::time::Duration::ZERO, changes.next()).await
            {}
            match list(&handle).await {
                Ok(found) => {
                    sender.send_if_modified(|held| {
                        let changed = *held != found;
                        *held = found;
                        changed
                    });
                }
                Err(error) => tracing::warn!(%error, "cannot list the interfaces"),
            }
        }
        connection.abort();
    });
    Ok(receiver)
}

async fn list(handle: &rtnetlink::Handle) -> Result<Vec<InterfaceAddress>> {
    let failed = |error| anyhow!("cannot list the interfaces: {error}");
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed)?;
    let addresses: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed)?;
    let mut found = Vec::new();
    for message in &addresses {
        let Some(link) = links
            .iter()
            .find(|link| link.header.index == message.header.index)
        else {
            continue;
        };
        let name = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute {
                Some(name)
            } else {
                None
            }
        });
        let tentative = message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated))
        });
        if let (Some(name), Some(address)) = (name, address_of(message))
            && link.header.flags.contains(LinkFlags::Up)
            && !tentative
        {
            found.push(InterfaceAddress {
                interface: name.clone(),
                loopback: link.header.flags.contains(LinkFlags::Loopback),
                address,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(interface: &str, address: &str) -> InterfaceAddress {
        InterfaceAddress {
            interface: interface.into(),
            loopback: interface == "lo",
            address: address.parse().unwrap(),
        }
    }

    fn overlay() -> OverlayPrefixes {
        OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd12:3456:789a::/48".parse().unwrap(),
        }
    }

    #[test]
    fn only_addresses_that_others_can_use_are_announced() {
        let found = [
            entry("lo", "127.0.0.1"),
            entry("eth0", "192.0.2.7"),
            entry("eth0", "2001:db8::7"),
            entry("eth0", "fe80::1"),
            entry("eth0", "169.254.1.1"),
            entry("eth1", "100.64.0.9"),
            entry("gatereeve0", "198.51.100.1"),
        ];
        let announced = endpoints(&found, 7, "gatereeve0", Some(&overlay()));
        let expected: Vec<SocketAddr> = vec![
            "192.0.2.7:7".parse().unwrap(),
            "[2001:db8::7]:7".parse().unwrap(),
        ];
        assert_eq!(announced, expected);
    }

    #[test]
    fn loopback_is_the_last_resort_and_the_list_is_bounded() {
        let only_loopback = [entry("lo", "127.0.0.1"), entry("eth0", "fe80::1")];
        let announced = endpoints(&only_loopback, 7, "gatereeve0", None);
        assert_eq!(
            announced,
            vec!["127.0.0.1:7".parse::<SocketAddr>().unwrap()]
        );
        let many: Vec<_> = (0..100)
            .map(|n| entry("eth0", &format!("192.0.2.{n}")))
            .collect();
        assert_eq!(
            endpoints(&many, 7, "gatereeve0", None).len(),
            limits::ENDPOINTS
        );
    }
}
