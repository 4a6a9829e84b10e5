//! Keys that a library makes, and that are taken from it.
//!
//! boringtun makes the keys of a session in a handshake and keeps them, to seal and open with. Here the session is kept elsewhere
//! (`client-core`, `wg/sessions.rs`), which takes its keys away from boringtun as soon as they are made. A key has one owner at any
//! time: what was taken can no more be used by who has made it, so no number is sealed with twice, and it is wiped when its owner
//! lets go of it.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Forged, Key, TAG, TooLong};

/// A key in the hands of who has made it, until it is taken.
pub struct HeldKey(Place);

/// A key that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The key.
    pub key: Key,
    /// How many messages its maker has sealed with it.
    pub sealed: u64,
}

type Place = Arc<Mutex<Option<Taken>>>;

thread_local! {
    /// The last two keys made, oldest first; `None` where nobody is to take any.
    static MADE: RefCell<Option<[Option<Place>; 2]>> = const { RefCell::new(None) };
}

impl HeldKey {
    /// Has `key` held by the caller, who may lose it to [`take_last_two_keys`].
    #[must_use]
    pub fn new(key: Key) -> Self {
        let place = Arc::new(Mutex::new(Some(Taken { key, sealed: 0 })));
        MADE.with_borrow_mut(|made| {
            if let Some([before, last]) = made {
                *before = last.replace(Arc::clone(&place));
            }
        });
        Self(place)
    }

    /// As [`Key::seal`]. With a key that was taken it leaves zeros: nothing of `data`, and nothing that anybody opens.
    ///
    /// # Errors
    /// As [`Key::seal`].
    pub fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG], TooLong> {
        match &mut *locked(&self.0) {
            Some(held) => {
                held.sealed = held.sealed.saturating_add(1);
                held.key.seal(nonce, additional, data)
            }
            None => {
                data.fill(0);
                Ok([0; TAG])
            }
        }
    }

    /// As [`Key::open`].
    ///
    /// # Errors
    /// As [`Key::open`], and where the key was taken.
    pub fn open<'a>(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        match &*locked(&self.0) {
            Some(held) => held.key.open(nonce, additional, sealed),
            None => Err(Forged),
        }
    }
}

impl fmt::Debug for HeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldKey")
    }
}

fn locked(place: &Mutex<Option<Taken>>) -> MutexGuard<'_, Option<Taken>> {
    // Nothing panics with half a key in it.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `make`, and takes the last two keys that this thread has made in it, in the order in which they were made, from who holds
/// them. `None`, and nothing is taken, where there are fewer, or where one is held no more: a library keeps what it has a use for. What
/// is made in a call within `make` is that one's alone.
pub fn take_last_two_keys<T>(make: impl FnOnce() -> T) -> (T, Option<[Taken; 2]>) {
    let taking = Taking::begin();
    let result = make();
    (result, taking.end())
}

/// While it lives, it is noted which keys are made.
struct Taking {
    outer: Option<[Option<Place>; 2]>,
}

impl Taking {
    fn begin() -> Self {
        let outer = MADE.replace(Some([None, None]));
        Self { outer }
    }

    fn end(self) -> Option<[Taken; 2]> {
        let Some([Some(before), Some(last)]) = MADE.take() else {
            return None;
        };
        // By its maker, and here.
        let are_held = [&before, &last].map(|place| Arc::strong_count(place) > 1);
        if are_held != [true, true] {
            return None;
        }
        let [before, last] = [before, last].map(|place| locked(&place).take());
        Some([before?, last?])
    }
}

