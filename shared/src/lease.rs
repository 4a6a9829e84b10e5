//! A rule's end: renewable, but never past its hard end.

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// An authorization that ends by itself, in controller time.
///
/// The only constructor holds `end` at or before `hard_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    end: UnixMillis,
    hard_end: UnixMillis,
}

impl Lease {
    /// A lease until `end`, or until `hard_end` where that is earlier.
    #[must_use]
    pub fn new(end: UnixMillis, hard_end: UnixMillis) -> Self {
        Self {
            end: end.min(hard_end),
            hard_end,
        }
    }

    /// When the grant ends unless it is renewed.
    #[must_use]
    pub fn end(&self) -> UnixMillis {
        // A decoded lease has not passed the constructor.
        self.end.min(self.hard_end)
    }

    /// What no renewal goes past: `until`, the end of a schedule window, the expiry of a key.
    /// [`UnixMillis::MAX`] where there is none.
    #[must_use]
    pub fn hard_end(&self) -> UnixMillis {
        self.hard_end
    }

    /// This lease with a new end, still held to its hard end.
    #[must_use]
    pub fn renewed(&self, end: UnixMillis) -> Self {
        Self::new(end, self.hard_end)
    }

    /// Whether the grant holds at `now`; at its very end it does not.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        now < self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_renewal_passes_the_hard_end() {
        let lease = Lease::new(UnixMillis(50), UnixMillis(100));
        assert!(lease.is_live(UnixMillis(49)));
        assert!(!lease.is_live(UnixMillis(50)));
        let renewed = lease.renewed(UnixMillis(500));
        assert_eq!(renewed.end(), UnixMillis(100));
        assert!(!renewed.is_live(UnixMillis(100)));
    }
}
