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
    match question.labels.as_slice() {
        [rest @ .., label, top] if is(top, TOP) && is(label, directory.domain().label()) => {
            device(directory, rest, question.kind)
        }
        [rest @ .., family, arpa] if is(arpa, "arpa") && is(family, "in-addr") => {
            let asked = v4(rest).filter(|asked| directory.prefixes().v4.contains(asked));
            let is_whole = rest.len() == 4;
            let address = asked.map(|asked| asked.addr().into());
            owner(directory, address, is_whole, question.kind)
        }
        [rest @ .., family, arpa] if is(arpa, "arpa") && is(family, "ip6") => {
            let asked = v6(rest).filter(|asked| directory.prefixes().v6.contains(asked));
            let is_whole = rest.len() == 32;
            let address = asked.map(|asked| asked.addr().into());
            owner(directory, address, is_whole, question.kind)
        }
        _ => Answer::Refused,
    }
}

/// A name within the network's domain.
fn device(directory: &impl Directory, labels: &[&[u8]], kind: Kind) -> Answer {
    let label = match labels {
        [] => return Answer::Nothing,
        [label] => std::str::from_utf8(label).map(str::to_ascii_lowercase),
        _ => return Answer::NoName,
    };
    let Some(addresses) = label.ok().and_then(|name| directory.addresses(&name)) else {
        return Answer::NoName;
    };
    match kind {
        Kind::A | Kind::Any => Answer::Found(Record::A(addresses.v4)),
        Kind::Aaaa => Answer::Found(Record::Aaaa(addresses.v6)),
        Kind::Ptr | Kind::Other => Answer::Nothing,
    }
}

/// The name of an address within the overlay, or of a range of them.
fn owner(
    directory: &impl Directory,
    address: Option<IpAddr>,
    is_whole: bool,
    kind: Kind,
) -> Answer {
    let Some(address) = address else {
        return Answer::Refused;
    };
    if !is_whole {
        return Answer::Nothing;
    }
    match (directory.name(address), kind) {
        (None, _) => Answer::NoName,
        (Some(name), Kind::Ptr | Kind::Any) => {
            let labels = [name, directory.domain().label(), TOP];
            Answer::Found(Record::Ptr(labels.map(str::to_owned).to_vec()))
        }
        (Some(_), Kind::A | Kind::Aaaa | Kind::Other) => Answer::Nothing,
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
