//! How many handshakes one source may cost us: token buckets per source, before any Diffie-Hellman.
//!
//! An address says little of who sends: anybody can put another's there. So what comes from one is counted apart until
//! its sender has proved to be there, and who has spent that is asked for the proof, not refused: a flood in a
//! peer's name costs the peer an attempt, and keeps it out of nothing. Who shares the peer's address, or its /64, can
//! prove to be there, too, and shares what it may cost; so does who shares its /24 or /48, where the peer is not known to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gatereeve_shared::time::Mono;

/// Sources told apart; more share one bucket.
pub(crate) const SOURCES: usize = 4_096;

/// What counts as one source, and what that may cost.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Bits of an address that are the source's.
    v4: u32,
    v6: u32,
    per_second: u64,
    burst: u64,
}

/// Who has one address, or one IPv6 network.
const HOST: Scope = Scope {
    v4: 32,
    v6: 64,
    per_second: 20,
    burst: 5,
};
/// Who has many: a /48 is 65,536 hosts of the above, and anybody may have one.
const SITE: Scope = Scope {
    v4: 24,
    v6: 48,
    per_second: 200,
    burst: 50,
};

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
    proved_by_site: SourceLimit,
}

impl SourceLimits {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            claimed: SourceLimit::new(HOST, now),
            claimed_by_all: Bucket::new(LOAD, LOAD, now),
            proved: SourceLimit::new(HOST, now),
            proved_by_site: SourceLimit::new(SITE, now),
        }
    }

    /// Whether who says to be at `source` may begin one more handshake without a proof.
    pub(crate) fn admit_claimed(&mut self, source: IpAddr, now: Mono) -> bool {
        self.claimed.admit(source, now) && self.claimed_by_all.take(now)
    }

    /// Whether who has proved to be at `source` may begin one more handshake. Its site pays as well, unless a peer `is_known`
    /// to be there: those are few. What a host has itself spent its site does not pay for, so that no host takes more of that
    /// than a host's share.
    pub(crate) fn admit_proved(&mut self, source: IpAddr, is_known: bool, now: Mono) -> bool {
        self.proved.may_have(source, now)
            && (is_known || self.proved_by_site.admit(source, now))
            && self.proved.admit(source, now)
    }
}

/// One bucket per source.
#[derive(Debug)]
struct SourceLimit {
    scope: Scope,
    sources: BTreeMap<u128, Bucket>,
    /// For sources that find no room.
    others: Bucket,
    swept: Mono,
}

impl SourceLimit {
    fn new(scope: Scope, now: Mono) -> Self {
        let (per_second, burst) = (
            scope.per_second.saturating_mul(10),
            scope.burst.saturating_mul(10),
        );
        Self {
            scope,
            sources: BTreeMap::new(),
            others: Bucket::new(per_second, burst, now),
            swept: now,
        }
    }

    /// Whether `source` has not spent what it may cost.
    fn may_have(&mut self, source: IpAddr, now: Mono) -> bool {
        match self.sources.get_mut(&self.scope.key(source)) {
            Some(bucket) => bucket.has(now),
            None => self.sources.len() < SOURCES || self.others.has(now),
        }
    }

    /// Whether `source` may begin one more handshake.
    fn admit(&mut self, source: IpAddr, now: Mono) -> bool {
        let source = self.scope.key(source);
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
        let mut bucket = Bucket::new(self.scope.per_second, self.scope.burst, now);
        let admitted = bucket.take(now);
        self.sources.insert(source, bucket);
        admitted
    }
}

