//! Keeps the host from taking packets for its overlay addresses off any interface but the tunnel.
//!
//! Linux answers for all its addresses on all its interfaces, so a neighbour on the LAN could send to an
//! overlay address past the tunnel and its filter. The routing rules keep answers from leaving; these
//! tables of nftables drop the packets themselves, before routing:
//!
//! ```text
//! table ip gatereeve-TUN {
//!   chain guard {
//!     type filter hook prerouting priority raw; policy accept;
//!     ip daddr OWN4 iifname != TUN iifname != "lo" drop
//!   }
//! }
//! ```
//!
//! and the same of family `ip6`. Every packet that the host receives comes by here: one table per family spares it the other's
//! rule, and the address comes first, because it is the cheapest to compare and settles nearly all of them.
//!
//! The tables are owned by our netlink socket: no other program's `flush ruleset` removes them, and they go
//! when the socket does, so that nothing stays behind, after a crash neither. The messages are written by
//! hand; the format is that of linux/netfilter/nf_tables.h.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use gatereeve_shared::wire::map::OverlayAddresses;

const CHAIN: &str = "guard";
/// Seconds to wait for the kernel's word.
const PATIENCE: i64 = 2;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ERROR: u16 = 0x2;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TABLE_OWNER: u32 = 0x2;
/// Before connection tracking: `priority raw`.
const PRIORITY: i32 = -300;
const META_IIFNAME: u32 = 6;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// The tables, for as long as this value lives.
#[derive(Debug)]
pub struct Guard {
    _socket: OwnedFd,
}

impl Guard {
    /// Puts the tables in force, in one transaction.
    ///
    /// # Errors
    /// When the kernel has no nftables with table owners (Linux 5.12), or refuses.
    pub fn new(tun: &str, own: &OverlayAddresses) -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .context("no nftables on this host")?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let (batch, acknowledgements) = batch(tun, own);
        send(socket.as_raw_fd(), &batch, MsgFlags::empty()).context("nftables takes no request")?;
        confirm(&socket, acknowledgements)?;
        Ok(Self { _socket: socket })
    }
}

/// All messages of the transaction, and how many of them are acknowledged.
fn batch(tun: &str, own: &OverlayAddresses) -> (Vec<u8>, usize) {
    let tables = [
        (FAMILY_IPV4, bodies(tun, IpAddr::V4(own.v4))),
        (FAMILY_IPV6, bodies(tun, IpAddr::V6(own.v6))),
    ];
    let mut messages = vec![message(BATCH_BEGIN, 0, 0, 0, SUBSYSTEM, &[])];
    for (family, bodies) in tables {
        for (kind, flags, body) in bodies {
            let flags = CREATE | ACK | flags;
            messages.push(message(kind, flags, 1, family, 0, &body));
        }
    }
    let acknowledged = messages.len() - 1;
    messages.push(message(BATCH_END, 0, 2, 0, SUBSYSTEM, &[]));
    (messages.concat(), acknowledged)
}

/// What makes the table for one address: kinds, flags and contents of the messages.
fn bodies(tun: &str, address: IpAddr) -> [(u16, u16, Vec<u8>); 3] {
    let name = format!("gatereeve-{tun}");
    let table = [text(1, &name), number(2, TABLE_OWNER)];
    let hook = [number(1, 0), attribute(2, &PRIORITY.to_be_bytes())].concat();
    let chain = [
        text(1, &name),
        text(3, CHAIN),
        nested(4, &hook),
        number(5, 1),
        text(7, "filter"),
    ];
    let rule = [
        text(1, &name),
        text(2, CHAIN),
        nested(4, &expressions(tun, address)),
    ];
    [
        (NEW_TABLE, 0, table.concat()),
        (NEW_CHAIN, 0, chain.concat()),
        (NEW_RULE, APPEND, rule.concat()),
    ]
}

/// `daddr ADDRESS iifname != tun iifname != "lo" drop`
fn expressions(tun: &str, address: IpAddr) -> Vec<u8> {
    let interface = |name: &str| {
        let mut padded = [0; 16];
        for (to, from) in padded.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        [load_meta(META_IIFNAME), compare(NOT_EQUAL, &padded)].concat()
    };
    let (offset, bytes) = match address {
        IpAddr::V4(v4) => (16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (24, v6.octets().to_vec()),
    };
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    let load_destination = expression(
        "payload",
        &[
            number(1, 1),
            number(2, NETWORK_HEADER),
            number(3, offset),
            number(4, length),
        ]
        .concat(),
    );
    let verdict = nested(2, &number(1, 0));
    let drop = expression("immediate", &[number(1, 0), nested(2, &verdict)].concat());
    [
        load_destination,
        compare(EQUAL, &bytes),
        interface(tun),
        interface("lo"),
        drop,
    ]
    .concat()
}

fn load_meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, 1), number(2, key)].concat())
}

fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    let data = nested(3, &attribute(1, value));
    expression("cmp", &[number(1, 1), number(2, operation), data].concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, content)
}

/// Length, kind and content, filled up to a multiple of four.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Waits until the kernel has acknowledged `expected` messages, or refused one.
fn confirm(socket: &OwnedFd, expected: usize) -> Result<()> {
    let mut buffer = [0; 8192];
    let mut confirmed = 0;
    while confirmed < expected {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
            .context("nftables does not answer")?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, error, next)) = answer(rest) {
            if kind == ERROR && error != 0 {
                return Err(io::Error::from_raw_os_error(error.saturating_neg()))
                    .context("nftables refuses the tables that guard the overlay addresses");
            }
            confirmed += usize::from(kind == ERROR);
            rest = next;
        }
        if length == 0 {
            bail!("nftables has closed the connection");
        }
    }
    Ok(())
}

/// Kind and error number of the first message, and what is behind it.
fn answer(bytes: &[u8]) -> Option<(u16, i32, &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length >= 16)?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let error = bytes
        .get(16..20)
        .and_then(|error| error.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, error, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(text(1, "ab"), [7, 0, 1, 0, b'a', b'b', 0, 0]);
        assert_eq!(number(2, 5), [8, 0, 2, 0, 0, 0, 0, 5]);
        assert_eq!(nested(4, &[]), [4, 0, 4, 0x80]);
    }

    #[test]
    fn a_batch_is_whole_messages_from_begin_to_end() {
        let own = OverlayAddresses {
            v4: "100.64.0.1".parse().unwrap(),
            v6: "fd00::1".parse().unwrap(),
        };
        let (bytes, acknowledgements) = batch("gatereeve0", &own);
        let mut kinds = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((kind, _, next)) = answer(rest) {
            kinds.push(kind);
            rest = next;
        }
        assert!(rest.is_empty());
        assert_eq!(acknowledgements, 6);
        let table = [NEW_TABLE, NEW_CHAIN, NEW_RULE];
        let expected = [&[BATCH_BEGIN][..], &table, &table, &[BATCH_END]].concat();
        assert_eq!(kinds, expected);
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(holds(&[100, 64, 0, 1]) && holds(b"gatereeve-gatereeve0\0"));
    }

    #[test]
    fn what_the_kernel_says_is_read_with_care() {
        assert!(answer(&[]).is_none());
        assert!(answer(&[1, 0, 0, 0, 2, 0]).is_none());
        let refused = [
            &[20, 0, 0, 0, 2, 0, 0, 0][..],
            &[0; 8],
            &(-1i32).to_ne_bytes(),
        ]
        .concat();
        assert_eq!(
            answer(&refused).map(|(kind, error, _)| (kind, error)),
            Some((ERROR, -1))
        );
    }
}
