//! Whether a device may claim a WireGuard key.

use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::wire::client::KeyUpdate;

use crate::state::State;

/// Any scalar shows whether a point is of small order.
const PROBE: [u8; 32] = [9; 32];

/// Checks one binding: signed in this network by this identity, over a key that is of full order
/// and that no other device claims.
pub(crate) fn check_binding(
    binding: &KeyBinding,
    identity: &IdentityPublicKey,
    network: &Fingerprint,
    state: &State,
) -> Result<(), &'static str> {
    if binding.identity != *identity {
        return Err("the key binding is of another device than the connection");
    }
    binding
        .verify(network)
        .map_err(|_| "the signature of the key binding does not hold in this network")?;
    if !WgSecret::from_bytes(PROBE).contributes_with(&binding.wg_key) {
        return Err("the WireGuard key is of small order");
    }
    match state.wg_owner(&binding.wg_key) {
        Some(owner) if owner != identity.device_id() => {
            Err("another device has this WireGuard key; make a new one")
        }
        _ => Ok(()),
    }
}

/// Checks a key update against the keys that the device has: its counter may not go back, and one
/// counter means one key.
pub(crate) fn check_update(
    update: &KeyUpdate,
    known: &KeyUpdate,
    identity: &IdentityPublicKey,
    network: &Fingerprint,
    state: &State,
) -> Result<(), &'static str> {
    for binding in std::iter::once(&update.current).chain(&update.next) {
        check_binding(binding, identity, network, state)?;
    }
    if update.current.counter < known.current.counter {
        return Err("the WireGuard key is older than the one in use");
    }
    if update.current.counter == known.current.counter
        && update.current.wg_key != known.current.wg_key
    {
        return Err("another WireGuard key has this counter already");
    }
    match &update.next {
        Some(next) if next.counter <= update.current.counter => {
            Err("the next WireGuard key has to have a higher counter")
        }
        Some(next) if next.wg_key == update.current.wg_key => {
            Err("the next WireGuard key is the one in use")
        }
        _ => Ok(()),
    }
}