/// Also where `make` has panicked: nobody takes anything then.
impl Drop for Taking {
    fn drop(&mut self) {
        MADE.set(self.outer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 12] = [0; 12];

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32])
    }

    fn made(byte: u8) -> HeldKey {
        HeldKey::new(key(byte))
    }

    fn is_of(taken: &Taken, byte: u8) -> bool {
        let seal = |key: &Key| key.seal(&NONCE, &[], &mut [0; 20]);
        seal(&taken.key) == seal(&key(byte))
    }

    /// Whether it still seals and opens what a key of `byte` does.
    fn is_held(held: &HeldKey, byte: u8) -> bool {
        let mut sealed = [7; 36];
        let (data, place) = sealed.split_at_mut(20);
        let tag = held.seal(&NONCE, &[1], data).unwrap();
        place.copy_from_slice(&tag);
        let seals = key(byte).open(&NONCE, &[1], &mut sealed.clone()).is_ok();
        let mut sealed = [7; 36];
        let (data, place) = sealed.split_at_mut(20);
        place.copy_from_slice(&key(byte).seal(&NONCE, &[1], data).unwrap());
        let opens = held.open(&NONCE, &[1], &mut sealed).is_ok();
        assert_eq!(seals, opens);
        seals
    }

    fn is_noting() -> bool {
        MADE.with_borrow(Option::is_some)
    }

    #[test]
    fn the_last_two_are_taken_in_their_order() {
        let (held, taken) = take_last_two_keys(|| [1, 2, 3].map(made));
        let [before, last] = taken.unwrap();
        assert!(is_of(&before, 2) && is_of(&last, 3));
        assert!(!is_of(&before, 3), "control");
        let still = [0, 1, 2].map(|at| is_held(&held[at], [1, 2, 3][at]));
        assert_eq!(still, [true, false, false]);
    }

    #[test]
    fn who_lost_a_key_seals_zeros_and_opens_nothing() {
        let (held, taken) = take_last_two_keys(|| [1, 2].map(made));
        let [_, last] = taken.unwrap();
        let mut data = *b"what nobody is to read";
        let tag = held[1].seal(&NONCE, &[], &mut data).unwrap();
        assert_eq!((data, tag), ([0; 22], [0; TAG]));
        let mut sealed = [0; 40];
        let (data, place) = sealed.split_at_mut(24);
        place.copy_from_slice(&last.key.seal(&NONCE, &[], data).unwrap());
        assert_eq!(held[1].open(&NONCE, &[], &mut sealed.clone()), Err(Forged));
        assert!(last.key.open(&NONCE, &[], &mut sealed).is_ok(), "control");
    }

    #[test]
    fn one_key_is_not_taken() {
        assert!(take_last_two_keys(|| ()).1.is_none());
        let (held, taken) = take_last_two_keys(|| made(1));
        assert!(taken.is_none() && is_held(&held, 1));
        // What was made outside is nobody's to take.
        let outside = made(2);
        let (held, taken) = take_last_two_keys(|| made(3));
        assert!(taken.is_none() && is_held(&outside, 2) && is_held(&held, 3));
    }

    #[test]
    fn what_its_maker_has_let_go_of_is_not_taken() {
        for gone in 0..2 {
            let (held, taken) = take_last_two_keys(|| {
                let mut held = vec![made(1), made(2)];
                held.remove(gone);
                held
            });
            assert!(taken.is_none() && is_held(&held[0], [2, 1][gone]));
        }
    }

    #[test]
    fn what_was_sealed_is_counted() {
        let (_held, taken) = take_last_two_keys(|| {
            let held = [1, 2].map(made);
            held[1].seal(&NONCE, &[], &mut []).unwrap();
            held[1].seal(&NONCE, &[], &mut [0; 5]).unwrap();
            let _refused = held[0].open(&NONCE, &[], &mut [0; 40]);
            held
        });
        assert_eq!(taken.unwrap().map(|taken| taken.sealed), [0, 2]);
    }

    #[test]
    fn nothing_is_noted_afterwards() {
        assert!(!is_noting());
        take_last_two_keys(|| assert!(is_noting()));
        assert!(!is_noting());
        let panics = || {
            let _held = [1, 2].map(made);
            panic!("what the test makes");
        };
        assert!(std::panic::catch_unwind(|| take_last_two_keys(panics)).is_err());
        assert!(!is_noting());
    }

    #[test]
    fn who_takes_within_takes_its_own() {
        let ((inner, _held), outer) = take_last_two_keys(|| {
            let first = made(1);
            let (held, inner) = take_last_two_keys(|| [3, 4].map(made));
            (inner, (first, made(2), held))
        });
        let (inner, outer) = (inner.unwrap(), outer.unwrap());
        assert!(is_of(&outer[0], 1) && is_of(&outer[1], 2));
        assert!(is_of(&inner[0], 3) && is_of(&inner[1], 4));
    }

    #[test]
    fn another_thread_makes_its_own() {
        let make = || std::thread::scope(|scope| scope.spawn(|| [1, 2].map(made)).join());
        let (held, taken) = take_last_two_keys(make);
        assert!(taken.is_none());
        let held = held.unwrap();
        assert!(is_held(&held[0], 1) && is_held(&held[1], 2));
    }
}
