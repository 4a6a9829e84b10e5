//! Whether the host takes packets that are many in one, learned by trying.

use std::sync::atomic::{AtomicU8, Ordering};

const UNTRIED: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

/// What is known of one kind of joined packets. The first answer decides for good: a host that took one
/// takes them, and refuses a later one for a fault of that packet alone.
#[derive(Debug, Default)]
pub(super) struct Joining(AtomicU8);

impl Joining {
    /// Of a host that is known not to take them.
    pub(super) fn refused() -> Self {
        Self(AtomicU8::new(REFUSED))
    }

    /// Whether to try.
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) != REFUSED
    }

    /// One was taken.
    pub(super) fn taken(&self) {
        if self.0.load(Ordering::Relaxed) == UNTRIED {
            self.0.store(TAKEN, Ordering::Relaxed);
        }
    }

    /// One was not understood. Whether that has ended the trying.
    pub(super) fn not_understood(&self) -> bool {
        let first = self
            .0
            .compare_exchange(UNTRIED, REFUSED, Ordering::Relaxed, Ordering::Relaxed);
        first.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_decides() {
        let joining = Joining::default();
        assert!(joining.is_on());
        joining.taken();
        assert!(!joining.not_understood());
        assert!(joining.is_on());

        let joining = Joining::default();
        assert!(joining.not_understood());
        assert!(!joining.is_on());
        assert!(!joining.not_understood(), "it is said once");
        joining.taken();
        assert!(!joining.is_on());
        assert!(!Joining::refused().is_on());
    }
}
