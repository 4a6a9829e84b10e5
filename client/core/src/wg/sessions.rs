//! The sessions of one tunnel: their keys, their age, what they have carried, and which of them is sent with.
//!
//! Handshakes make them (`tunnel/handshakes.rs`), and nobody else keeps their keys. Messages are sealed and opened in place, and
//! every one is held against the limits of its session (WireGuard, section 6.1), whoever calls and whenever.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use gatereeve_cipher::{Key, TAG};
use gatereeve_shared::time::Mono;

use super::demux::{index_at, number_of};
use super::replay::ReplayWindow;
use super::{CONTENTS_AT, OVERHEAD, OVERLAY_MTU, Opened, SessionView, TunnelError};

/// A session older than this carries nothing.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Nor does one with this many messages.
pub(super) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// The one in use, the one before, and two that the peer has not confirmed: it may go on with either of its last two initiations.
const SLOTS: usize = 4;
const BLOCK: usize = 16;

/// The sessions of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: [Option<Session>; SLOTS],
    /// Where the one is that is sent with.
    current: usize,
    made: u64,
}

/// What a handshake makes.
#[derive(Debug)]
pub(super) struct NewSession {
    /// Our index: messages to us bear it.
    pub(super) local: u32,
    /// The peer's.
    pub(super) remote: u32,
    /// Whether we have begun the handshake.
    pub(super) is_initiator: bool,
    /// Opens what comes.
    pub(super) receiver: Key,
    /// Seals what goes.
    pub(super) sender: Key,
    /// Messages that were sealed with it already.
    pub(super) sent: u64,
}

#[derive(Debug)]
struct Session {
    keys: NewSession,
    established: Mono,
    /// Later sessions have higher numbers.
    order: u64,
    /// The other side has shown that it has the keys.
    is_confirmed: bool,
    seen: Box<ReplayWindow>,
}

impl Session {
    fn is_live(&self, now: Mono) -> bool {
        now.since(self.established) < REJECT_AFTER_TIME
    }

    fn may_send(&self, now: Mono) -> bool {
        self.is_confirmed && self.is_live(now) && self.keys.sent < REJECT_AFTER_MESSAGES
    }
}

