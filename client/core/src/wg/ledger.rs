//! Which sessions exist, how old they are, and how much they carried: kept beside the tunnel, because
//! the tunnel itself does not look when it seals and opens.

use std::time::Duration;

use gatereeve_cipher::Key;
use gatereeve_shared::time::Mono;

use super::SessionView;
use super::replay::ReplayWindow;

/// A session older than this carries nothing.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Nor does one with this many messages.
pub(super) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Sessions that a tunnel keeps, by the low bits of their index.
const SLOTS: usize = 8;

/// The sessions of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    slots: [Option<Session>; SLOTS],
    current: usize,
    made: u64,
}

#[derive(Debug)]
struct Session {
    local: u32,
    remote: u32,
    established: Mono,
    /// Later sessions have higher numbers.
    order: u64,
    is_initiator: bool,
    /// The other side has shown that it has the keys.
    confirmed: bool,
    sent: u64,
    receiver: Box<Receiver>,
}

/// What messages of a session are opened with.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Which have come.
    pub(super) seen: ReplayWindow,
    pub(super) key: ReceiverKey,
}

/// What is known of the key that opens a session's messages.
#[derive(Debug)]
pub(super) enum ReceiverKey {
    /// The tunnel alone has it.
    Unknown,
    /// It was made when it had to be made, and has opened nothing so far.
    Supposed(Key),
    /// It opens what the tunnel opens.
    Known(Key),
}

impl Session {
    fn is_live(&self, now: Mono) -> bool {
        now.since(self.established) < REJECT_AFTER_TIME
    }

    fn may_send(&self, now: Mono) -> bool {
        self.confirmed && self.is_live(now) && self.sent < REJECT_AFTER_MESSAGES
    }
}

impl Ledger {
    /// A handshake was completed. `key` is what messages to index `local` are supposed to be opened with.
    pub(super) fn add(
        &mut self,
        [local, remote]: [u32; 2],
        is_initiator: bool,
        key: Option<Key>,
        now: Mono,
    ) {
        self.made = self.made.saturating_add(1);
        let slot = slot_of(local);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Session {
                local,
                remote,
                established: now,
                order: self.made,
                is_initiator,
                confirmed: is_initiator,
                // The empty message that comes with the response counts, whether or not it goes out.
                sent: u64::from(is_initiator),
                receiver: Box::new(Receiver {
                    seen: ReplayWindow::default(),
                    key: key.map_or(ReceiverKey::Unknown, ReceiverKey::Supposed),
                }),
            });
        }
        if is_initiator {
            self.current = slot;
        }
    }

    /// What the `counter`th message for index `local` is opened with, if it may be.
    pub(super) fn receiver(
        &mut self,
        local: u32,
        counter: u64,
        now: Mono,
    ) -> Option<&mut Receiver> {
        let session = self.slots.get_mut(slot_of(local))?.as_mut()?;
        let may_open =
            session.local == local && session.is_live(now) && counter < REJECT_AFTER_MESSAGES;
        may_open.then_some(&mut *session.receiver)
    }

    /// Whether an authentic message for index `local` makes its session the one to send with, in place of another.
    pub(super) fn takes_over(&self, local: u32, now: Mono) -> bool {
        let session = |slot: usize| self.slots.get(slot).and_then(Option::as_ref);
        let slot = slot_of(local);
        slot != self.current
            && session(slot).is_some_and(|own| {
                session(self.current)
                    .is_none_or(|current| !current.is_live(now) || own.order >= current.order)
            })
    }

    /// A message for index `local` was authentic. Returns whether it is the first.
    pub(super) fn opened(&mut self, local: u32, now: Mono) -> bool {
        if self.takes_over(local, now) {
            self.current = slot_of(local);
        }
        let session = self.slots.get_mut(slot_of(local));
        let session = session.and_then(Option::as_mut);
        session.is_some_and(|session| !std::mem::replace(&mut session.confirmed, true))
    }

    /// Whether a message that was just sealed for the peer's index `remote`, the `counter`th of its
    /// session, may leave.
    pub(super) fn sealed(&mut self, remote: u32, counter: u64, now: Mono) -> bool {
        let Some(session) = self
            .slots
            .iter_mut()
            .flatten()
            .find(|session| session.remote == remote)
        else {
            return false;
        };
        session.sent = counter.saturating_add(1);
        session.confirmed && session.is_live(now) && counter < REJECT_AFTER_MESSAGES
    }

    /// The session to send with.
    pub(super) fn sending(&self, now: Mono) -> Option<SessionView> {
        let session = self
            .slots
            .get(self.current)?
            .as_ref()
            .filter(|session| session.may_send(now))?;
        Some(SessionView {
            established: session.established,
            is_initiator: session.is_initiator,
            sent: session.sent,
        })
    }

    /// Whether a session with index `local` would come in the place of the one that is in use.
    pub(super) fn is_in_use(&self, local: u32, now: Mono) -> bool {
        slot_of(local) == self.current && self.sending(now).is_some()
    }

    /// When the oldest session is too old.
    pub(super) fn expires(&self) -> Option<Mono> {
        let established = self
            .slots
            .iter()
            .flatten()
            .map(|session| session.established);
        let oldest = established.min()?;
        Some(oldest.saturating_add(REJECT_AFTER_TIME))
    }

    /// Forgets sessions that are too old. Returns whether none is left where there was one.
    pub(super) fn expire(&mut self, now: Mono) -> bool {
        let before = self.slots.iter().flatten().count();
        for slot in &mut self.slots {
            *slot = slot.take().filter(|session| session.is_live(now));
        }
        before > 0 && self.slots.iter().all(Option::is_none)
    }

    /// Whether a session is held that may still carry something.
    pub(super) fn has_live(&self, now: Mono) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|session| session.is_live(now))
    }

    /// The session to send with is none after all.
    pub(super) fn forget_current(&mut self) {
        if let Some(place) = self.slots.get_mut(self.current) {
            *place = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots = Default::default();
    }

    #[cfg(test)]
    pub(super) fn set_sent(&mut self, sent: u64) {
        for session in self.slots.iter_mut().flatten() {
            session.sent = sent;
        }
    }
}

