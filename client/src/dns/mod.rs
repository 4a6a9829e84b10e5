//! The host's resolver is told where the names of this network's devices are asked for.
//!
//! Only systemd-resolved is told, for our interface alone, and only of our own domains: everything else is asked for where
//! it always was. Where another interface has a domain within ours, as a LAN can hand out, that is said. What it was told goes away with the interface, however the daemon ends. `/etc/resolv.conf` is
//! never written.
//!
//! * [`keeper`]: tells it, and again when it has forgotten.
//! * [`resolved`]: how it is told, in the helper's process: D-Bus is nothing for one that reads packets of strangers.

pub mod keeper;
pub mod resolved;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use gatereeve_client_core::dns::{self, Domain};
use gatereeve_shared::wire::map::OverlayPrefixes;

/// What resolved is to know of our interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The interface's name.
    pub interface: String,
    /// Where to ask.
    pub servers: Vec<IpAddr>,
    /// The network's domain.
    pub domain: String,
    /// Whether a name without a domain is looked for in it, too.
    pub search: bool,
    /// The domains of its addresses.
    pub reverse: Vec<String>,
}

impl Link {
    /// That of a network with this domain and these addresses.
    #[must_use]
    pub fn new(interface: &str, domain: &Domain, prefixes: &OverlayPrefixes, search: bool) -> Self {
        let servers = dns::resolver(prefixes);
        Self {
            interface: interface.to_owned(),
            servers: vec![servers.v4.into(), servers.v6.into()],
            domain: domain.to_string(),
            search,
            reverse: dns::domain::reverse(prefixes),
        }
    }

    /// Whether `host:port` is a name that would be asked for here.
    #[must_use]
    pub fn covers(&self, target: &str) -> bool {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host.strip_suffix(&self.domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// How resolved took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// It asks us.
    Done {
        /// Whether programs ask it, as far as `/etc/resolv.conf` and `/etc/nsswitch.conf` say.
        is_asked: bool,
        /// Other interfaces' domains by which it asks for our names elsewhere, in words.
        rivals: Option<String>,
    },
    /// It does not run on this host.
    Absent,
    /// The daemon's user may not tell it anything.
    Forbidden(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_within_the_domain_is_seen() {
        let prefixes = OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        };
        let link = Link::new("gr0", &Domain::of_network("corp"), &prefixes, false);
        for inside in [
            "vpn.corp.internal:8443",
            "VPN.Corp.Internal.:8443",
            "corp.internal:1",
            "a.b.corp.internal",
        ] {
            assert!(link.covers(inside), "{inside}");
        }
        for outside in [
            "vpn.example.com:8443",
            "xcorp.internal:8443",
            "192.0.2.1:8443",
            "[fd00::1]:8443",
            "internal:1",
        ] {
            assert!(!link.covers(outside), "{outside}");
        }
    }
}
