//! Which queue the kernel has chosen for a flow, so that nothing here makes it choose another.
//!
//! What leaves for a flow waits in a queue that the kernel chooses by a hash, until a packet of the flow is
//! written: from then on it is the queue of that write. A UDP flow that sends at once and is answered in the
//! middle must therefore be answered by the queue that it waits in already, or its later packets overtake those
//! that wait. Of TCP only the SYN is under way by then, and moving brings both directions to one worker.

use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const UDP: u8 = 17;
/// The fragment header of IPv6.
const FRAGMENT: u8 = 44;

/// Bits of an entry's number. Of two flows that share an entry the last one that was read has it. The next bits of the hash
/// tell them apart; where those are the same, too, each may be moved to the queue of the other. There is no key that
/// keeps peers from choosing such flows: all they get is datagrams in another order.
const BITS: u32 = 14;
const NOTHING: u32 = 0;
/// The part of an entry that is the queue.
const QUEUE: u32 = 0xffff;

/// By which queue packets of a UDP flow were last read; shared by all queues of a device.
#[derive(Debug)]
pub(super) struct Steering {
    /// [`NOTHING`], or what tells the flow from others, and below it the queue's position plus one.
    entries: Box<[AtomicU32]>,
}

impl Default for Steering {
    fn default() -> Self {
        let entries = (0..1 << BITS).map(|_| AtomicU32::new(NOTHING));
        Self {
            entries: entries.collect(),
        }
    }
}

impl Steering {
    /// `packet` was read by the queue at `position`.
    pub(super) fn read_by(&self, position: usize, packet: &[u8]) {
        let Some((entry, tag)) = self.entry(packet) else {
            return;
        };
        let queue = u16::try_from(position.saturating_add(1));
        let known = queue.map_or(NOTHING, |queue| tag | u32::from(queue));
        // Many packets, few changes: the cache line stays with all cores that read it.
        if entry.load(Ordering::Relaxed) != known {
            entry.store(known, Ordering::Relaxed);
        }
    }

    /// The position of the queue that has to take `packet`; `None` where it is all one.
    pub(super) fn queue_of(&self, packet: &[u8]) -> Option<usize> {
        let (entry, tag) = self.entry(packet)?;
        let known = entry.load(Ordering::Relaxed);
        let queue = (known & !QUEUE == tag).then_some(known & QUEUE)?;
        usize::try_from(queue).ok()?.checked_sub(1)
    }

    /// Where it is noted, and what tells it from others there.
    fn entry(&self, packet: &[u8]) -> Option<(&AtomicU32, u32)> {
        let hash = hash(packet)?;
        let place = usize::try_from(hash >> (u64::BITS - BITS)).ok()?;
        let tag = u32::try_from((hash << BITS) >> u32::BITS).ok()? & !QUEUE;
        Some((self.entries.get(place)?, tag))
    }
}

/// A number that both directions of a UDP flow have in common, and fragments between two hosts, which the kernel
/// tells by their addresses alone, too. `None` for all else.
fn hash(packet: &[u8]) -> Option<u64> {
    let (from, to, ports) = match packet {
        // Without options.
        [0x45, _, _, _, _, _, fragment, offset, _, UDP, ..] => {
            let is_whole = fragment & 0x3f == 0 && *offset == 0;
            (12..16, 16..20, is_whole.then_some(20))
        }
        [first, _, _, _, _, _, UDP, ..] if first >> 4 == 6 => (8..24, 24..40, Some(40)),
        [first, _, _, _, _, _, FRAGMENT, ..] if first >> 4 == 6 => (8..24, 24..40, None),
        _ => return None,
    };
    let [from_port, to_port] = match ports {
        Some(at) => {
            let (ports, _) = packet.get(at..)?.split_first_chunk::<4>()?;
            let [a, b, c, d] = *ports;
            [[a, b], [c, d]].map(u16::from_ne_bytes)
        }
        None => [0; 2],
    };
    let end = |address: std::ops::Range<usize>, port: u16| {
        let words = packet.get(address)?.as_chunks::<4>().0;
        let words = words.iter().map(|word| u32::from_ne_bytes(*word));
        Some(words.chain([u32::from(port)]).fold(0, mix))
    };
    // A sum is the same from both ends.
    let ends = end(from, from_port)?.wrapping_add(end(to, to_port)?);
    Some(mix(ends ^ (ends >> 32), 0))
}