impl Scope {
    fn key(self, source: IpAddr) -> u128 {
        let (address, bits) = match source.to_canonical() {
            // Mapped addresses cannot collide with the network part of a real one: those are cut to /64 or shorter.
            IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), self.v4.saturating_add(96)),
            IpAddr::V6(v6) => (u128::from(v6), self.v6),
        };
        let host = u128::MAX.checked_shr(bits).unwrap_or(0);
        address & !host
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
        let mut limit = SourceLimit::new(HOST, at(0));
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
        let mut limit = SourceLimit::new(HOST, at(0));
        let host = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
        assert_eq!((0..50).filter(|n| limit.admit(host(*n), at(0))).count(), 5);
        let admitted = (1..100_000_u128)
            .filter(|n| limit.admit(host(n << 64), at(0)))
            .count();
        assert!(limit.sources.len() <= SOURCES);
        assert!(admitted <= SOURCES + 50, "{admitted}");
        assert!(limit.admit(host(1 << 80), at(5_000)), "and it recovers");
    }

    #[test]
    fn many_hosts_of_one_site_cost_what_a_site_may() {
        let host = |site: u128, network: u128| {
            IpAddr::V6((0x2001_0db8_u128 << 96 | site << 80 | network << 64 | 1).into())
        };
        let v4 = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut limits = SourceLimits::new(at(0));
        // Half a minute of a flood by a whole /48: what comes through is the site's rate. The table of hosts is full by
        // then, of ones that have had their turn and are forgotten.
        let admitted = (0..300_000_u32)
            .filter(|n| {
                limits.admit_proved(
                    host(7, u128::from(n % 65_536)),
                    false,
                    at(u64::from(n / 10)),
                )
            })
            .count();
        assert!((6_000..=6_100).contains(&admitted), "{admitted}");
        // Others, of the same network operator too, are as free as before.
        for site in 8..1_000 {
            assert!(
                limits.admit_proved(host(site, 0), false, at(30_000)),
                "{site}"
            );
        }
        // The same of IPv4, by /24.
        let admitted = (0..5_000_u16)
            .filter(|n| limits.admit_proved(v4(n.to_le_bytes()[0]), false, at(30_000)))
            .count();
        assert_eq!(admitted, 50);
        assert!(limits.admit_proved("198.51.100.1".parse().unwrap(), false, at(30_000)));
    }

    #[test]
    fn one_host_does_not_spend_what_its_site_may_cost() {
        let mut limits = SourceLimits::new(at(0));
        let [loud, quiet] = ["2001:db8::1", "2001:db8:0:1::1"].map(|host| host.parse().unwrap());
        let admitted = (0..1_000)
            .filter(|_| limits.admit_proved(loud, false, at(0)))
            .count();
        assert_eq!(admitted, 5);
        assert!(limits.admit_proved(quiet, false, at(0)));
        let spent = (0..1_000)
            .filter(|n| limits.admit_proved(loud, false, at(1_000 + n)))
            .count();
        assert!((20..=25).contains(&spent), "{spent}");
        assert!(limits.admit_proved(quiet, false, at(2_000)));
    }

    #[test]
    fn a_peer_that_is_known_to_be_there_does_not_share_its_sites_bucket() {
        let mut limits = SourceLimits::new(at(0));
        let neighbour = |n: u8| IpAddr::from([192, 0, 2, n]);
        for n in 0..100 {
            limits.admit_proved(neighbour(n), false, at(0));
        }
        let peer = neighbour(200);
        assert!(!limits.admit_proved(peer, false, at(0)), "control");
        let admitted = (0..100)
            .filter(|_| limits.admit_proved(peer, true, at(0)))
            .count();
        assert_eq!(admitted, 5, "its own holds");
    }

    #[test]
    fn a_host_that_finds_no_room_does_not_spend_what_its_site_may_cost() {
        let mut limits = SourceLimits::new(at(0));
        let host = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n << 80 | 1).into());
        let mut sites = 0..;
        while limits.proved.sources.len() < SOURCES {
            limits.admit_proved(host(sites.next().unwrap()), true, at(0));
        }
        let admitted = (0..100)
            .filter(|_| limits.admit_proved(host(60_000), true, at(0)))
            .count();
        assert_eq!(admitted, 50, "all that find no room share one");
        let late = host(60_001);
        for _ in 0..1_000 {
            assert!(!limits.admit_proved(late, false, at(0)));
        }
        assert!(!limits.proved_by_site.sources.contains_key(&SITE.key(late)));
    }
}