fn slot_of(local: u32) -> usize {
    usize::try_from(local).unwrap_or(0) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(secs * 1_000_000_000)
    }

    #[test]
    fn age_and_count_are_looked_at_on_every_message() {
        let mut ledger = Ledger::default();
        ledger.add([9, 70], true, None, at(0));
        assert!(ledger.receiver(9, 0, at(179)).is_some());
        assert!(ledger.receiver(9, 0, at(180)).is_none());
        let last = REJECT_AFTER_MESSAGES;
        assert!(ledger.receiver(9, last - 1, at(1)).is_some());
        assert!(ledger.receiver(9, last, at(1)).is_none());
        let other = ledger.receiver(17, 0, at(1));
        assert!(other.is_none(), "same slot, other index");
        assert!(ledger.sealed(70, 5, at(179)));
        assert!(!ledger.sealed(70, 6, at(180)));
        assert!(!ledger.sealed(70, REJECT_AFTER_MESSAGES, at(1)));
        ledger.set_sent(5);
        assert!(ledger.sending(at(1)).is_some());
        ledger.set_sent(REJECT_AFTER_MESSAGES);
        assert!(ledger.sending(at(1)).is_none());
    }

    #[test]
    fn a_responder_waits_for_the_initiators_first_message() {
        let mut ledger = Ledger::default();
        ledger.add([9, 70], false, None, at(0));
        assert!(ledger.sending(at(1)).is_none());
        assert!(!ledger.sealed(70, 0, at(1)));
        assert!(ledger.takes_over(9, at(1)));
        assert!(ledger.opened(9, at(1)));
        assert!(!ledger.takes_over(9, at(1)));
        assert!(!ledger.opened(9, at(1)));
        assert!(ledger.sending(at(1)).is_some());
    }

    #[test]
    fn a_late_message_on_the_old_session_does_not_bring_it_back() {
        let mut ledger = Ledger::default();
        ledger.add([1, 70], true, None, at(0));
        ledger.add([2, 71], true, None, at(120));
        assert!(!ledger.takes_over(1, at(121)));
        ledger.opened(1, at(121));
        assert_eq!(ledger.sending(at(121)).unwrap().established, at(120));
        assert_eq!(ledger.expires(), Some(at(180)));
        assert!(!ledger.expire(at(200)));
        assert_eq!(ledger.expires(), Some(at(300)));
        assert!(ledger.expire(at(400)));
        assert_eq!(ledger.expires(), None);
    }
}
