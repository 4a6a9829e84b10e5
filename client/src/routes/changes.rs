//! How often the host's network has changed, for those who keep what rests on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often addresses and routes of the host have changed, as far as somebody tells.
#[derive(Debug, Default)]
pub struct NetworkChanges(AtomicU64);

/// Beside the count: somebody tells of changes.
const TOLD: u64 = 1;
const ONE: u64 = 2;

impl NetworkChanges {
    /// Something has changed, and what comes will be told of.
    pub fn note(&self) {
        self.set(TOLD);
    }

    /// Nobody tells of changes, until the next [`Self::note`].
    pub fn lost(&self) {
        self.set(0);
    }

    fn set(&self, told: u64) {
        let next = |before: u64| Some((before & !TOLD).wrapping_add(ONE) | told);
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// A greater value than before, if something has changed since. `None` while nobody tells.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        let now = self.0.load(Ordering::Relaxed);
        (now & TOLD != 0).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_apart_and_nobody_tells_at_first() {
        let changes = NetworkChanges::default();
        assert_eq!(changes.now(), None);
        changes.note();
        let first = changes.now();
        assert!(first.is_some());
        assert_eq!(changes.now(), first);
        changes.note();
        let second = changes.now();
        assert!(second.is_some() && second != first);
        changes.lost();
        assert_eq!(changes.now(), None);
        changes.note();
        assert!(changes.now().is_some_and(|now| Some(now) != second));
    }
}
