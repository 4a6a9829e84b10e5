//! Which messages of a session have come already.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// How far behind the newest a message may come, in messages: as far as with Linux.
pub(super) const WINDOW: u64 = (TURN - 1) * WORD;
/// One more than the window needs, so that words are emptied whole (RFC 6479).
const WORDS: usize = 128;
const TURN: u64 = WORDS as u64;
const WORD: u64 = u64::BITS as u64;

/// The numbers of the messages that were accepted, as far back as the window goes. What is older counts as accepted.
#[derive(Debug)]
pub(super) struct ReplayWindow {
    /// One more than the highest number accepted.
    next: u64,
    /// A bit for each number, by its low bits.
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }
}

impl ReplayWindow {
    /// Whether the message `number` may be accepted.
    pub(super) fn is_new(&self, number: u64) -> bool {
        match self.next.checked_sub(number) {
            // The newest is one behind `next`.
            Some(behind @ 1..) => {
                behind <= WINDOW.saturating_add(1) && self.word(number) & bit(number) == 0
            }
            // The last number of all is no message's (WireGuard, section 6.1): nothing could come behind it.
            Some(0) | None => number < u64::MAX,
        }
    }

    /// Accepts an authentic message. `false`, and nothing is changed, where it [is not new](Self::is_new).
    pub(super) fn accept(&mut self, number: u64) -> bool {
        if !self.is_new(number) {
            return false;
        }
        if number >= self.next {
            self.empty_up_to(number);
            self.next = number.saturating_add(1);
        }
        if let Some(word) = self.seen.get_mut(place(number)) {
            *word |= bit(number);
        }
        true
    }

    /// Empties the words that come into use with `number`: they have what was there a turn before.
    fn empty_up_to(&mut self, number: u64) {
        // Before the first message all are empty.
        let newest = self.next.saturating_sub(1) / WORD;
        let fresh = (number / WORD).saturating_sub(newest).min(TURN);
        for word in (1..=fresh).map(|ahead| newest.wrapping_add(ahead)) {
            if let Some(word) = self.seen.get_mut(place(word.wrapping_mul(WORD))) {
                *word = 0;
            }
        }
    }

    fn word(&self, number: u64) -> u64 {
        // What is in no word counts as accepted.
        self.seen.get(place(number)).copied().unwrap_or(u64::MAX)
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number / WORD % TURN).unwrap_or(usize::MAX)
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "of small numbers")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by a set that forgets nothing.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn accept(&mut self, number: u64) -> bool {
            let newest = self.0.last().copied().unwrap_or(0);
            number.saturating_add(WINDOW) >= newest && self.0.insert(number)
        }
    }

    #[test]
    fn each_is_accepted_once_and_not_from_behind_the_window() {
        for newest in [WINDOW, WINDOW + 1, WINDOW + 63, 1 << 40, u64::MAX - 1] {
            let mut window = ReplayWindow::default();
            assert!(window.accept(newest) && !window.accept(newest));
            let oldest = newest - WINDOW;
            assert!(oldest == 0 || !window.accept(oldest - 1), "{newest}");
            for number in [oldest, oldest + 1, newest - 64, newest - 1] {
                assert!(window.is_new(number), "{number} of {newest}");
                assert!(window.accept(number), "{number} of {newest}");
                assert!(!window.is_new(number) && !window.accept(number));
            }
        }
    }

    #[test]
    fn the_last_number_of_all_is_never_accepted() {
        for before in [None, Some(7), Some(u64::MAX - 1)] {
            let mut window = ReplayWindow::default();
            assert!(before.is_none_or(|number| window.accept(number)));
            assert!(!window.is_new(u64::MAX) && !window.accept(u64::MAX));
        }
    }

    #[test]
    fn numbers_a_turn_apart_are_told_apart() {
        let turn = TURN * WORD;
        let mut window = ReplayWindow::default();
        for number in [5, 5 + turn, 5 + 3 * turn] {
            assert!(window.accept(number));
            assert!(!window.accept(number));
        }
        assert!(window.accept(5 + 3 * turn - WINDOW));
        assert!(!window.accept(5 + 2 * turn), "too old");
    }

    /// Numbers as they come: near the last, near the edge of the window, a turn away, anywhere.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let turn = (TURN * WORD).cast_signed();
        let window = WINDOW.cast_signed();
        let step = prop_oneof![
            8 => -3_i64..=3,
            2 => -130_i64..=130,
            2 => -window - 3..=-window + 3,
            1 => turn - 70..=turn + 70,
            1 => -20_000_i64..=20_000,
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn it_says_what_a_set_says(start in prop_oneof![Just(0_u64), 0..100_000_u64, (u64::MAX - 30_000)..u64::MAX - 1], steps in steps()) {
            let (mut window, mut model) = (ReplayWindow::default(), Model::default());
            let mut number = start;
            for step in steps {
                prop_assert_eq!(window.accept(number), model.accept(number), "{}", number);
                let newest = window.next - 1;
                number = newest.saturating_add_signed(step).min(u64::MAX - 1);
            }
        }
    }
}
