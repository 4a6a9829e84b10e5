//! Opening data messages where they lie.
//!
//! `Tunn` opens into another buffer, after a copy. So it opens one message of a session, the first, and with it shows whether the
//! key that was made for the session when it had to be made is the right one. It then has it opened in place here, and does not
//! see the others: which messages have come is kept beside it for all of them, and it has one window for those it sees. Where
//! the key is not known, as with another `ring` than that of this tree, it goes on opening.
//!
//! There is one more thing that it has to see: a message that changes which session is sent with, for it keeps that itself.

use std::net::IpAddr;

use boringtun::noise::{Tunn, TunnResult};
use gatereeve_cipher::{Key, last_two_keys};
use gatereeve_shared::time::Now;

use super::{Live, counter_of, index_at};
use crate::wg::ledger::{Receiver, ReceiverKey};
use crate::wg::{CONTENTS_AT, Opened, TunnelError};

/// Runs `handshake`, which makes a session, and gives the key that opens its messages.
pub(super) fn with_receiver_key<T>(handshake: impl FnOnce() -> T) -> (T, Option<Key>) {
    // What it makes last are the session's keys: that to open with, that to seal with.
    let (made, keys) = last_two_keys(handshake);
    (made, keys.map(|[receiver, _]| receiver))
}

impl Live {
    /// Opens a data message in place; `scratch` has at least its length.
    pub(super) fn open(
        &mut self,
        from: IpAddr,
        datagram: &mut [u8],
        now: Now,
        scratch: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let (local, counter) = (index_at(datagram, 4), counter_of(datagram));
        let takes_over = self.ledger.takes_over(local, now.mono);
        let receiver = self
            .ledger
            .receiver(local, counter, now.mono)
            .ok_or(TunnelError::NoSession)?;
        // What came before costs no more than this.
        if !receiver.seen.is_new(counter) {
            return Err(TunnelError::Crypto);
        }
        let len = match &receiver.key {
            ReceiverKey::Known(key) if !takes_over => open_in_place(key, counter, datagram),
            ReceiverKey::Known(_) | ReceiverKey::Supposed(_) | ReceiverKey::Unknown => {
                receiver.open_by(&mut self.tunn, from, datagram, scratch)
            }
        };
        let len = len.ok_or(TunnelError::Crypto)?;
        if !receiver.seen.accept(counter) {
            return Err(TunnelError::Crypto);
        }
        let first = self.ledger.opened(local, now.mono);
        Ok(match len {
            0 => Opened::Keepalive { first },
            len => Opened::Packet { len, first },
        })
    }
}

impl Receiver {
    /// Has `tunn` open a message; how long its contents are. It says nothing of the padding.
    #[cold]
    fn open_by(
        &mut self,
        tunn: &mut Tunn,
        from: IpAddr,
        datagram: &mut [u8],
        scratch: &mut [u8],
    ) -> Option<usize> {
        let packet: &[u8] = match tunn.decapsulate(Some(from), datagram, scratch) {
            TunnResult::Done => &[],
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                packet
            }
            TunnResult::WriteToNetwork(_) | TunnResult::Err(_) => return None,
        };
        let counter = counter_of(datagram);
        if let ReceiverKey::Supposed(key) | ReceiverKey::Known(key) = &self.key {
            let opened = open_in_place(key, counter, datagram);
            let is_same =
                opened.and_then(|len| contents(datagram, len)?.get(..packet.len())) == Some(packet);
            if is_same {
                self.key = ReceiverKey::Known(key.clone());
                return opened;
            }
            tracing::debug!("the key of a session is not the one that was made for it");
            self.key = ReceiverKey::Unknown;
        }
        let end = CONTENTS_AT.checked_add(packet.len())?;
        datagram.get_mut(CONTENTS_AT..end)?.copy_from_slice(packet);
        Some(packet.len())
    }
}

/// Opens the contents of a data message; their length.
fn open_in_place(key: &Key, counter: u64, datagram: &mut [u8]) -> Option<usize> {
    // Four bytes of zeros before the number (WireGuard, section 5.4.6).
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let sealed = datagram.get_mut(CONTENTS_AT..)?;
    key.open(&nonce, &[], sealed)
        .ok()
        .map(|opened| opened.len())
}

fn contents(datagram: &[u8], len: usize) -> Option<&[u8]> {
    datagram.get(CONTENTS_AT..)?.get(..len)
}
