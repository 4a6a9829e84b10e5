//! Which of the addresses that a device names may be handed to its peers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gatereeve_shared::limits;
use gatereeve_shared::wire::client::EndpointUpdate;
use gatereeve_shared::wire::map::OverlayPrefixes;

/// The endpoints worth telling: those of the device in its order, then where the controller sees
/// it. What could make peers send to themselves, to everybody or into the overlay is left out.
pub(crate) fn usable(
    update: &EndpointUpdate,
    observed: IpAddr,
    overlay: &OverlayPrefixes,
) -> Vec<SocketAddr> {
    let observed = SocketAddr::new(observed, update.listen_port);
    let mut usable = Vec::new();
    for (named, endpoint) in update
        .endpoints
        .iter()
        .map(|endpoint| (true, *endpoint))
        .chain([(false, observed)])
    {
        let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
        // The last place is kept for what the controller sees.
        let room = limits::ENDPOINTS.saturating_sub(usize::from(named));
        if is_usable(endpoint, overlay) && !usable.contains(&endpoint) && usable.len() < room {
            usable.push(endpoint);
        }
    }
    usable
}

fn is_usable(endpoint: SocketAddr, overlay: &OverlayPrefixes) -> bool {
    let ip = endpoint.ip();
    let is_special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    let is_local = match ip {
        IpAddr::V4(v4) => {
            v4.is_broadcast()
                || v4.is_link_local()
                || v4.octets().starts_with(&[0])
                || is_class_e(v4)
        }
        // Without its interface a link-local address means nothing elsewhere.
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    endpoint.port() != 0 && !is_special && !is_local && !overlay.contains(ip)
}

fn is_class_e(v4: Ipv4Addr) -> bool {
    v4.octets().first().is_some_and(|first| *first >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_lead_to_one_other_host_are_told() {
        let overlay = OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00:1::/48".parse().unwrap(),
        };
        let endpoints = |texts: &[&str]| {
            let update = EndpointUpdate {
                listen_port: 51820,
                endpoints: texts.iter().map(|text| text.parse().unwrap()).collect(),
            };
            usable(&update, "192.0.2.1".parse().unwrap(), &overlay)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            endpoints(&[
                "127.0.0.1:1",
                "0.0.0.0:1",
                "224.0.0.1:1",
                "255.255.255.255:1",
                "169.254.169.254:80",
                "100.64.0.9:1",
                "[::1]:1",
                "[::]:1",
                "[ff02::1]:1",
                "[fe80::1]:1",
                "[fd00:1::9]:1",
                "[::ffff:127.0.0.1]:1",
                "10.0.0.1:0",
                "10.0.0.1:51820",
                "[::ffff:10.0.0.1]:51820",
                "[2001:db8::1]:51820",
            ]),
            ["10.0.0.1:51820", "[2001:db8::1]:51820", "192.0.2.1:51820"]
        );
        let many: Vec<String> = (1..=99).map(|n| format!("10.0.0.{n}:1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = endpoints(&many);
        assert_eq!(told.len(), limits::ENDPOINTS);
        assert_eq!(told.last().unwrap(), "192.0.2.1:51820");
    }
}
