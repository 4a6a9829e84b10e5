//! Joining packets that are one stretch of a flow, and writing them without another copy.

use std::io::IoSlice;

use nix::sys::uio::writev;
use tun_rs::SyncDevice;

use crate::checksum::{finish, fold, pseudo, sum};
use crate::super_packet::{TCP, UDP, VNET, Vnet, put, take};

/// Most pieces of one write.
const PIECES: usize = 64;
/// Longest headers that are joined: IPv6 without extensions and TCP with all options.
const HEADERS: usize = 100;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

/// A packet's parts, as far as joining is concerned.
struct View<'a> {
    ipv6: bool,
    protocol: u8,
    /// Where the transport header begins.
    start: usize,
    headers: &'a [u8],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// `None` for what is never joined.
    fn of(packet: &'a [u8]) -> Option<Self> {
        let first = *packet.first()?;
        let ipv6 = first >> 4 == 6;
        let (start, protocol, total) = if ipv6 {
            let payload = u16::from_be_bytes(take(packet, 4)?);
            (40, *packet.get(6)?, 40 + usize::from(payload))
        } else {
            let total = u16::from_be_bytes(take(packet, 2)?);
            // Fragments are not joined.
            let whole = take(packet, 6)?;
            if u16::from_be_bytes(whole) & 0x3fff != 0 {
                return None;
            }
            let start = usize::from(first & 0x0f) * 4;
            (start, *packet.get(9)?, usize::from(total))
        };
        let head = match protocol {
            UDP => start + 8,
            TCP => {
                let flags = *packet.get(start + 13)?;
                if flags & !PUSH != ACK {
                    return None;
                }
                start + usize::from(packet.get(start + 12)? >> 4) * 4
            }
            _ => return None,
        };
        let (headers, payload) = packet.get(..total)?.split_at_checked(head)?;
        let is_joinable = !payload.is_empty() && head <= HEADERS && head > start;
        is_joinable.then_some(Self {
            ipv6,
            protocol,
            start,
            headers,
            payload,
        })
    }

    fn transport(&self) -> &'a [u8] {
        self.headers.get(self.start..).unwrap_or_default()
    }

    fn sequence(&self) -> u32 {
        take(self.transport(), 4).map_or(0, u32::from_be_bytes)
    }

    fn pushes(&self) -> bool {
        self.protocol == TCP
            && self
                .transport()
                .get(13)
                .is_some_and(|flags| flags & PUSH != 0)
    }

    /// Whether all that has to be equal within a stretch is.
    fn is_of_the_flow_of(&self, other: &View<'_>) -> bool {
        let same =
            |from: usize, to: usize| self.headers.get(from..to) == other.headers.get(from..to);
        let same_transport = |from: usize, to: usize| {
            self.transport().get(from..to) == other.transport().get(from..to)
        };
        let network = if self.ipv6 {
            same(0, 4) && same(6, 40)
        } else {
            same(0, 2) && same(8, 9) && same(12, self.start)
        };
        let transport = match self.protocol {
            UDP => same_transport(0, 4),
            // Ports, acknowledgement, data offset, window, options.
            _ => {
                same_transport(0, 4)
                    && same_transport(8, 13)
                    && same_transport(14, 16)
                    && self.transport().get(20..) == other.transport().get(20..)
            }
        };
        (self.ipv6, self.protocol, self.headers.len())
            == (other.ipv6, other.protocol, other.headers.len())
            && network
            && transport
    }
}

/// Joins the packets of one batch.
pub(crate) struct Joiner<'a> {
    device: &'a SyncDevice,
    first: Option<View<'a>>,
    pieces: Vec<&'a [u8]>,
    /// Bytes of payload so far.
    bytes: usize,
    pushes: bool,
    /// A shorter or pushed segment was the last.
    is_closed: bool,
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(device: &'a SyncDevice) -> Self {
        Self {
            device,
            first: None,
            pieces: Vec::with_capacity(PIECES),
            bytes: 0,
            pushes: false,
            is_closed: false,
        }
    }

    /// Takes the next packet.
    pub(crate) fn take(&mut self, packet: &'a [u8]) {
        let Some(view) = View::of(packet) else {
            self.flush();
            self.write(&[IoSlice::new(&Vnet::checked()), IoSlice::new(packet)]);
            return;
        };
        if !self.continues(&view) {
            self.flush();
        }
        let size = self
            .pieces
            .first()
            .map_or(view.payload.len(), |piece| piece.len());
        self.pieces.push(view.payload);
        self.bytes += view.payload.len();
        self.pushes |= view.pushes();
        self.is_closed = view.payload.len() < size || view.pushes();
        self.first.get_or_insert(view);
    }

    fn continues(&self, view: &View<'_>) -> bool {
        let (Some(first), Some(piece)) = (&self.first, self.pieces.first()) else {
            return false;
        };
        let follows = || match view.protocol {
            UDP => true,
            _ => {
                let before = u32::try_from(self.bytes).unwrap_or(0);
                view.sequence() == first.sequence().wrapping_add(before)
            }
        };
        !self.is_closed
            && self.pieces.len() < PIECES
            && view.payload.len() <= piece.len()
            && view.headers.len() + self.bytes + view.payload.len() <= usize::from(u16::MAX)
            && view.is_of_the_flow_of(first)
            && follows()
    }

    /// Writes what has been joined.
    pub(crate) fn flush(&mut self) {
        let Some(first) = self.first.take() else {
            return;
        };
        let mut head = [0; VNET + HEADERS];
        let length = VNET + first.headers.len();
        if let Some(headers) = head.get_mut(VNET..length) {
            headers.copy_from_slice(first.headers);
            let mut vnet = Vnet::checked();
            if let [piece, _, ..] = self.pieces[..] {
                self.rewrite(&first, headers);
                let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
                vnet = Vnet::joined(
                    first.ipv6,
                    first.protocol,
                    short(first.headers.len()),
                    short(first.start),
                    short(piece.len()),
                );
            }
            put(&mut head, 0, vnet);
        }
        let slices: Vec<IoSlice<'_>> = std::iter::once(head.get(..length).unwrap_or_default())
            .chain(self.pieces.iter().copied())
            .map(IoSlice::new)
            .collect();
        self.write(&slices);
        self.pieces.clear();
        (self.bytes, self.pushes, self.is_closed) = (0, false, false);
    }

    /// Makes the headers of the first those of all: lengths, flags, and the beginning of a checksum
    /// that the kernel completes.
    fn rewrite(&self, first: &View<'_>, headers: &mut [u8]) {
        let total = headers.len() + self.bytes;
        let be = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        let (network, transport) = headers.split_at_mut(first.start);
        let length = total - first.start;
        let addresses = if first.ipv6 {
            put(network, 4, be(length));
            8..40
        } else {
            put(network, 2, be(total));
            put(network, 10, [0, 0]);
            put(network, 10, finish(sum(network)));
            12..20
        };
        let addresses = network.get(addresses).unwrap_or_default();
        let begun = fold(pseudo(addresses, first.protocol, length));
        if first.protocol == UDP {
            put(transport, 4, be(length));
            put(transport, 6, begun);
        } else {
            if let Some(flags) = transport.get_mut(13).filter(|_| self.pushes) {
                *flags |= PUSH;
            }
            put(transport, 16, begun);
        }
    }

    fn write(&self, slices: &[IoSlice<'_>]) {
        // A full queue drops, as a network does.
        let _ = writev(self.device, slices);
    }
}
