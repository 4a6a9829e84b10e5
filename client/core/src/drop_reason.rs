//! Every way a packet can die in the data path, each with a counter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet or datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The data path is shut: no authority has been heard for too long, or the device is down.
    Shut,
    /// Not an IP packet, or one whose lengths contradict each other.
    Malformed,
    /// An IPv6 extension header chain that is too long, out of order or routes by itself.
    ExtensionHeader,
    /// No peer owns the destination.
    NoRoute,
    /// The inner source is not an address of the sender: cryptokey routing.
    SpoofedSource,
    /// The inner destination is not an address of this device.
    NotForUs,
    /// The packet does not come from this device's overlay address.
    NotFromUs,
    /// No live rule allows it and no tracked flow covers it.
    NoRule,
    /// An ICMP error about a flow that this peer does not have.
    UntrackedError,
    /// Neighbour discovery, router messages, redirects: never over the overlay.
    ControlIcmp,
    /// A fragment of a datagram whose first fragment was not let through, or has not been seen.
    FragmentWithoutVerdict,
    /// A first fragment too small for its transport header, or one that overlaps it.
    BadFragment,
    /// The peer is gone from the table.
    PeerGone,
    /// The peer has no endpoint.
    NoEndpoint,
    /// Waiting for a handshake, and the queue is full.
    QueueFull,
    /// The handshake was given up, and with it what waited for it.
    HandshakeTimeout,
    /// No session, or one that is too old.
    NoSession,
    /// Not a WireGuard message.
    Junk,
    /// A receiver index that is not ours.
    UnknownIndex,
    /// A handshake for none of our keys, or from a key that is not a peer's.
    UnknownKey,
    /// A handshake message that came before, over another path or replayed.
    RepeatedHandshake,
    /// Too many handshakes from one source or peer.
    HandshakeRate,
    /// The handshake waits for the sender to prove its address.
    UnderLoad,
    /// Authentication failed, or the message was replayed.
    Crypto,
    /// A datagram from an overlay address: a loop.
    OverlayEndpoint,
    /// It is longer than the path to the peer carries; the application was told.
    TooBig,
    /// The network has marked a packet whose sender does not understand marks.
    Congestion,
}

impl DropReason {
    /// All, in the order of their counters.
    pub const ALL: [Self; 27] = [
        Self::Shut,
        Self::Malformed,
        Self::ExtensionHeader,
        Self::NoRoute,
        Self::SpoofedSource,
        Self::NotForUs,
        Self::NotFromUs,
        Self::NoRule,
        Self::UntrackedError,
        Self::ControlIcmp,
        Self::FragmentWithoutVerdict,
        Self::BadFragment,
        Self::PeerGone,
        Self::NoEndpoint,
        Self::QueueFull,
        Self::HandshakeTimeout,
        Self::NoSession,
        Self::Junk,
        Self::UnknownIndex,
        Self::UnknownKey,
        Self::RepeatedHandshake,
        Self::HandshakeRate,
        Self::UnderLoad,
        Self::Crypto,
        Self::OverlayEndpoint,
        Self::TooBig,
        Self::Congestion,
    ];

    /// The name in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shut => "shut",
            Self::Malformed => "malformed",
            Self::ExtensionHeader => "extension_header",
            Self::NoRoute => "no_route",
            Self::SpoofedSource => "spoofed_source",
            Self::NotForUs => "not_for_us",
            Self::NotFromUs => "not_from_us",
            Self::NoRule => "no_rule",
            Self::UntrackedError => "untracked_error",
            Self::ControlIcmp => "control_icmp",
            Self::FragmentWithoutVerdict => "fragment_without_verdict",
            Self::BadFragment => "bad_fragment",
            Self::PeerGone => "peer_gone",
            Self::NoEndpoint => "no_endpoint",
            Self::QueueFull => "queue_full",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NoSession => "no_session",
            Self::Junk => "junk",
            Self::UnknownIndex => "unknown_index",
            Self::UnknownKey => "unknown_key",
            Self::RepeatedHandshake => "repeated_handshake",
            Self::HandshakeRate => "handshake_rate",
            Self::UnderLoad => "under_load",
            Self::Crypto => "crypto",
            Self::OverlayEndpoint => "overlay_endpoint",
            Self::TooBig => "too_big",
            Self::Congestion => "congestion",
        }
    }
}

/// One counter per reason, shared by all workers.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one drop.
    pub fn count(&self, reason: DropReason) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted for `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0
            .get(reason as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Every counter that is not zero, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason.name(), self.of(reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let counters = DropCounters::default();
        for (position, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
            counters.count(reason);
            assert_eq!(counters.of(reason), 1);
        }
        assert_eq!(counters.snapshot().len(), DropReason::ALL.len());
    }
}
