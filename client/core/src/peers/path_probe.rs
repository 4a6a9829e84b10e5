//! What two data paths say to each other about the path between them: a probe of some length, and the word that it
//! came through.
//!
//! On the wire both look like an IPv4 packet of protocol 253, which is left for such things (RFC 3692), from
//! nobody to nobody. They come through a session, so that only the peer can have sent them; they are read here
//! and never given to the host. Who does not know them drops them, as coming from an address that is not the peer's, and
//! counts them as such.

use crate::packet::ip::protocol;
use crate::wg::OVERLAY_MTU;

/// Length of a message that has no length to prove, in bytes.
pub(crate) const SHORT: usize = 64;
const MAGIC: [u8; 8] = *b"GR-PATH1";
const HEADER: usize = 20;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathMessage {
    pub(crate) kind: Kind,
    /// Which of the sender's lengths.
    pub(crate) length: u8,
    /// Which of the sender's searches.
    pub(crate) search: u32,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Did this come through?
    Probe,
    /// It did.
    Answer,
}

impl PathMessage {
    /// Writes it, `len` bytes long, which is from [`SHORT`] to [`OVERLAY_MTU`].
    pub(crate) fn write(self, len: usize, room: &mut [u8; OVERLAY_MTU]) -> Option<&[u8]> {
        let message = room.get_mut(..len)?;
        message.fill(0);
        let (header, body) = message.split_first_chunk_mut::<HEADER>()?;
        let total = u16::try_from(len).ok()?.to_be_bytes();
        // Version and length of the header, total length, "do not fragment", one hop.
        header[0] = 0x45;
        header[2..4].copy_from_slice(&total);
        header[6] = 0x40;
        header[8] = 1;
        header[9] = protocol::EXPERIMENT;
        let (fields, _) = body.split_first_chunk_mut::<16>()?;
        fields[..8].copy_from_slice(&MAGIC);
        fields[8] = match self.kind {
            Kind::Probe => 1,
            Kind::Answer => 2,
        };
        fields[9] = self.length;
        fields[12..].copy_from_slice(&self.search.to_be_bytes());
        Some(message)
    }

    /// Reads what came out of a session; `None` for everything else.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        if packet.len() < SHORT {
            return None;
        }
        let (header, body) = packet.split_first_chunk::<HEADER>()?;
        let is_one =
            header[0] == 0x45 && header[9] == protocol::EXPERIMENT && header[12..] == [0; 8];
        if !is_one {
            return None;
        }
        let (fields, _) = body.split_first_chunk::<16>()?;
        let [length, _, _] = *fields[9..].first_chunk()?;
        let kind = match (&fields[..8] == MAGIC.as_slice(), fields[8]) {
            (true, 1) => Kind::Probe,
            (true, 2) => Kind::Answer,
            _ => return None,
        };
        Some(Self {
            kind,
            length,
            search: u32::from_be_bytes(*fields[12..].first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let mut room = [0xff; OVERLAY_MTU];
        for (kind, len) in [(Kind::Probe, OVERLAY_MTU), (Kind::Answer, SHORT)] {
            let message = PathMessage {
                kind,
                length: 3,
                search: 0xdead_beef,
            };
            let bytes = message.write(len, &mut room).unwrap().to_vec();
            assert_eq!(bytes.len(), len);
            assert_eq!(PathMessage::read(&bytes), Some(message));
            for cut in 0..SHORT {
                assert_eq!(PathMessage::read(&bytes[..cut]), None, "{cut}");
            }
            for at in [0, 9, 12, 19, 20, 27, 28] {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert_eq!(PathMessage::read(&other), None, "{at}");
            }
        }
        assert!(
            PathMessage {
                kind: Kind::Probe,
                length: 0,
                search: 0
            }
            .write(OVERLAY_MTU + 1, &mut room)
            .is_none()
        );
    }
}