impl Sessions {
    /// A handshake was completed. The peer has confirmed one that we have begun, which is sent with from now on.
    pub(super) fn add(&mut self, keys: NewSession, now: Mono) {
        self.made = self.made.saturating_add(1);
        let is_initiator = keys.is_initiator;
        let slot = self.place(now);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Session {
                keys,
                established: now,
                order: self.made,
                is_confirmed: is_initiator,
                seen: Box::default(),
            });
        }
        if is_initiator {
            self.current = slot;
        }
    }

    /// Where the next one goes: never in the place of the one in use, however many there are that nobody confirms. (The one in use is
    /// the newest that is confirmed.)
    fn place(&self, now: Mono) -> usize {
        let worth = |(_, slot): &(usize, &Option<Session>)| match slot {
            None => (0, 0),
            Some(session) if !session.is_live(now) => (1, session.order),
            Some(session) if !session.is_confirmed => (2, session.order),
            Some(session) => (3, session.order),
        };
        let least = self.slots.iter().enumerate().min_by_key(worth);
        least.map_or(0, |(at, _)| at)
    }

    /// Seals `packet`; the message's length.
    pub(super) fn seal(
        &mut self,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        let session = self.slots.get_mut(self.current).and_then(Option::as_mut);
        let session = session.filter(|session| session.may_send(now));
        let session = session.ok_or(TunnelError::NoSession)?;
        // Padded, the length tells less; but a packet within the MTU stays within.
        let padded = packet.len().next_multiple_of(BLOCK);
        let len = padded
            .min(OVERLAY_MTU.max(packet.len()))
            .saturating_add(OVERHEAD);
        let message = out.get_mut(..len).ok_or(TunnelError::Room)?;
        let number = session.keys.sent;
        // First of all, so that whatever happens no number is sealed with twice.
        session.keys.sent = number.saturating_add(1);
        seal(&session.keys, number, packet, message).ok_or(TunnelError::NoSession)?;
        Ok(len)
    }

    /// Opens a data message in place.
    pub(super) fn open(&mut self, datagram: &mut [u8], now: Mono) -> Result<Opened, TunnelError> {
        let number = number_of(datagram);
        let at = self
            .by_local(index_at(datagram, 4))
            .ok_or(TunnelError::NoSession)?;
        let session = self.slots.get_mut(at).and_then(Option::as_mut);
        let session = session
            .filter(|session| session.is_live(now) && number < REJECT_AFTER_MESSAGES)
            .ok_or(TunnelError::NoSession)?;
        // What came before costs no more than this.
        if !session.seen.is_new(number) {
            return Err(TunnelError::Crypto);
        }
        let sealed = datagram.get_mut(CONTENTS_AT..).unwrap_or_default();
        let opened = session.keys.receiver.open(&nonce(number), &[], sealed);
        let len = opened.map_err(|_| TunnelError::Crypto)?.len();
        if !session.seen.accept(number) {
            return Err(TunnelError::Crypto);
        }
        let first = !std::mem::replace(&mut session.is_confirmed, true);
        let order = session.order;
        let current = self.slots.get(self.current).and_then(Option::as_ref);
        let is_in_use = |current: &Session| current.is_confirmed && current.is_live(now);
        // A late message of the one before does not bring that back.
        if !current.is_some_and(|current| is_in_use(current) && current.order >= order) {
            self.current = at;
        }
        Ok(match len {
            0 => Opened::Keepalive { first },
            len => Opened::Packet { len, first },
        })
    }

    /// Where the session with index `local` is. Where two have the same, which takes 256 of them in the life of one, it is the
    /// one in use.
    fn by_local(&self, local: u32) -> Option<usize> {
        let is_it = |slot: &Option<Session>| {
            slot.as_ref()
                .is_some_and(|session| session.keys.local == local)
        };
        if self.slots.get(self.current).is_some_and(is_it) {
            return Some(self.current);
        }
        self.slots.iter().position(is_it)
    }

    /// The session to send with.
    pub(super) fn sending(&self, now: Mono) -> Option<SessionView> {
        let session = self.slots.get(self.current)?.as_ref();
        let session = session.filter(|session| session.may_send(now))?;
        Some(SessionView {
            established: session.established,
            is_initiator: session.keys.is_initiator,
            sent: session.keys.sent,
        })
    }

    /// When the oldest session is too old.
    pub(super) fn expires(&self) -> Option<Mono> {
        let sessions = self.slots.iter().flatten();
        let oldest = sessions.map(|session| session.established).min()?;
        Some(oldest.saturating_add(REJECT_AFTER_TIME))
    }

    /// Forgets sessions that are too old, and their keys.
    pub(super) fn expire(&mut self, now: Mono) {
        for slot in &mut self.slots {
            *slot = slot.take().filter(|session| session.is_live(now));
        }
    }

    /// Forgets all sessions, and their keys.
    pub(super) fn clear(&mut self) {
        self.slots = Default::default();
    }
}

/// Writes the `number`th message of a session into `message`, which has as much room as it takes with its padding.
pub(super) fn seal(
    keys: &NewSession,
    number: u64,
    packet: &[u8],
    message: &mut [u8],
) -> Option<()> {
    let (header, rest) = message.split_first_chunk_mut::<CONTENTS_AT>()?;
    let (contents, tag) = rest.split_last_chunk_mut::<TAG>()?;
    let (kind, indices) = header.split_first_chunk_mut::<4>()?;
    let (index, counter) = indices.split_first_chunk_mut::<4>()?;
    *kind = [4, 0, 0, 0];
    *index = keys.remote.to_le_bytes();
    counter.copy_from_slice(&number.to_le_bytes());
    let (data, padding) = contents.split_at_mut_checked(packet.len())?;
    data.copy_from_slice(packet);
    padding.fill(0);
    *tag = keys.sender.seal(&nonce(number), &[], contents).ok()?;
    Some(())
}

