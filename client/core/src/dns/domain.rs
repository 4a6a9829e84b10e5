//! The domain that a network's names are in.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use gatereeve_shared::wire::map::OverlayPrefixes;

/// Reserved for private use: no public server has it (ICANN's resolution of 29 July 2024).
pub(super) const TOP: &str = "internal";
/// For a network whose name has nothing that a label can have.
const UNNAMED: &str = "gatereeve";
/// Longest label, in bytes (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;
/// Domains of addresses, of each family, that a prefix is cut into at most.
const MOST_REVERSED: u32 = 128;

/// The domain of a network: its name as one label, in `internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    label: String,
}

impl Domain {
    /// The domain of the network that calls itself `network`. What no host name has becomes `-`.
    #[must_use]
    pub fn of_network(network: &str) -> Self {
        let mut label = String::new();
        for c in network.chars() {
            let c = c.to_ascii_lowercase();
            let fits = c.is_ascii_lowercase() || c.is_ascii_digit();
            if fits {
                label.push(c);
            } else if !(label.is_empty() || label.ends_with('-')) {
                label.push('-');
            }
        }
        label.truncate(LONGEST_LABEL);
        let label = match label.trim_end_matches('-') {
            "" => UNNAMED,
            label => label,
        };
        Self {
            label: label.to_owned(),
        }
    }

    /// Its first label.
    pub(super) fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{TOP}", self.label)
    }
}

/// The domains that names of overlay addresses are in (RFC 1035, section 3.5; RFC 3596): asked of anybody else, they would
/// tell which devices this one talks to. A prefix that ends within a label has several; none of one that has too many.
#[must_use]
pub fn reverse(prefixes: &OverlayPrefixes) -> Vec<String> {
    let v4_len = u32::from(prefixes.v4.prefix_len());
    let v6_len = u32::from(prefixes.v6.prefix_len());
    let v4 = parts(v4_len, 8).into_iter().flat_map(|(parts, len)| {
        let first = u32::from(prefixes.v4.network());
        (0..parts).filter_map(move |part| {
            let address = first | part.checked_shl(32 - len)?;
            Some(reversed_v4(Ipv4Addr::from(address), len))
        })
    });
    let v6 = parts(v6_len, 4).into_iter().flat_map(|(parts, len)| {
        let first = u128::from(prefixes.v6.network());
        (0..parts).filter_map(move |part| {
            let address = first | u128::from(part).checked_shl(128 - len)?;
            Some(reversed_v6(Ipv6Addr::from(address), len))
        })
    });
    v4.chain(v6).collect()
}

/// How many domains a prefix of `len` bits has, where a label stands for `label` bits, and their length in bits.
fn parts(len: u32, label: u32) -> Option<(u32, u32)> {
    let whole = len.max(1).checked_next_multiple_of(label)?;
    let parts = 1u32.checked_shl(whole - len)?;
    (parts <= MOST_REVERSED).then_some((parts, whole))
}

fn reversed_v4(address: Ipv4Addr, len: u32) -> String {
    let octets = address.octets();
    let labels = usize::try_from(len / 8).unwrap_or(octets.len());
    let labels = octets.iter().take(labels).rev();
    let name: String = labels.map(|octet| format!("{octet}.")).collect();
    name + "in-addr.arpa"
}

fn reversed_v6(address: Ipv6Addr, len: u32) -> String {
    let nibbles = address.octets().map(|octet| [octet >> 4, octet & 15]);
    let labels = usize::try_from(len / 4).unwrap_or(usize::MAX);
    let labels = nibbles.as_flattened().iter().take(labels).rev();
    let name: String = labels.map(|nibble| format!("{nibble:x}.")).collect();
    name + "ip6.arpa"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_any_name_has_a_domain() {
        let long = "x".repeat(80);
        for (network, domain) in [
            ("acme", "acme.internal"),
            ("Acme Corp.", "acme-corp.internal"),
            ("a..b__c", "a-b-c.internal"),
            ("-x-", "x.internal"),
            ("сеть", "gatereeve.internal"),
            ("", "gatereeve.internal"),
            (long.as_str(), &format!("{}.internal", "x".repeat(63))),
        ] {
            assert_eq!(Domain::of_network(network).to_string(), domain, "{network}");
        }
        let cut = format!("{}-b", "x".repeat(62));
        assert_eq!(Domain::of_network(&cut).label(), "x".repeat(62));
    }

    #[test]
    fn the_domains_of_addresses_cover_the_prefixes_and_no_more() {
        let prefixes = |v4: &str, v6: &str| OverlayPrefixes {
            v4: v4.parse().unwrap(),
            v6: v6.parse().unwrap(),
        };
        let found = reverse(&prefixes("100.64.0.0/10", "fd12:3456:789a::/48"));
        assert_eq!(found.len(), 65);
        assert_eq!(found.first().unwrap(), "64.100.in-addr.arpa");
        assert_eq!(found.get(63).unwrap(), "127.100.in-addr.arpa");
        assert_eq!(found.get(64).unwrap(), "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa");
        let found = reverse(&prefixes("10.9.0.0/28", "fd00:9::/126"));
        assert_eq!(found.len(), 16 + 4);
        assert_eq!(found.first().unwrap(), "0.0.9.10.in-addr.arpa");
        assert_eq!(found.get(15).unwrap(), "15.0.9.10.in-addr.arpa");
        assert!(found.last().unwrap().starts_with("3.0.0.0."));
        let found = reverse(&prefixes("10.0.0.0/8", "fd00::/8"));
        assert_eq!(found, ["10.in-addr.arpa", "d.f.ip6.arpa"]);
        // Nobody's overlay; not a number of domains without bound either.
        assert_eq!(reverse(&prefixes("0.0.0.0/0", "::/0")).len(), 16);
    }
}
