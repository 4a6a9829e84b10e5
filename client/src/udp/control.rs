//! What the kernel is told beside a message (cmsg(3)): the size of its segments, and its marking.

use std::net::SocketAddr;

use nix::libc::{IP_TOS, IPPROTO_IP, IPPROTO_IPV6, IPV6_TCLASS, SOL_UDP, UDP_SEGMENT};

const WORD: usize = size_of::<usize>();
/// `cmsg_len`, `cmsg_level`, `cmsg_type`, and up to where the data begins.
const HEADER: usize = (WORD + 2 * size_of::<i32>()).next_multiple_of(WORD);
/// Room for two messages of four bytes each.
const ROOM: usize = 2 * (HEADER + WORD);

/// The control part of a message, in no memory but its own: a marked datagram must not cost an allocation.
#[derive(Debug)]
pub(super) struct Control {
    bytes: [u8; ROOM],
    len: usize,
}

impl Control {
    /// For a message to `to`: marked with the ECN bits `ecn`, and in segments of `segment` bytes, if there is something to say.
    pub(super) fn new(to: SocketAddr, ecn: u8, segment: Option<u16>) -> Self {
        let mut control = Self {
            bytes: [0; ROOM],
            len: 0,
        };
        if ecn != 0 {
            let (level, kind) = if to.is_ipv4() {
                (IPPROTO_IP, IP_TOS)
            } else {
                (IPPROTO_IPV6, IPV6_TCLASS)
            };
            control.push(level, kind, &i32::from(ecn).to_ne_bytes());
        }
        if let Some(segment) = segment {
            control.push(SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        control
    }

    /// As sendmsg(2) takes it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = HEADER + data.len();
        let fields = [
            (0, &len.to_ne_bytes()[..]),
            (WORD, &level.to_ne_bytes()),
            (WORD + size_of::<i32>(), &kind.to_ne_bytes()),
            (HEADER, data),
        ];
        for (at, field) in fields {
            let start = self.len + at;
            if let Some(place) = self.bytes.get_mut(start..start + field.len()) {
                place.copy_from_slice(field);
            }
        }
        self.len += len.next_multiple_of(WORD);
    }
}