/// Four bytes of zeros, and the number (WireGuard, section 5.4.6).
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (_, counter) = nonce.split_at_mut(4);
    counter.copy_from_slice(&number.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(secs.saturating_mul(1_000_000_000))
    }

    /// Our end; the peer's is the same with its keys and indices changed over.
    fn keys(local: u32, is_initiator: bool) -> NewSession {
        let byte = u8::try_from(local).unwrap();
        NewSession {
            local,
            remote: local.saturating_add(100),
            is_initiator,
            receiver: Key::new(&[byte; 32]),
            sender: Key::new(&[!byte; 32]),
            sent: 0,
        }
    }

    /// The `number`th message of the peer over the session with index `local`.
    fn message(local: u32, number: u64) -> Vec<u8> {
        let keys = keys(local, false);
        let peers = NewSession {
            remote: local,
            sender: keys.receiver,
            receiver: keys.sender,
            ..keys
        };
        let mut message = vec![0; OVERHEAD + 16];
        seal(&peers, number, &[7; 10], &mut message).unwrap();
        message
    }

    fn open(
        sessions: &mut Sessions,
        local: u32,
        number: u64,
        now: Mono,
    ) -> Result<bool, TunnelError> {
        let opened = sessions.open(&mut message(local, number), now)?;
        let Opened::Packet { len: 16, first } = opened else {
            panic!("{opened:?}");
        };
        Ok(first)
    }

    /// The peer's index in what is sealed now.
    fn sealed_for(sessions: &mut Sessions, now: Mono) -> Option<u32> {
        let mut out = [0; 64];
        sessions.seal(&[7; 10], now, &mut out).ok()?;
        Some(index_at(&out, 4))
    }

    #[test]
    fn age_and_count_are_looked_at_on_every_message() {
        let mut sessions = Sessions::default();
        sessions.add(keys(9, true), at(0));
        assert_eq!(open(&mut sessions, 9, 0, at(179)), Ok(false));
        assert_eq!(
            open(&mut sessions, 9, 1, at(180)),
            Err(TunnelError::NoSession)
        );
        let last = REJECT_AFTER_MESSAGES;
        assert_eq!(
            open(&mut sessions, 9, last, at(1)),
            Err(TunnelError::NoSession)
        );
        assert_eq!(open(&mut sessions, 9, last - 1, at(1)), Ok(false));
        assert_eq!(
            open(&mut sessions, 17, 0, at(1)),
            Err(TunnelError::NoSession)
        );
        assert_eq!(sealed_for(&mut sessions, at(179)), Some(109));
        assert_eq!(sealed_for(&mut sessions, at(180)), None);
        let session = sessions.slots[0].as_mut().unwrap();
        session.keys.sent = last - 1;
        assert_eq!(sealed_for(&mut sessions, at(1)), Some(109));
        assert_eq!(sealed_for(&mut sessions, at(1)), None);
        assert_eq!(sessions.sending(at(1)), None);
    }

    #[test]
    fn no_number_is_sealed_with_twice() {
        let mut sessions = Sessions::default();
        sessions.add(keys(9, true), at(0));
        let mut out = [0; 64];
        let mut numbers = Vec::new();
        for room in [64, 10, 64, 47, 64] {
            if sessions.seal(&[7; 10], at(0), &mut out[..room]).is_ok() {
                numbers.push(number_of(&out));
            }
        }
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(sessions.sending(at(0)).unwrap().sent, 3);
    }

    #[test]
    fn what_is_sealed_is_padded_with_zeros() {
        let mut sessions = Sessions::default();
        sessions.add(keys(9, true), at(0));
        let mut out = [0xff; 64];
        let len = sessions.seal(&[7; 10], at(0), &mut out).unwrap();
        assert_eq!(len, 16 + OVERHEAD);
        let sealed = &mut out[CONTENTS_AT..len];
        let opened = keys(9, true).sender.open(&nonce(0), &[], sealed).unwrap();
        assert_eq!(opened[..10], [7; 10]);
        assert_eq!(opened[10..], [0; 6]);
    }

    #[test]
    fn a_responder_waits_for_the_initiators_first_message() {
        let mut sessions = Sessions::default();
        sessions.add(keys(9, false), at(0));
        assert_eq!(sessions.expires(), Some(at(180)));
        assert_eq!(sealed_for(&mut sessions, at(1)), None);
        let mut forged = message(9, 0);
        forged[CONTENTS_AT] ^= 1;
        assert_eq!(sessions.open(&mut forged, at(1)), Err(TunnelError::Crypto));
        assert_eq!(sealed_for(&mut sessions, at(1)), None);
        assert_eq!(open(&mut sessions, 9, 0, at(1)), Ok(true));
        assert_eq!(open(&mut sessions, 9, 1, at(1)), Ok(false));
        assert_eq!(sealed_for(&mut sessions, at(1)), Some(109));
    }

    #[test]
    fn a_late_message_on_the_old_session_does_not_bring_it_back() {
        let mut sessions = Sessions::default();
        sessions.add(keys(1, true), at(0));
        sessions.add(keys(2, true), at(120));
        assert_eq!(open(&mut sessions, 1, 0, at(121)), Ok(false));
        assert_eq!(sealed_for(&mut sessions, at(121)), Some(102));
        assert_eq!(sessions.expires(), Some(at(180)));
        sessions.expire(at(200));
        assert_eq!(sessions.expires(), Some(at(300)));
        assert_eq!(sealed_for(&mut sessions, at(200)), Some(102));
        sessions.expire(at(400));
        assert_eq!(sessions.expires(), None);
    }

    #[test]
    fn what_is_older_and_confirmed_late_is_not_sent_with() {
        let mut sessions = Sessions::default();
        sessions.add(keys(1, false), at(0));
        sessions.add(keys(2, true), at(1));
        assert_eq!(open(&mut sessions, 1, 0, at(2)), Ok(true));
        assert_eq!(sealed_for(&mut sessions, at(2)), Some(102));
        // Unless nothing else is left.
        assert_eq!(sealed_for(&mut sessions, at(181)), None);
        let mut sessions = Sessions::default();
        sessions.add(keys(2, true), at(0));
        sessions.add(keys(1, false), at(100));
        assert_eq!(sealed_for(&mut sessions, at(181)), None);
        assert_eq!(open(&mut sessions, 1, 0, at(181)), Ok(true));
        assert_eq!(sealed_for(&mut sessions, at(181)), Some(101));
    }

    #[test]
    fn what_nobody_confirms_takes_no_place_of_what_is_in_use() {
        let mut sessions = Sessions::default();
        sessions.add(keys(1, true), at(0));
        sessions.add(keys(2, false), at(0));
        assert_eq!(open(&mut sessions, 2, 0, at(1)), Ok(true));
        for local in 3..=20 {
            sessions.add(keys(local, false), at(1));
            assert_eq!(sealed_for(&mut sessions, at(1)), Some(102), "in use");
        }
        // The one before is there, and the last two.
        for (local, is_there) in [(1, true), (2, true), (18, false), (19, true), (20, true)] {
            let opened = open(&mut sessions, local, 5, at(1));
            assert_eq!(opened.is_ok(), is_there, "{local}");
        }
        assert_eq!(sealed_for(&mut sessions, at(1)), Some(120));
    }

    /// Whichever of those it is that nobody has confirmed, and whatever was there before.
    #[test]
    fn the_first_that_is_confirmed_is_sent_with() {
        for confirmed in [3, 4, 5] {
            for before in 0..4 {
                let mut sessions = Sessions::default();
                for local in 10..10 + before {
                    sessions.add(keys(local, true), at(0));
                }
                sessions.expire(at(500));
                for local in 3..=5 {
                    sessions.add(keys(local, false), at(500));
                }
                let opened = open(&mut sessions, confirmed, 0, at(500));
                assert_eq!(opened, Ok(true), "{confirmed} after {before}");
                assert_eq!(sealed_for(&mut sessions, at(500)), Some(confirmed + 100));
            }
        }
    }

    #[test]
    fn what_is_too_old_makes_room_first() {
        let mut sessions = Sessions::default();
        sessions.add(keys(1, true), at(0));
        for local in 2..=4 {
            sessions.add(keys(local, false), at(100));
        }
        // The one in use is over. The others are not, though nobody has confirmed them.
        sessions.add(keys(5, false), at(200));
        for local in 2..=5 {
            assert_eq!(open(&mut sessions, local, 0, at(201)), Ok(true), "{local}");
        }
        assert_eq!(
            open(&mut sessions, 1, 0, at(1)),
            Err(TunnelError::NoSession)
        );
    }

    #[test]
    fn of_two_with_one_index_the_one_in_use_is_meant() {
        let mut sessions = Sessions::default();
        sessions.add(keys(1, false), at(0));
        sessions.add(keys(2, true), at(0));
        for local in [3, 4] {
            sessions.add(keys(local, false), at(0));
        }
        let other = NewSession {
            local: 2,
            ..keys(5, false)
        };
        sessions.add(other, at(1));
        let first = sessions.slots[0].as_ref();
        assert!(first.is_some_and(|first| first.keys.remote == 105));
        assert_eq!(open(&mut sessions, 2, 0, at(1)), Ok(false));
        assert_eq!(open(&mut sessions, 2, 0, at(1)), Err(TunnelError::Crypto));
        assert_eq!(sealed_for(&mut sessions, at(1)), Some(102));
    }
}
