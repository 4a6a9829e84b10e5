//! Who may begin: decided before a byte of cryptography is done for them.
//!
//! An address that has not been proven may be forged, so it can only use up a small share, above
//! which everyone is asked to prove theirs (a QUIC Retry, which costs us no state). Places of a
//! source are then used up by that source alone. A device that has been sent a map is known and
//! leaves its source's places to others: an office behind one address is no attack.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatereeve_runtime::quic::canonical;
use tokio::time::Instant;

use super::Limits;

/// Whom a limit is counted for: an IPv4 /24 or an IPv6 /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(u32),
    V6(u128),
}

impl Source {
    fn of(from: SocketAddr) -> Self {
        match canonical(from).ip() {
            IpAddr::V4(address) => Self::V4(address.to_bits() >> 8),
            IpAddr::V6(address) => Self::V6(address.to_bits() >> 72),
        }
    }
}

/// What to do with a first packet.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Shake hands.
    Accept(Place),
    /// Have it prove its address first.
    Retry,
    /// There is no room.
    Refuse,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Connections and handshakes, known devices excepted.
    places: usize,
    /// Handshakes of unproven addresses among them.
    unvalidated: usize,
}

#[derive(Debug)]
struct Counts {
    sources: BTreeMap<Source, Count>,
    total: usize,
    unvalidated: usize,
    /// Unproven handshakes begun since `second`.
    begun: usize,
    second: Instant,
}

/// The book of who is here.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    counts: Mutex<Option<Counts>>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: Mutex::new(None),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Option<Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a first packet that claims to be `from` an address, which is `proven` or not.
    pub(super) fn admit(self: &Arc<Self>, from: SocketAddr, proven: bool, now: Instant) -> Verdict {
        let source = Source::of(from);
        let mut guard = self.counts();
        let counts = guard.get_or_insert_with(|| Counts {
            sources: BTreeMap::new(),
            total: 0,
            unvalidated: 0,
            begun: 0,
            second: now,
        });
        if now.duration_since(counts.second) >= Duration::from_secs(1) {
            (counts.second, counts.begun) = (now, 0);
        }
        if counts.total >= self.limits.total {
            return Verdict::Refuse;
        }
        let own = counts.sources.get(&source).copied().unwrap_or_default();
        if own.places >= self.limits.per_source {
            // Unproven, it may be someone else who fills the places: no answer that ends it.
            return if proven {
                Verdict::Refuse
            } else {
                Verdict::Retry
            };
        }
        if !proven
            && (counts.unvalidated >= self.limits.unvalidated
                || own.unvalidated >= self.limits.unvalidated_per_source
                || counts.begun >= self.limits.unvalidated_per_second)
        {
            return Verdict::Retry;
        }
        let unvalidated = usize::from(!proven);
        counts.total += 1;
        counts.unvalidated += unvalidated;
        counts.begun += unvalidated;
        let own = counts.sources.entry(source).or_default();
        own.places += 1;
        own.unvalidated += unvalidated;
        Verdict::Accept(Place {
            admission: Arc::clone(self),
            source,
            unvalidated: !proven,
            known: false,
        })
    }
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    source: Source,
    unvalidated: bool,
    known: bool,
}

impl Place {
    /// The handshake is done: the address is the peer's own.
    pub(super) fn validated(&mut self) {
        if std::mem::take(&mut self.unvalidated) {
            if let Some(counts) = self.admission.counts().as_mut() {
                counts.unvalidated = counts.unvalidated.saturating_sub(1);
            }
            self.change(|count| count.unvalidated = count.unvalidated.saturating_sub(1));
        }
    }

    /// The peer is a device of the network.
    pub(super) fn known(&mut self) {
        if !std::mem::replace(&mut self.known, true) {
            self.change(|count| count.places = count.places.saturating_sub(1));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        if let Some(counts) = self.admission.counts().as_mut()
            && let Some(count) = counts.sources.get_mut(&self.source)
        {
            change(count);
            if count.places == 0 && count.unvalidated == 0 {
                counts.sources.remove(&self.source);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.validated();
        self.known();
        if let Some(counts) = self.admission.counts().as_mut() {
            counts.total = counts.total.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: Limits) -> Arc<Admission> {
        Arc::new(Admission::new(limits))
    }

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn accepted(verdict: Verdict) -> Place {
        match verdict {
            Verdict::Accept(place) => place,
            other @ (Verdict::Retry | Verdict::Refuse) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_source_is_a_prefix_in_either_form() {
        let source = |text| Source::of(from(text));
        assert_eq!(source("192.0.2.1:1"), source("192.0.2.255:2"));
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.9]:1"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.3.1:1"));
        assert_eq!(
            source("[2001:db8:0:100::1]:1"),
            source("[2001:db8:0:1ff::2]:1")
        );
        assert_ne!(
            source("[2001:db8:0:100::1]:1"),
            source("[2001:db8:0:200::1]:1")
        );
    }

    #[tokio::test]
    async fn a_source_has_its_places_and_known_devices_take_none() {
        let admission = admission(Limits {
            per_source: 2,
            ..Limits::default()
        });
        let now = Instant::now();
        let admit = |text| admission.admit(from(text), true, now);
        let mut first = accepted(admit("192.0.2.1:1"));
        let second = accepted(admit("192.0.2.2:1"));
        assert!(matches!(admit("192.0.2.3:1"), Verdict::Refuse));
        assert!(matches!(
            admission.admit(from("192.0.2.3:1"), false, now),
            Verdict::Retry
        ));
        accepted(admit("198.51.100.1:1"));
        first.known();
        first.known();
        let third = accepted(admit("192.0.2.3:1"));
        assert!(matches!(admit("192.0.2.4:1"), Verdict::Refuse));
        drop(second);
        accepted(admit("192.0.2.4:1"));
        drop((first, third));
        let counts = admission.counts();
        let counts = counts.as_ref().unwrap();
        assert!(counts.sources.is_empty());
        assert_eq!((counts.total, counts.unvalidated), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn unproven_addresses_are_asked_for_proof_above_their_share() {
        let admission = admission(Limits {
            unvalidated: 3,
            unvalidated_per_source: 2,
            unvalidated_per_second: 4,
            ..Limits::default()
        });
        let admit = |text, proven| admission.admit(from(text), proven, Instant::now());
        let mut one = accepted(admit("192.0.2.1:1", false));
        let _two = accepted(admit("192.0.2.1:2", false));
        // The source's share, while another source still has its own, and who proves gets in.
        assert!(matches!(admit("192.0.2.1:3", false), Verdict::Retry));
        let _other = accepted(admit("198.51.100.1:1", false));
        let _proven = accepted(admit("192.0.2.1:3", true));
        // Everyone's share.
        assert!(matches!(admit("203.0.113.1:1", false), Verdict::Retry));
        one.validated();
        let _third = accepted(admit("203.0.113.1:1", false));
        drop(one);
        // The rate.
        drop(_third);
        assert!(matches!(admit("203.0.113.1:1", false), Verdict::Retry));
        tokio::time::advance(Duration::from_secs(1)).await;
        accepted(admit("203.0.113.1:1", false));
    }

    #[tokio::test]
    async fn there_is_an_end_to_it() {
        let admission = admission(Limits {
            total: 1,
            ..Limits::default()
        });
        let mut place = accepted(admission.admit(from("192.0.2.1:1"), true, Instant::now()));
        place.known();
        let verdict = admission.admit(from("198.51.100.1:1"), true, Instant::now());
        assert!(matches!(verdict, Verdict::Refuse));
        drop(place);
        accepted(admission.admit(from("198.51.100.1:1"), true, Instant::now()));
    }
}
