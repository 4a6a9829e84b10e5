//! When the journal's head is signed.

use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::{Mono, Now};

/// A head is signed at the latest after this many records,
pub const RECORDS: u64 = 1000;
/// or when one that was not signed is this old.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Signs heads with the network key.
#[derive(Debug)]
pub struct Checkpointer {
    key: IdentityKey,
    last: u64,
    last_at: Mono,
}

impl Checkpointer {
    /// Record `last` was signed, `now` or before.
    #[must_use]
    pub fn new(key: IdentityKey, last: u64, now: Mono) -> Self {
        Self {
            key,
            last,
            last_at: now,
        }
    }

    /// The signed head, if it is time.
    #[must_use]
    pub fn due(&self, head: (Generation, [u8; 32]), now: Now) -> Option<Checkpoint> {
        let new = head.0.n.saturating_sub(self.last);
        let is_due = new >= RECORDS || (new > 0 && now.mono.since(self.last_at) >= INTERVAL);
        is_due.then(|| Checkpoint::sign(&self.key, head.0, head.1, now.unix))
    }

    /// The signed head, if there is anything new at all.
    #[must_use]
    pub fn last(&self, head: (Generation, [u8; 32]), now: Now) -> Option<Checkpoint> {
        (head.0.n > self.last).then(|| Checkpoint::sign(&self.key, head.0, head.1, now.unix))
    }

    /// A checkpoint of record `n` is on its way to the file.
    pub fn signed(&mut self, n: u64, now: Mono) {
        self.last = self.last.max(n);
        self.last_at = now;
    }
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::time::UnixMillis;

    use super::*;

    #[test]
    fn heads_are_signed_by_number_or_by_age_and_only_when_new() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let public = key.public();
        let start = Now {
            mono: Mono(5),
            unix: UnixMillis(5),
        };
        let head = |n| (Generation { incarnation: 0, n }, [3; 32]);
        let mut checkpointer = Checkpointer::new(key, 10, start.mono);
        assert_eq!(checkpointer.due(head(10), start.after(2 * INTERVAL)), None);
        assert_eq!(checkpointer.due(head(11), start), None);
        assert!(checkpointer.due(head(11), start.after(INTERVAL)).is_some());
        assert_eq!(checkpointer.due(head(9 + RECORDS), start), None);
        let signed = checkpointer.due(head(10 + RECORDS), start).unwrap();
        assert_eq!(signed.verify(&public), Ok(()));
        checkpointer.signed(signed.generation.n, start.mono);
        assert_eq!(checkpointer.last(head(10 + RECORDS), start), None);
        assert!(checkpointer.last(head(11 + RECORDS), start).is_some());
    }
}
