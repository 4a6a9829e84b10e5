//! Initiations that came before.
//!
//! Who has not been reached yet sends one initiation to every address that the peer may have, and most of
//! them arrive. The tunnel would refuse all but the first, after a Diffie-Hellman or two for each, just when
//! the first packet waits.

/// Initiations remembered.
const REMEMBERED: usize = 64;

/// The hashes of the last initiations that were let in.
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
    /// Whether an initiation with this hash came before; from now on it has.
    pub(crate) fn is_repeat(&mut self, hash: u64) -> bool {
        if self.hashes.contains(&Some(hash)) {
            return true;
        }
        if let Some(place) = self.hashes.get_mut(self.next) {
            *place = Some(hash);
        }
        self.next = self.next.wrapping_add(1) % REMEMBERED;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeat(0), "nothing is remembered yet");
        assert!(repeats.is_repeat(0));
        for hash in 1..64 {
            assert!(!repeats.is_repeat(hash));
        }
        assert!((0..64).all(|hash| repeats.is_repeat(hash)));
        assert!(!repeats.is_repeat(64));
        assert!(!repeats.is_repeat(0), "the oldest made room");
        assert!(repeats.is_repeat(2));
    }
}
