//! Netlink messages of nftables (linux/netlink.h, linux/netfilter/nf_tables.h). Lengths are the sender's word:
//! everything is looked up, nothing indexed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::judge::{Chain, Rule, Table};

/// Bytes of a message's header.
const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`, behind it.
const GENERIC: usize = 4;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;
/// Without the bits that say "nested" and "network byte order".
const TYPE: u16 = 0x3fff;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The dump was interrupted by a change.
const INTERRUPTED: u16 = 0x10;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_GENERATION: u16 = 15;
const DORMANT: u32 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Table(Table),
    Chain(Chain),
    Rule(Rule),
    /// Goes up with every change.
    Generation(u32),
    /// The end of a dump, or how a request ended: 0, or an error number.
    End(i32),
    /// Of another kind, or incomplete.
    Other,
}

/// One message with what its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) sequence: u32,
    pub(super) is_interrupted: bool,
    pub(super) message: Message,
}

/// The messages in one datagram. What is cut off at its end is left out.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let (Some(length), Some(kind), Some(flags), Some(sequence)) = (
        u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok()),
        u16_at(bytes, 4),
        u16_at(bytes, 6),
        u32_at(bytes, 8),
    ) {
        let Some(body) = bytes.get(HEADER..length) else {
            break;
        };
        messages.push(Received {
            sequence,
            is_interrupted: flags & INTERRUPTED != 0,
            message: message(kind, body),
        });
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    messages
}

fn message(kind: u16, body: &[u8]) -> Message {
    match kind {
        ERROR | DONE => {
            let errno = body
                .first_chunk()
                .map_or(0, |code| i32::from_ne_bytes(*code));
            return Message::End(errno.checked_neg().unwrap_or(i32::MAX));
        }
        _ if kind >> 8 != SUBSYSTEM => return Message::Other,
        _ => {}
    }
    let family = body.first().copied().unwrap_or(0);
    let attributes = body.get(GENERIC..).unwrap_or_default();
    let parsed = match kind & 0xff {
        NEW_TABLE => table(family, attributes).map(Message::Table),
        NEW_CHAIN => chain(family, attributes).map(Message::Chain),
        NEW_RULE => rule(family, attributes).map(Message::Rule),
        NEW_GENERATION => find(attributes, 1)
            .and_then(number)
            .map(Message::Generation),
        _ => None,
    };
    parsed.unwrap_or(Message::Other)
}

fn table(family: u8, attributes: &[u8]) -> Option<Table> {
    Some(Table {
        family,
        name: text(find(attributes, 1)?),
        is_dormant: find(attributes, 2)
            .and_then(number)
            .is_some_and(|flags| flags & DORMANT != 0),
    })
}

fn chain(family: u8, attributes: &[u8]) -> Option<Chain> {
    Some(Chain {
        family,
        table: text(find(attributes, 1)?),
        name: text(find(attributes, 3)?),
        hook: find(attributes, 4)
            .and_then(|hook| find(hook, 1))
            .and_then(number),
        policy: find(attributes, 5).and_then(number),
    })
}

fn rule(family: u8, attributes: &[u8]) -> Option<Rule> {
    Some(Rule {
        family,
        table: text(find(attributes, 1)?),
        chain: text(find(attributes, 2)?),
        drops_all: find(attributes, 4).and_then(drops_all),
    })
}

/// Whether a rule with these expressions drops or accepts every packet. Counters, logs and comments decide
/// nothing; whatever else comes before the verdict makes it conditional.
fn drops_all(expressions: &[u8]) -> Option<bool> {
    let mut verdict = None;
    for (_, expression) in attributes(expressions) {
        let name = text(find(expression, 1)?);
        let details = find(expression, 2).unwrap_or_default();
        match name.as_str() {
            "counter" | "log" => {}
            "reject" => verdict = Some(true),
            "immediate" => verdict = Some(immediate(details)?),
            // Extensions of iptables-nft, which keeps its comments and REJECT as such.
            "match" if extension(details).as_deref() == Some("comment") => {}
            "target" if extension(details).as_deref() == Some("REJECT") => verdict = Some(true),
            _ => return None,
        }
    }
    verdict
}

/// Whether an immediate verdict drops; none for one that hands on, and for data.
fn immediate(details: &[u8]) -> Option<bool> {
    let into_verdict = find(details, 1).and_then(number)? == 0;
    let code = find(details, 2)
        .and_then(|data| find(data, 2))
        .and_then(|verdict| find(verdict, 1))
        .and_then(number)?;
    match code {
        NF_DROP if into_verdict => Some(true),
        NF_ACCEPT if into_verdict => Some(false),
        _ => None,
    }
}

fn extension(details: &[u8]) -> Option<String> {
    find(details, 1).map(text)
}

/// The attribute of this type.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Type and value of each attribute, up to one that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A number of nftables, in network byte order.
fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// A name, without the NUL at its end.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let value = end.and_then(|end| value.get(..end)).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    bytes.get(at..end)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "lengths of a few bytes")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4)
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn expression(name: &str, details: &[u8]) -> Vec<u8> {
        attribute(
            1,
            &[attribute(1, name.as_bytes()), attribute(2, details)].concat(),
        )
    }

    fn verdict(register: u32, code: i32) -> Vec<u8> {
        let code = attribute(1, &code.to_be_bytes());
        let data = attribute(2, &attribute(2, &code));
        [attribute(1, &register.to_be_bytes()), data].concat()
    }

    fn whole(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn only_what_decides_about_every_packet_counts() {
        let accept = expression("immediate", &verdict(0, 1));
        let drop = expression("immediate", &verdict(0, 0));
        let counter = expression("counter", &[]);
        assert_eq!(drops_all(&accept), Some(false));
        assert_eq!(
            drops_all(&[counter.clone(), drop.clone()].concat()),
            Some(true)
        );
        assert_eq!(drops_all(&expression("reject", &[])), Some(true));
        assert_eq!(drops_all(&counter), None);
        let asks = expression("cmp", &[]);
        assert_eq!(drops_all(&[asks, drop].concat()), None);
        // A jump (-3), and data for something else.
        assert_eq!(drops_all(&expression("immediate", &verdict(0, -3))), None);
        assert_eq!(drops_all(&expression("immediate", &verdict(1, 0))), None);
        let reject = expression("target", &attribute(1, b"REJECT\0"));
        let comment = expression("match", &attribute(1, b"comment\0"));
        let owner = expression("match", &attribute(1, b"owner\0"));
        assert_eq!(drops_all(&[comment, reject.clone()].concat()), Some(true));
        assert_eq!(drops_all(&[owner, reject].concat()), None);
    }

    #[test]
    fn messages_are_read_one_behind_the_other() {
        let hook = attribute(1, &1_u32.to_be_bytes());
        let body = [
            vec![1, 0, 0, 0],
            attribute(1, b"filter\0"),
            attribute(3, b"in\0"),
            attribute(4 | 0x8000, &hook),
            attribute(5, &0_u32.to_be_bytes()),
        ]
        .concat();
        let bytes = [whole(0x0a03, &body), whole(DONE, &0_i32.to_ne_bytes())].concat();
        let read = messages(&bytes);
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].message, Message::End(0));
        let Message::Chain(chain) = &read[0].message else {
            panic!("{read:?}")
        };
        assert_eq!(
            (chain.name.as_str(), chain.hook, chain.policy),
            ("in", Some(1), Some(0))
        );
        assert!(chain.sees_input());
        assert_eq!(
            messages(&bytes[..bytes.len() - 1]).len(),
            1,
            "one is cut off"
        );
        let refused = messages(&whole(ERROR, &(-1_i32).to_ne_bytes()));
        assert_eq!(refused[0].message, Message::End(1));
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(messages(&bytes).len() <= bytes.len() / HEADER);
            let _verdict = drops_all(&bytes);
        }

        #[test]
        fn damaged_messages_are_read_without_a_panic(
            kind in 0_u16..20,
            at in 0_usize..200,
            byte in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let rule = [
                vec![1, 0, 0, 0],
                attribute(1, b"filter\0"),
                attribute(2, b"in\0"),
                attribute(4, &[expression("immediate", &verdict(0, 0)), body].concat()),
            ]
            .concat();
            let mut bytes = whole(0x0a00 | kind, &rule);
            let at = at % bytes.len();
            bytes[at] = byte;
            prop_assert!(messages(&bytes).len() <= bytes.len() / HEADER);
        }
    }
}
