//! Keys that a library makes and keeps to itself.
//!
//! boringtun makes the keys of a session in a handshake, and opens messages by copying them first. Who is to open them where they
//! lie needs the key; a handle of it is handed out here, to whoever asks before it is made, on the same thread.

use std::cell::RefCell;

use crate::Key;

/// The keys that were made last, oldest first.
type LastTwo = [Option<Key>; 2];

thread_local! {
    /// `None` where nobody asks: no key is kept then.
    static ASKED: RefCell<Option<LastTwo>> = const { RefCell::new(None) };
}

/// Notes that `key` was made. For the crate `ring`, which makes them for boringtun.
pub fn note(key: &Key) {
    ASKED.with_borrow_mut(|asked| {
        if let Some([before, last]) = asked {
            *before = last.replace(key.clone());
        }
    });
}

/// Runs `make`, and gives its result with handles of the last two keys that were [noted](note) on this thread meanwhile, in the order
/// in which they were made; `None` where there were fewer. What is noted in a call within `make` is that one's alone.
pub fn last_two_keys<T>(make: impl FnOnce() -> T) -> (T, Option<[Key; 2]>) {
    let asking = Asking::begin();
    let made = make();
    (made, asking.end())
}

/// While it lives, keys are kept.
struct Asking {
    /// Who has asked around it.
    outer: Option<LastTwo>,
}

impl Asking {
    fn begin() -> Self {
        Self {
            outer: ASKED.replace(Some([None, None])),
        }
    }

    fn end(self) -> Option<[Key; 2]> {
        match ASKED.take() {
            Some([Some(before), Some(last)]) => Some([before, last]),
            _ => None,
        }
    }
}

/// Also where `make` has panicked: then nobody gets what was kept.
impl Drop for Asking {
    fn drop(&mut self) {
        ASKED.set(self.outer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 12] = [0; 12];

    fn made(byte: u8) -> Key {
        let key = Key::new(&[byte; 32]);
        note(&key);
        key
    }

    fn is_same(one: &Key, other: &Key) -> bool {
        let seal = |key: &Key| key.seal(&NONCE, &[], &mut [0; 20]);
        seal(one) == seal(other)
    }

    fn is_kept() -> bool {
        ASKED.with_borrow(Option::is_some)
    }

    #[test]
    fn the_last_two_come_in_their_order() {
        let (keys, seen) = last_two_keys(|| [1, 2, 3].map(made));
        let [before, last] = seen.expect("two keys");
        assert!(is_same(&keys[1], &before) && is_same(&keys[2], &last));
        assert!(!is_same(&before, &last), "control");
    }

    #[test]
    fn one_key_or_none_is_not_enough() {
        assert!(last_two_keys(|| ()).1.is_none());
        assert!(last_two_keys(|| made(1)).1.is_none());
        // What was made outside is nobody's.
        made(1);
        assert!(last_two_keys(|| made(2)).1.is_none());
    }

    #[test]
    fn nothing_is_kept_afterwards() {
        assert!(!is_kept());
        last_two_keys(|| assert!(is_kept()));
        assert!(!is_kept());
        let panics = || {
            made(1);
            made(2);
            panic!("what the test makes");
        };
        assert!(std::panic::catch_unwind(|| last_two_keys(panics)).is_err());
        assert!(!is_kept());
        made(3);
        assert!(!is_kept());
    }

    #[test]
    fn who_asks_within_has_its_own() {
        let (inner, outer) = last_two_keys(|| {
            made(1);
            let inner = last_two_keys(|| (made(3), made(4))).1;
            made(2);
            inner
        });
        let [outer, inner] = [outer, inner].map(|keys| keys.expect("two keys"));
        let is_of = |key: &Key, byte| is_same(key, &Key::new(&[byte; 32]));
        assert!(is_of(&outer[0], 1) && is_of(&outer[1], 2));
        assert!(is_of(&inner[0], 3) && is_of(&inner[1], 4));
    }

    #[test]
    fn other_threads_are_not_heard() {
        let made_elsewhere = || std::thread::scope(|scope| scope.spawn(|| [1, 2].map(made)).join());
        let (keys, seen) = last_two_keys(made_elsewhere);
        assert!(keys.is_ok() && seen.is_none());
    }
}
