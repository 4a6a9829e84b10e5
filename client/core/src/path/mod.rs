//! Which addresses are worth a packet.
//!
//! Endpoints come from other devices through the controller. None of them may make this device send
//! to itself, to a group, or back into the tunnel.

use std::net::{IpAddr, SocketAddr};

use gatereeve_shared::limits;
use gatereeve_shared::wire::map::OverlayPrefixes;

/// Endpoints of one peer: as many as a map tells, and where it was heard last.
pub(crate) const CANDIDATES: usize = limits::ENDPOINTS + 1;

/// What endpoints are held against.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EndpointRules {
    /// The overlay's own addresses, which would loop.
    pub(crate) overlay: Option<OverlayPrefixes>,
    /// Whether the network lives on one machine: its controller was reached over loopback.
    pub(crate) loopback: bool,
}

impl EndpointRules {
    /// The usable ones of `endpoints`, in their order, each once, at most [`CANDIDATES`].
    pub(crate) fn usable(
        &self,
        endpoints: impl IntoIterator<Item = SocketAddr>,
    ) -> Vec<SocketAddr> {
        let mut kept: Vec<SocketAddr> = Vec::new();
        for endpoint in endpoints {
            let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            if kept.len() < CANDIDATES && self.accepts(endpoint) && !kept.contains(&endpoint) {
                kept.push(endpoint);
            }
        }
        kept
    }

    /// Whether a packet may go to `endpoint`, which is in canonical form.
    fn accepts(&self, endpoint: SocketAddr) -> bool {
        let ip = endpoint.ip();
        let in_overlay = self.overlay.is_some_and(|overlay| overlay.contains(ip));
        let fits_a_peer = match ip {
            IpAddr::V4(v4) => !v4.is_broadcast() && v4.octets()[0] != 0,
            // Without a scope a link-local address names no interface.
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        endpoint.port() != 0
            && fits_a_peer
            && !in_overlay
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && (self.loopback || !ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(loopback: bool) -> EndpointRules {
        EndpointRules {
            overlay: Some(OverlayPrefixes {
                v4: "100.64.0.0/10".parse().unwrap(),
                v6: "fd00:1:2::/48".parse().unwrap(),
            }),
            loopback,
        }
    }

    #[test]
    fn what_would_loop_or_flood_is_left_out() {
        let bad = [
            "127.0.0.1:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "[::]:1",
            "192.0.2.1:0",
            "100.64.0.7:1",
            "[::ffff:100.64.0.7]:1",
            "[fd00:1:2::7]:1",
            "[fe80::1]:1",
        ];
        for text in bad {
            assert!(
                rules(false).usable([text.parse().unwrap()]).is_empty(),
                "{text}"
            );
        }
        let good = ["192.0.2.1:1", "10.0.0.1:2", "[2001:db8::1]:3"];
        let good: Vec<SocketAddr> = good.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(rules(false).usable(good.clone()), good);
    }

    #[test]
    fn loopback_counts_where_the_controller_is_on_it() {
        let local: SocketAddr = "127.0.0.1:7".parse().unwrap();
        assert!(rules(false).usable([local]).is_empty());
        assert_eq!(rules(true).usable([local, local]), [local]);
    }

    #[test]
    fn the_number_is_bounded() {
        let many = (1..=100).map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        assert_eq!(rules(false).usable(many).len(), CANDIDATES);
    }
}
