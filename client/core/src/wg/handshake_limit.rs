//! How many handshakes one source may cost us: token buckets per source, before any Diffie-Hellman.
//!
//! An address says little of who sends: anybody can put another's there. So what comes from one is counted apart until
//! its sender has proved to be there, and who has spent that is asked for the proof, not refused: a flood in a
//! peer's name costs the peer an attempt, and keeps it out of nothing. Who shares the peer's address, or its /64, can
//! prove to be there, too, and shares what it may cost.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gatereeve_shared::time::Mono;

/// Sources told apart; more share one bucket.
pub(crate) const SOURCES: usize = 4_096;
const PER_SECOND: u64 = 20;
const BURST: u64 = 5;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds' worth of tokens.
    credit: u64,
    last: Mono,
    per_second: u64,
    burst: u64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_second: u64, burst: u64, now: Mono) -> Self {
        Self {
            credit: Self::cost(per_second).saturating_mul(burst),
            last: now,
            per_second,
            burst,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Mono) -> bool {
        self.fill(now);
        match self.credit.checked_sub(Self::cost(self.per_second)) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }

    /// Whether there is a token.
    pub(crate) fn has(&mut self, now: Mono) -> bool {
        self.fill(now);
        self.credit >= Self::cost(self.per_second)
    }

    fn fill(&mut self, now: Mono) {
        let passed = u64::try_from(now.since(self.last).as_nanos()).unwrap_or(u64::MAX);
        let full = Self::cost(self.per_second).saturating_mul(self.burst);
        self.credit = self.credit.saturating_add(passed).min(full);
        self.last = self.last.max(now);
    }

    fn is_full(&mut self, now: Mono) -> bool {
        self.fill(now);
        self.credit >= Self::cost(self.per_second).saturating_mul(self.burst)
    }

    fn cost(per_second: u64) -> u64 {
        let second = u64::try_from(Duration::from_secs(1).as_nanos()).unwrap_or(u64::MAX);
        second / per_second.max(1)
    }
}

/// Handshakes per second, of all sources, from which on nobody begins one without a proof.
const LOAD: u64 = 1_000;

/// What each source may cost.
#[derive(Debug)]
pub(crate) struct SourceLimits {
    claimed: SourceLimit,
    claimed_by_all: Bucket,
    proved: SourceLimit,
}

impl SourceLimits {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            claimed: SourceLimit::new(now),
            claimed_by_all: Bucket::new(LOAD, LOAD, now),
            proved: SourceLimit::new(now),
        }
    }

    /// Whether who says to be at `source` may begin one more handshake without a proof.
    pub(crate) fn admit_claimed(&mut self, source: IpAddr, now: Mono) -> bool {
        self.claimed.admit(source, now) && self.claimed_by_all.take(now)
    }

    /// Whether who has proved to be at `source` may begin one more handshake.
    pub(crate) fn admit_proved(&mut self, source: IpAddr, now: Mono) -> bool {
        self.proved.admit(source, now)
    }
}

/// One bucket per IPv4 address or IPv6 /64.
#[derive(Debug)]
struct SourceLimit {
    sources: BTreeMap<u128, Bucket>,
    /// For sources that find no room.
    others: Bucket,
    swept: Mono,
}

impl SourceLimit {
    fn new(now: Mono) -> Self {
        Self {
            sources: BTreeMap::new(),
            others: Bucket::new(PER_SECOND * 10, BURST * 10, now),
            swept: now,
        }
    }

    /// Whether `source` may begin one more handshake.
    fn admit(&mut self, source: IpAddr, now: Mono) -> bool {
        let source = key(source);
        if let Some(bucket) = self.sources.get_mut(&source) {
            return bucket.take(now);
        }
        // Buckets that have filled up again say nothing. Sweeping costs, so it is done once a second.
        if self.sources.len() >= SOURCES && now.since(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.sources.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.sources.len() >= SOURCES {
            return self.others.take(now);
        }
        let mut bucket = Bucket::new(PER_SECOND, BURST, now);
        let admitted = bucket.take(now);
        self.sources.insert(source, bucket);
        admitted
    }
}

fn key(source: IpAddr) -> u128 {
    match source.to_canonical() {
        // Mapped addresses cannot collide with the network part of a real one: those are cut to /64.
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(millis * 1_000_000)
    }

    #[test]
    fn a_source_has_a_burst_and_then_a_rate_of_its_own() {
        let mut limit = SourceLimit::new(at(0));
        let loud: IpAddr = "192.0.2.1".parse().unwrap();
        let quiet: IpAddr = "192.0.2.2".parse().unwrap();
        let admitted = (0..100).filter(|_| limit.admit(loud, at(0))).count();
        assert_eq!(admitted, 5);
        assert!(limit.admit(quiet, at(0)));
        let admitted = (0..1000).filter(|n| limit.admit(loud, at(*n))).count();
        assert!((19..=20).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_prefix_is_one_source_and_the_table_is_bounded() {
        let mut limit = SourceLimit::new(at(0));
        let host = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
        assert_eq!((0..50).filter(|n| limit.admit(host(*n), at(0))).count(), 5);
        let admitted = (1..100_000_u128)
            .filter(|n| limit.admit(host(n << 64), at(0)))
            .count();
        assert!(limit.sources.len() <= SOURCES);
        assert!(admitted <= SOURCES + 50, "{admitted}");
        assert!(limit.admit(host(1 << 80), at(5_000)), "and it recovers");
    }
}
