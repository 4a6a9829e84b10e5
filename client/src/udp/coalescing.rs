//! Whether datagrams come coalesced, as far as those that came tell. The kernel takes the option on every socket; whether an
//! interface's driver coalesces it does not say there.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Calls that brought as many datagrams as a call can, each by itself, after which it is said. One or two happen where many peers send
/// a datagram each.
const TELLING: u8 = 64;

/// What a socket, and those of peers' own beside it, was given so far.
#[derive(Debug, Default)]
pub(super) struct Coalescing {
    came: AtomicBool,
    singly: AtomicU8,
}

impl Coalescing {
    /// A call brought datagrams that were `coalesced`, or as many as can be and none that was.
    pub(super) fn note(&self, coalesced: bool) {
        if coalesced {
            if !self.came.load(Ordering::Relaxed) {
                self.came.store(true, Ordering::Relaxed);
            }
            return;
        }
        let singly = self.singly.load(Ordering::Relaxed);
        if singly < TELLING {
            self.singly
                .store(singly.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Whether there were coalesced ones.
    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// Whether many came that could have been coalesced.
    pub(super) fn could_have(&self) -> bool {
        self.singly.load(Ordering::Relaxed) >= TELLING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_calls_of_single_ones_tell_and_few_do_not() {
        let coalescing = Coalescing::default();
        for call in 1..=u16::from(TELLING) * 5 {
            coalescing.note(false);
            let told = call >= u16::from(TELLING);
            assert_eq!((coalescing.could_have(), coalescing.came()), (told, false));
        }
        coalescing.note(true);
        assert!(coalescing.came());
        coalescing.note(false);
        assert!(coalescing.came(), "others may come singly");
    }
}
