//! Which answer a question has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use ipnet::{Ipv4Net, Ipv6Net};

use super::domain::{Domain, TOP};
use super::message::{Answer, Kind, Question, Record};

/// Who has which name, as of the table in force.
pub(crate) trait Directory {
    /// The network's domain.
    fn domain(&self) -> &Domain;
    /// The network's addresses.
    fn prefixes(&self) -> &OverlayPrefixes;
    /// The addresses of this device, or one that it may reach; `name` is in lower case.
    fn addresses(&self, name: &str) -> Option<OverlayAddresses>;
    /// The name of the device that has this address.
    fn name(&self, address: IpAddr) -> Option<&str>;
}

/// Looks it up. Names of other domains are refused: who asks has others to ask for them.
pub(super) fn look_up(directory: &impl Directory, question: &Question<'_>) -> Answer {
    let prefixes = directory.prefixes();
    match question.labels.as_slice() {
        [rest @ .., label, top] if is(top, TOP) && is(label, directory.domain().label()) => {
            device(directory, rest, question.kind)
        }
        [rest @ .., family, arpa] if is(arpa, "arpa") && is(family, "in-addr") => {
            let asked = v4(rest).filter(|asked| prefixes.v4.contains(asked));
            let address = asked.map(|asked| asked.addr().into());
            // Of the labels that the overlay's prefix has, whole ones.
            let zone = usize::from(prefixes.v4.prefix_len().div_ceil(8));
            owner(directory, (address, rest.len()), (zone, 4), question.kind)
        }
        [rest @ .., family, arpa] if is(arpa, "arpa") && is(family, "ip6") => {
            let asked = v6(rest).filter(|asked| prefixes.v6.contains(asked));
            let address = asked.map(|asked| asked.addr().into());
            let zone = usize::from(prefixes.v6.prefix_len().div_ceil(4));
            owner(directory, (address, rest.len()), (zone, 32), question.kind)
        }
        _ => Answer::Refused,
    }
}

/// A name within the network's domain.
fn device(directory: &impl Directory, labels: &[&[u8]], kind: Kind) -> Answer {
    const ZONE: usize = 2;
    let label = match labels {
        [] if kind == Kind::Soa => return Answer::Found(Record::Soa),
        [] => return Answer::Nothing { zone: ZONE },
        [label] => std::str::from_utf8(label).map(str::to_ascii_lowercase),
        _ => return Answer::NoName { zone: ZONE },
    };
    let Some(addresses) = label.ok().and_then(|name| directory.addresses(&name)) else {
        return Answer::NoName { zone: ZONE };
    };
    match kind {
        Kind::A | Kind::Any => Answer::Found(Record::A(addresses.v4)),
        Kind::Aaaa => Answer::Found(Record::Aaaa(addresses.v6)),
        Kind::Ptr | Kind::Soa | Kind::Other => Answer::Nothing { zone: ZONE },
    }
}

/// The name of an address within the overlay, or of a range of them, which has `labels`. The zone has `zone` of the `whole`
/// labels that an address has.
fn owner(
    directory: &impl Directory,
    (address, labels): (Option<IpAddr>, usize),
    (zone, whole): (usize, usize),
    kind: Kind,
) -> Answer {
    let Some(address) = address else {
        return Answer::Refused;
    };
    if labels == zone && kind == Kind::Soa {
        return Answer::Found(Record::Soa);
    }
    // With the two labels of all addresses of the family.
    let zone = zone.saturating_add(2);
    if labels < whole {
        return Answer::Nothing { zone };
    }
    match (directory.name(address), kind) {
        (None, _) => Answer::NoName { zone },
        (Some(name), Kind::Ptr | Kind::Any) => {
            let labels = [name, directory.domain().label(), TOP];
            Answer::Found(Record::Ptr(labels.map(str::to_owned).to_vec()))
        }
        (Some(_), Kind::A | Kind::Aaaa | Kind::Soa | Kind::Other) => Answer::Nothing { zone },
    }
}

fn is(label: &[u8], text: &str) -> bool {
    label.eq_ignore_ascii_case(text.as_bytes())
}

/// The range that `labels`, last octet first, stand for.
fn v4(labels: &[&[u8]]) -> Option<Ipv4Net> {
    let mut octets = [0; 4];
    let mut bits = 0u8;
    for (octet, label) in octets.iter_mut().zip(labels.iter().rev()) {
        let text = std::str::from_utf8(label).ok()?;
        // `+1` and `01` are numbers to a parser, and other names.
        *octet = text.parse().ok()?;
        if octet.to_string() != text {
            return None;
        }
        bits = bits.checked_add(8)?;
    }
    let fits = labels.len() <= octets.len();
    Ipv4Net::new(Ipv4Addr::from(octets), bits)
        .ok()
        .filter(|_| fits)
}

/// The range that `labels`, last hexadecimal digit first, stand for.
fn v6(labels: &[&[u8]]) -> Option<Ipv6Net> {
    let mut address = 0u128;
    let mut bits = 0u8;
    for label in labels.iter().rev() {
        let [digit] = label else {
            return None;
        };
        let digit = char::from(*digit).to_digit(16)?;
        bits = bits.checked_add(4).filter(|bits| *bits <= 128)?;
        address |= u128::from(digit).checked_shl(128 - u32::from(bits))?;
    }
    Ipv6Net::new(Ipv6Addr::from(address), bits).ok()
}
