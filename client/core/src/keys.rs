//! This device's WireGuard keys and their rotation without a lost packet.
//!
//! A rotation overlaps: the next key is announced beside the current one, both ends run tunnels
//! under both, and only when every peer has used the next one, or the overlap is over, does it
//! become the current key. The key before it stays in the data path a while for peers that have
//! not heard of the change.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::client::KeyUpdate;

use crate::random::Random;

/// Longest time in which both keys are announced; a session that began under the old key is over by then.
const OVERLAP: Duration = Duration::from_secs(5 * 60);
/// No key is replaced sooner, whatever the controller asks.
const LEAST_AGE: Duration = Duration::from_secs(2);

/// One WireGuard key of this device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OwnKey {
    /// Rises with every key.
    pub(crate) counter: u64,
    /// The private half.
    #[serde(with = "secret_bytes")]
    pub(crate) secret: WgSecret,
    /// When it was made, in controller time as far as known.
    pub(crate) made_at: UnixMillis,
}

/// Shows the public half.
impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({}: {})", self.counter, self.secret.public())
    }
}

impl PartialEq for OwnKey {
    fn eq(&self, other: &Self) -> bool {
        self.counter == other.counter && self.secret.public() == other.secret.public()
    }
}

/// All keys that the data path may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyRing {
    /// The key in use.
    current: OwnKey,
    /// The key that follows, once announced.
    next: Option<OwnKey>,
    /// When `next` was announced.
    announced_at: UnixMillis,
    /// The key before `current`, and until when it is kept.
    previous: Option<(OwnKey, UnixMillis)>,
}

impl KeyRing {
    /// The first key. Its counter is taken from the clock, so that a device that has lost its state,
    /// but not its identity, does not come back with a counter that its peers have seen.
    pub(crate) fn new(random: &mut Random, now: UnixMillis) -> Self {
        Self {
            current: OwnKey {
                counter: (now.0 / 1000).max(1),
                secret: WgSecret::from_bytes(random.bytes()),
                made_at: now,
            },
            next: None,
            announced_at: UnixMillis(0),
            previous: None,
        }
    }

    /// The key in use.
    pub(crate) fn current(&self) -> &OwnKey {
        &self.current
    }

    /// The counter of the key that follows, during a rotation.
    pub(crate) fn next_counter(&self) -> Option<u64> {
        self.next.as_ref().map(|key| key.counter)
    }

    /// All keys, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &OwnKey> {
        self.previous
            .iter()
            .map(|(key, _)| key)
            .chain([&self.current])
            .chain(&self.next)
    }

    /// Whether `key` is one of this device's own.
    pub(crate) fn contains(&self, key: &WgPublicKey) -> bool {
        self.all().any(|own| own.secret.public() == *key)
    }

    /// What is announced, signed.
    pub(crate) fn update(&self, identity: &IdentityKey, network: &Fingerprint) -> KeyUpdate {
        let bind =
            |key: &OwnKey| KeyBinding::sign(identity, network, key.secret.public(), key.counter);
        KeyUpdate {
            current: bind(&self.current),
            next: self.next.as_ref().map(bind),
        }
    }

    /// When the next step of the rotation is due, in controller time, for keys of this `lifetime`.
    /// Without a controller (`may_announce`) none begins.
    pub(crate) fn next_step(&self, lifetime: Duration, may_announce: bool) -> Option<UnixMillis> {
        let rotation = match &self.next {
            Some(_) => Some(self.announced_at.saturating_add(overlap(lifetime))),
            None if may_announce => {
                Some(self.current.made_at.saturating_add(lifetime.max(LEAST_AGE)))
            }
            None => None,
        };
        let retirement = self.previous.as_ref().map(|(_, until)| *until);
        rotation.into_iter().chain(retirement).min()
    }

    /// Takes the steps that are due. `leases_end` is the latest end of a grant: until then a peer
    /// without a controller may know the old key only. Without `announce`, which takes a controller,
    /// no rotation begins. Returns whether anything changed.
    pub(crate) fn step(
        &mut self,
        announce: Option<&mut Random>,
        now: UnixMillis,
        lifetime: Duration,
        leases_end: UnixMillis,
    ) -> bool {
        let mut changed = false;
        if self
            .previous
            .as_ref()
            .is_some_and(|(_, until)| *until <= now)
        {
            self.previous = None;
            changed = true;
        }
        // A key from the future was made under a clock that has been set back since.
        let made_at = self.current.made_at;
        if made_at > now.saturating_add(lifetime) {
            self.current.made_at = now;
            return true;
        }
        if self.next.is_some() {
            if self.announced_at > now {
                self.announced_at = now;
                changed = true;
            } else if self.announced_at.saturating_add(overlap(lifetime)) <= now {
                changed |= self.promote(now, lifetime, leases_end);
            }
        } else if let Some(random) = announce
            && made_at.saturating_add(lifetime.max(LEAST_AGE)) <= now
        {
            self.next = Some(OwnKey {
                counter: self.current.counter.saturating_add(1),
                secret: WgSecret::from_bytes(random.bytes()),
                made_at: now,
            });
            self.announced_at = now;
            changed = true;
        }
        changed
    }

    /// Makes the next key the current one. Returns whether there was one.
    pub(crate) fn promote(
        &mut self,
        now: UnixMillis,
        lifetime: Duration,
        leases_end: UnixMillis,
    ) -> bool {
        let Some(next) = self.next.take() else {
            return false;
        };
        let old = std::mem::replace(&mut self.current, next);
        let until = leases_end.min(now.saturating_add(lifetime));
        self.previous = (until > now).then_some((old, until));
        true
    }
}

