//! What happens to a packet between the TUN and the wire: nothing, the cipher, or all of WireGuard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use gatereeve_cipher::Key;

use crate::link::Link;

/// Bytes before a sealed packet: type, receiver, counter.
pub(crate) const HEADER: usize = 16;
/// Bytes after it.
pub(crate) const TAG: usize = 16;
/// The type of a data message.
const DATA: [u8; 4] = [4, 0, 0, 0];
/// Enough for any handshake message.
pub(crate) const HANDSHAKE: usize = 256;

/// Which of the two ends this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// A number that goes into the fixed keys.
    fn number(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Right => 2,
        }
    }
}

/// Fixed keys.
pub(crate) struct Keys {
    seal: Key,
    open: Key,
    next: AtomicU64,
}

/// The way of sealing and opening.
pub(crate) enum Cipher {
    None,
    Fixed(Box<Keys>),
    Tunn(Box<Mutex<Tunn>>),
}

impl Cipher {
    pub(crate) fn new(mode: &str, side: Side) -> anyhow::Result<Self> {
        match mode {
            "none" => Ok(Self::None),
            "cipher" => Ok(Self::Fixed(Box::new(Keys {
                seal: Key::new(&[side.number(); 32]),
                open: Key::new(&[side.other().number(); 32]),
                next: AtomicU64::new(0),
            }))),
            "tunn" => {
                let secret = |side: Side| StaticSecret::from([side.number(); 32]);
                let tunn = Tunn::new(
                    secret(side),
                    PublicKey::from(&secret(side.other())),
                    None,
                    None,
                    u32::from(side.number()),
                    None,
                );
                Ok(Self::Tunn(Box::new(Mutex::new(tunn))))
            }
            other => bail!("no mode {other}"),
        }
    }

    /// Takes the lock, where there is one: once for a whole super-packet or batch.
    pub(crate) fn lock(&self) -> Locked<'_> {
        match self {
            Self::None => Locked::None,
            Self::Fixed(keys) => Locked::Fixed(keys),
            Self::Tunn(tunn) => Locked::Tunn(tunn.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Looks after timers.
    pub(crate) fn tick(&self, link: &Link) {
        if let Locked::Tunn(mut tunn) = self.lock() {
            let mut buffer = [0; HANDSHAKE];
            if let TunnResult::WriteToNetwork(message) = tunn.update_timers(&mut buffer) {
                link.send(message, None);
            }
        }
    }
}

/// A cipher in use.
pub(crate) enum Locked<'a> {
    None,
    Fixed(&'a Keys),
    Tunn(MutexGuard<'a, Tunn>),
}

/// What became of a packet that was to be sealed.
pub(crate) enum Sealed {
    /// A data message of the full length.
    Data,
    /// A handshake message of this length instead; the packet waits inside the tunnel.
    Handshake(usize),
    /// Nothing to send.
    Nothing,
}

/// What became of a datagram.
pub(crate) enum Opened {
    /// A packet of this length, at the beginning of where it was to go.
    Packet(usize),
    /// Nothing for the TUN.
    Nothing,
}

impl Locked<'_> {
    /// Has `write` make a packet of `length` bytes, and seals it at the beginning of `to`, which
    /// has room for it. `scratch` is for ciphers that cannot work in place.
    pub(crate) fn seal(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]),
        scratch: &mut [u8],
        to: &mut [u8],
    ) -> Sealed {
        if let Self::Tunn(tunn) = self {
            let Some(packet) = scratch.get_mut(..length) else {
                return Sealed::Nothing;
            };
            write(packet);
            return match tunn.encapsulate(packet, to) {
                TunnResult::WriteToNetwork(message) if message.len() == wire(length) => {
                    Sealed::Data
                }
                TunnResult::WriteToNetwork(message) => Sealed::Handshake(message.len()),
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..) => Sealed::Nothing,
            };
        }
        let Some((header, rest)) = to.split_at_mut_checked(HEADER) else {
            return Sealed::Nothing;
        };
        let Some((packet, tag)) = rest.split_at_mut_checked(length) else {
            return Sealed::Nothing;
        };
        write(packet);
        let mut counter = 0;
        if let Self::Fixed(keys) = self {
            counter = keys.next.fetch_add(1, Ordering::Relaxed);
            let sealed = keys.seal.seal(&nonce(counter), &[], packet);
            let (Ok(made), Some(tag)) = (sealed, tag.get_mut(..TAG)) else {
                return Sealed::Nothing;
            };
            tag.copy_from_slice(&made);
        }
        let counter = counter.to_le_bytes();
        let fields = DATA.iter().chain(&[0; 4]).chain(&counter);
        for (to, from) in header.iter_mut().zip(fields) {
            *to = *from;
        }
        Sealed::Data
    }

    /// Opens `datagram`; the packet comes to lie at the beginning of `to`. Handshake messages are
    /// answered over `link`.
    pub(crate) fn open(&mut self, datagram: &mut [u8], to: &mut [u8], link: &Link) -> Opened {
        match self {
            Self::Tunn(tunn) => match tunn.decapsulate(None, datagram, to) {
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    Opened::Packet(packet.len())
                }
                TunnResult::WriteToNetwork(answer) => {
                    link.send(answer, None);
                    let mut more = [0; 2048];
                    // What had to wait for the handshake.
                    while let TunnResult::WriteToNetwork(message) =
                        tunn.decapsulate(None, &[], &mut more)
                    {
                        link.send(message, None);
                    }
                    Opened::Nothing
                }
                TunnResult::Done | TunnResult::Err(_) => Opened::Nothing,
            },
            Self::None | Self::Fixed(_) => Opened::Nothing,
        }
    }

    /// Opens `datagram` where it lies; the packet begins after [`HEADER`]. `None` for ciphers that
    /// cannot.
    pub(crate) fn open_in_place(&self, datagram: &mut [u8]) -> Option<Opened> {
        let length = datagram.len().checked_sub(HEADER + TAG);
        match self {
            Self::Tunn(_) => None,
            Self::None => Some(length.map_or(Opened::Nothing, Opened::Packet)),
            Self::Fixed(keys) => {
                let Some((header, sealed)) = datagram.split_first_chunk_mut::<HEADER>() else {
                    return Some(Opened::Nothing);
                };
                let [.., a, b, c, d, e, f, g, h] = *header;
                let counter = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                let opened = keys.open.open(&nonce(counter), &[], sealed);
                Some(opened.map_or(Opened::Nothing, |packet| Opened::Packet(packet.len())))
            }
        }
    }
}

/// Bytes on the wire of a packet of `length` bytes.
pub(crate) fn wire(length: usize) -> usize {
    HEADER + length + TAG
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(4).zip(counter.to_le_bytes()) {
        *to = from;
    }
    nonce
}
