//! Handshake messages that came before.
//!
//! Who has not been reached yet sends one initiation to every address that the peer may have, and most of
//! them arrive. The tunnel would refuse all but the first, after a Diffie-Hellman or two for each, just when
//! the first packet waits.

/// Messages remembered.
const REMEMBERED: usize = 64;

/// The hashes of the last messages that were let in.
#[derive(Debug)]
pub(crate) struct Repeats {
    hashes: [Option<u64>; REMEMBERED],
    next: usize,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            hashes: [None; REMEMBERED],
            next: 0,
        }
    }
}

impl Repeats {
    /// Whether a message with this hash was let in before.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.hashes.contains(&Some(hash))
    }

    /// A message with this hash is let in.
    pub(crate) fn remember(&mut self, hash: u64) {
        if let Some(place) = self.hashes.get_mut(self.next) {
            *place = Some(hash);
        }
        self.next = self.next.wrapping_add(1) % REMEMBERED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut repeats = Repeats::default();
        assert!(!repeats.contains(0), "nothing is remembered yet");
        for hash in 0..64 {
            assert!(!repeats.contains(hash));
            repeats.remember(hash);
        }
        assert!((0..64).all(|hash| repeats.contains(hash)));
        repeats.remember(64);
        assert!(!repeats.contains(0), "the oldest made room");
        assert!(repeats.contains(1));
    }
}