/// Adds `word` to a hash, of which the high bits are the good ones.
pub(super) fn mix(hash: u64, word: u32) -> u64 {
    // Multiplication by a large odd number carries every bit upwards, and the rotation down again.
    (hash.rotate_left(23) ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;

    const TCP: u8 = 6;

    /// The start of a packet, as far as it matters.
    fn packet(protocol: u8, from: &str, to: &str) -> Vec<u8> {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|end| end.parse().unwrap());
        let mut packet = vec![0; if from.is_ipv4() { 12 } else { 8 }];
        if from.is_ipv4() {
            packet[0] = 0x45;
            packet[9] = protocol;
        } else {
            packet[0] = 0x60;
            packet[6] = protocol;
        }
        for address in [from.ip(), to.ip()] {
            match address {
                IpAddr::V4(address) => packet.extend(address.octets()),
                IpAddr::V6(address) => packet.extend(address.octets()),
            }
        }
        packet.extend(from.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    const V4: [&str; 2] = ["100.64.0.1:5000", "100.64.0.2:53"];
    const V6: [&str; 2] = ["[fd00::1]:5000", "[fd00::2]:53"];

    #[test]
    fn answers_are_written_where_the_flow_is_read() {
        for [near, far] in [V4, V6] {
            let steering = Steering::default();
            let (out, back) = (packet(UDP, near, far), packet(UDP, far, near));
            assert_eq!(steering.queue_of(&back), None);
            steering.read_by(0, &out);
            assert_eq!(steering.queue_of(&back), Some(0));
            assert_eq!(steering.queue_of(&out), Some(0));
            // After a silence the kernel has chosen another.
            steering.read_by(255, &out);
            assert_eq!(steering.queue_of(&back), Some(255));
        }
    }

    #[test]
    fn flows_are_told_by_addresses_and_ports() {
        let v4 = packet(UDP, V4[0], V4[1]);
        for other in [
            packet(UDP, "100.64.0.1:5001", V4[1]),
            packet(UDP, V4[0], "100.64.0.2:54"),
            packet(UDP, "100.64.0.3:5000", V4[1]),
            // The same numbers, but other ends.
            packet(UDP, "100.64.0.1:53", "100.64.0.2:5000"),
        ] {
            assert_ne!(hash(&v4), hash(&other));
        }
        let v6 = packet(UDP, V6[0], V6[1]);
        assert_ne!(hash(&v6), hash(&packet(UDP, "[fd00::1]:5001", V6[1])));
        assert_ne!(hash(&v6), hash(&packet(UDP, "[fd00::1:1]:5000", V6[1])));
    }

    #[test]
    fn fragments_are_told_by_addresses() {
        let fragment = |from, to, field: u16| {
            let mut packet = packet(UDP, from, to);
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            packet
        };
        let [near, far] = V4;
        let first = fragment(near, far, 0x2000);
        // Where ports would be is anything.
        let last = fragment("100.64.0.1:1", "100.64.0.2:2", 0x00b9);
        let back = fragment(far, near, 0x20b9);
        assert!(hash(&first).is_some());
        assert_eq!(hash(&first), hash(&last));
        assert_eq!(hash(&first), hash(&back));
        assert_ne!(hash(&first), hash(&packet(UDP, near, far)));
        let whole = fragment(near, far, 0x4000);
        let fragment = |from, to| packet(FRAGMENT, from, to);
        let [near, far] = V6;
        assert!(hash(&fragment(near, far)).is_some());
        assert_eq!(hash(&fragment(near, far)), hash(&fragment(far, near)));
        assert_eq!(
            hash(&fragment(near, far)),
            hash(&fragment("[fd00::1]:1", "[fd00::2]:2"))
        );
        assert_ne!(hash(&fragment(near, far)), hash(&packet(UDP, near, far)));
        // "Do not fragment" makes none.
        assert_eq!(hash(&whole), hash(&packet(UDP, V4[0], V4[1])));
    }

    #[test]
    fn nothing_else_is_remembered() {
        let steering = Steering::default();
        let with_options = {
            let mut packet = packet(UDP, V4[0], V4[1]);
            packet[0] = 0x46;
            packet
        };
        let whole = packet(UDP, V6[0], V6[1]);
        let others = [
            packet(TCP, V4[0], V4[1]),
            packet(TCP, V6[0], V6[1]),
            with_options,
            whole[..43].to_vec(),
            vec![0x45],
            Vec::new(),
        ];
        for other in &others {
            steering.read_by(3, other);
            assert_eq!(steering.queue_of(other), None, "{other:?}");
        }
        let mut entries = steering.entries.iter();
        assert!(entries.all(|entry| entry.load(Ordering::Relaxed) == NOTHING));
    }

    #[test]
    fn many_flows_have_entries_of_their_own() {
        let steering = Steering::default();
        let flows = (0..1000).map(|flow| {
            let near = format!("100.64.0.1:{}", 32_768 + flow);
            packet(UDP, &near, V4[1])
        });
        let flows: Vec<_> = flows.collect();
        for (position, flow) in flows.iter().enumerate() {
            steering.read_by(position, flow);
        }
        let kept = flows.iter().enumerate();
        let kept = kept.filter(|(position, flow)| steering.queue_of(flow) == Some(*position));
        // By chance it is 970.
        let kept = kept.count();
        assert!(kept > 950);
        // The others share an entry, and have nobody else's queue.
        assert!(kept < flows.len(), "the control");
        let known = flows
            .iter()
            .filter(|flow| steering.queue_of(flow).is_some());
        assert_eq!(known.count(), kept);
    }
}
