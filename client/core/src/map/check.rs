//! Whether a peer is who the controller says, and within the limits.
//!
//! A controller cannot put a key of its own in a device's place: every WireGuard key is signed by
//! the identity key whose hash is the device's ID, and none older than one already seen comes back.

use std::collections::BTreeMap;

use thiserror::Error;

use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::limits;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::wire::map::PeerEntry;

use super::assemble::TAGS;

/// Why a peer is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PeerProblem {
    /// The signature does not hold in this network.
    #[error("its WireGuard key is not signed by its identity key")]
    Signature,
    /// The key is signed by somebody else.
    #[error("its WireGuard key is signed by another device")]
    Identity,
    /// An older key than one seen before.
    #[error("its WireGuard key is older than one already used")]
    Replayed,
    /// The next key does not follow the current one.
    #[error("its next WireGuard key does not follow the current one")]
    Order,
    /// A key that contributes nothing to a shared secret.
    #[error("its WireGuard key is one of the weak ones")]
    Weak,
    /// More rules, ports or tags than a device takes.
    #[error("its entry exceeds the limits")]
    Limits,
    /// An address outside the network, or this device's own.
    #[error("its addresses cannot be its own")]
    Address,
    /// The same key or address as another device.
    #[error("it claims a key or address that another device claims as well")]
    Conflict,
}

/// What is known of peers' keys, over map changes and restarts.
pub(crate) struct KeyCheck<'a> {
    /// The network whose bindings count.
    pub(crate) network: &'a Fingerprint,
    /// A key of this device, for the test of weakness.
    pub(crate) own: &'a WgSecret,
    /// The newest current key of each device.
    pub(crate) seen: &'a mut BTreeMap<DeviceId, (u64, WgPublicKey)>,
}

impl KeyCheck<'_> {
    /// Checks everything about `peer` that can be told without the other peers. `old` is its entry
    /// before, where that one was in order: signatures checked once are not checked again.
    pub(crate) fn check(
        &mut self,
        peer: &PeerEntry,
        old: Option<&PeerEntry>,
    ) -> Result<(), PeerProblem> {
        check_limits(peer)?;
        let known = |binding: &KeyBinding| {
            old.is_some_and(|old| old.key == *binding || old.next_key.as_ref() == Some(binding))
        };
        for binding in [&peer.key].into_iter().chain(&peer.next_key) {
            if !known(binding) {
                self.check_binding(peer.device, binding)?;
            }
        }
        if peer
            .next_key
            .as_ref()
            .is_some_and(|next| next.counter <= peer.key.counter)
        {
            return Err(PeerProblem::Order);
        }
        match self.seen.get(&peer.device) {
            Some((counter, key))
                if peer.key.counter < *counter
                    || (peer.key.counter == *counter && peer.key.wg_key != *key) =>
            {
                Err(PeerProblem::Replayed)
            }
            _ => {
                self.seen
                    .insert(peer.device, (peer.key.counter, peer.key.wg_key));
                Ok(())
            }
        }
    }

    fn check_binding(&self, device: DeviceId, binding: &KeyBinding) -> Result<(), PeerProblem> {
        if binding.identity.device_id() != device {
            return Err(PeerProblem::Identity);
        }
        binding
            .verify(self.network)
            .map_err(|_| PeerProblem::Signature)?;
        if !self.own.contributes_with(&binding.wg_key) {
            return Err(PeerProblem::Weak);
        }
        Ok(())
    }
}

fn check_limits(peer: &PeerEntry) -> Result<(), PeerProblem> {
    let rules_fit = |rules: &[FilterRule]| {
        rules.len() <= limits::RULES_PER_PEER
            && rules
                .iter()
                .all(|rule| rule.ports.len() <= limits::PORTS_PER_RULE)
    };
    if rules_fit(&peer.ingress) && rules_fit(&peer.egress) && peer.tags.len() <= TAGS {
        Ok(())
    } else {
        Err(PeerProblem::Limits)
    }
}
