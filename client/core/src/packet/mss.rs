//! Keeping TCP segments within what a path carries, by the size that both ends announce (RFC 9293,
//! section 3.7.1).

use super::checksum::Sum;
use super::ip::{Fragment, IpPacket, TcpFlags, Transport, protocol};
use super::offload::Offload;
use super::{put, u8_at, u16_at};

/// Lowers the segment size that `packet`, a SYN parsed from `bytes`, announces, so that packets of at most
/// `most` bytes come of it. Leaves everything else as it is.
pub(crate) fn clamp(bytes: &mut [u8], packet: &IpPacket, offload: &Offload, most: usize) {
    let Transport::Tcp { flags, .. } = packet.transport else {
        return;
    };
    if !flags.has(TcpFlags::SYN) || packet.fragment != Fragment::Whole {
        return;
    }
    // Without options, which announced sizes do not count (RFC 6691).
    let headers = if packet.source.is_ipv4() { 40 } else { 60 };
    let Ok(most) = u16::try_from(most.saturating_sub(headers)) else {
        return;
    };
    let Some(at) = option_at(bytes, packet) else {
        return;
    };
    if u16_at(bytes, at).is_none_or(|size| size <= most) {
        return;
    }
    let done = put(bytes, at, &most.to_be_bytes());
    // A sum that is left to us covers the option anyway when it is completed.
    if done.is_some() && offload.checksum.is_none() {
        // The option was found, so the header is there.
        let _ = sum(bytes, packet);
    }
}

/// Where the announced size is.
fn option_at(bytes: &[u8], packet: &IpPacket) -> Option<usize> {
    let header = usize::from(u8_at(bytes, packet.transport_at.checked_add(12)?)? >> 4);
    let end = packet.transport_at.checked_add(header.checked_mul(4)?)?;
    let mut at = packet.transport_at.checked_add(20)?;
    while at < end.min(packet.len) {
        match u8_at(bytes, at)? {
            0 => return None,
            1 => at = at.checked_add(1)?,
            kind => {
                let len = usize::from(u8_at(bytes, at.checked_add(1)?)?);
                let next = at.checked_add(len)?;
                if len < 2 || next > end {
                    return None;
                }
                if kind == 2 && len == 4 {
                    return at.checked_add(2);
                }
                at = next;
            }
        }
    }
    None
}

fn sum(bytes: &mut [u8], packet: &IpPacket) -> Option<()> {
    let transport = bytes.get_mut(packet.transport_at..packet.len)?;
    put(transport, 16, &[0, 0])?;
    let sum = Sum::pseudo_header(
        packet.source,
        packet.destination,
        protocol::TCP,
        transport.len(),
    );
    let sum = sum.add(transport).finish();
    put(transport, 16, &sum.to_be_bytes())
}
