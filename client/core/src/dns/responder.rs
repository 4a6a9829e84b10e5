//! From a packet of the host to the packet that answers it.

use crate::packet::{Fragment, IpPacket, Transport, answer as reply};

use super::message;
use super::zone::{Directory, look_up};

/// The port that names are asked for at.
const PORT: u16 = 53;
/// Room that an answer needs at most, in bytes: its headers, the question's name, and the longest record.
pub(crate) const ROOM: usize = 1024;

/// Writes the packet that answers the one in `bytes`, which is for the [resolver](super::resolver), and returns its length.
/// `None` where it is no question: over TCP as well, as no answer is so long that it would not fit into a datagram.
pub(crate) fn answer(
    bytes: &[u8],
    packet: &IpPacket,
    directory: &impl Directory,
    out: &mut [u8],
) -> Option<usize> {
    let Transport::Udp {
        source,
        destination: PORT,
    } = packet.transport
    else {
        return None;
    };
    if packet.fragment != Fragment::Whole {
        return None;
    }
    let query = reply::udp_payload(bytes, packet)?;
    let room = reply::udp_room(packet, out)?;
    let len = message::respond(query, room, |question| look_up(directory, question))?;
    reply::udp(packet, (PORT, source), len, out)
}
