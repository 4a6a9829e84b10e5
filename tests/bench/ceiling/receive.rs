//! UDP to TUN: receive what is there, open it, join what is one stretch of a flow, write each
//! stretch at once.

use std::io::IoSliceMut;

use quinn_udp::{BATCH_SIZE, RecvMeta};
use tun_rs::SyncDevice;

use crate::cipher::{Cipher, HEADER, Opened};
use crate::join::Joiner;
use crate::link::Link;

/// Room for one coalesced receive.
const ROOM: usize = 1 << 16;

/// Where a packet lies after opening.
#[derive(Clone, Copy, Debug)]
struct Lies {
    at: usize,
    length: usize,
}

/// Runs until the socket fails.
pub(crate) fn run(device: &SyncDevice, cipher: &Cipher, link: &Link) -> anyhow::Result<()> {
    let mut received = vec![0; BATCH_SIZE * ROOM];
    // Ciphers that cannot work in place put packets here; a datagram is never longer than its packet.
    let mut opened = match cipher {
        Cipher::Tunn(_) => vec![0; BATCH_SIZE * ROOM + ROOM],
        Cipher::None | Cipher::Fixed(_) => Vec::new(),
    };
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    let mut packets: Vec<Lies> = Vec::new();
    loop {
        let count = {
            let mut rooms = received.chunks_exact_mut(ROOM);
            let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
            link.receive(&mut buffers, &mut meta)?
        };
        packets.clear();
        let mut used = 0;
        for (number, meta) in meta.iter().take(count).enumerate() {
            let (mut at, end) = (number * ROOM, number * ROOM + meta.len);
            // Once per coalesced receive, so that the sender has its turn.
            let mut cipher = cipher.lock();
            while at < end {
                let length = meta.stride.clamp(1, end - at);
                let Some(datagram) = received.get_mut(at..at + length) else {
                    break;
                };
                let lies = match cipher.open_in_place(datagram) {
                    Some(result) => (result, at + HEADER),
                    None => {
                        let to = opened.get_mut(used..).unwrap_or_default();
                        (cipher.open(datagram, to, link), used)
                    }
                };
                if let (Opened::Packet(length), at) = lies {
                    packets.push(Lies { at, length });
                    used += length;
                }
                at += length;
            }
        }
        let from = if opened.is_empty() {
            &received
        } else {
            &opened
        };
        let mut joiner = Joiner::new(device);
        for Lies { at, length } in &packets {
            if let Some(packet) = from.get(*at..at + length) {
                joiner.take(packet);
            }
        }
        joiner.flush();
    }
}