/// How long both keys are announced.
fn overlap(lifetime: Duration) -> Duration {
    OVERLAP.min(lifetime / 2)
}

/// A private key as its 32 bytes, in a file of mode 0600.
mod secret_bytes {
    use super::{Deserialize, Deserializer, Serialize, Serializer, WgSecret};

    pub(super) fn serialize<S: Serializer>(
        key: &WgSecret,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        key.to_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<WgSecret, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(WgSecret::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn after(seconds: u64) -> UnixMillis {
        UnixMillis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn a_rotation_announces_overlaps_promotes_and_retires() {
        let mut random = Random::new([1; 32]);
        let mut ring = KeyRing::new(&mut random, after(0));
        let first = ring.current().secret.public();
        let end = after(86_400 + 300 + 3600);
        assert_eq!(ring.next_step(DAY, true), Some(after(86_400)));
        assert!(!ring.step(Some(&mut random), after(86_399), DAY, end));
        assert!(ring.step(Some(&mut random), after(86_400), DAY, end));
        assert_eq!(ring.next_counter(), Some(ring.current().counter + 1));
        assert_eq!(ring.all().count(), 2);
        assert_eq!(ring.current().secret.public(), first);
        assert_eq!(ring.next_step(DAY, true), Some(after(86_700)));
        assert!(!ring.step(Some(&mut random), after(86_699), DAY, end));
        assert!(ring.step(Some(&mut random), after(86_700), DAY, end));
        assert_ne!(ring.current().secret.public(), first);
        assert!(ring.contains(&first) && ring.next_counter().is_none());
        assert_eq!(ring.next_step(DAY, true), Some(end));
        assert!(ring.step(Some(&mut random), end, DAY, end));
        assert!(!ring.contains(&first));
    }

    #[test]
    fn without_leases_nothing_is_kept_and_counters_rise() {
        let mut random = Random::new([1; 32]);
        let mut ring = KeyRing::new(&mut random, after(0));
        let first = ring.current().clone();
        ring.step(Some(&mut random), after(90_000), DAY, UnixMillis(0));
        assert!(ring.promote(after(90_001), DAY, UnixMillis(0)));
        assert!(!ring.promote(after(90_001), DAY, UnixMillis(0)));
        assert!(ring.current().counter > first.counter);
        assert!(!ring.contains(&first.secret.public()));
    }

    #[test]
    fn a_clock_set_back_neither_blocks_nor_storms() {
        let mut random = Random::new([1; 32]);
        let mut ring = KeyRing::new(&mut random, after(500_000));
        assert!(ring.step(Some(&mut random), after(0), DAY, UnixMillis(0)));
        assert!(!ring.step(Some(&mut random), after(1), DAY, UnixMillis(0)));
        assert_eq!(ring.next_step(DAY, true), Some(after(86_400)));
    }

    #[test]
    fn private_keys_do_not_show() {
        let ring = KeyRing::new(&mut Random::new([1; 32]), after(0));
        let bytes = format!("{:?}", ring.current().secret.to_bytes().as_slice());
        assert!(!format!("{ring:?}").contains(bytes.trim_matches(['[', ']'])));
    }
}
