//! Overlay addresses: one of each family for every device, its own until 30 days after it is gone.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use sha2::{Digest as _, Sha256};

use crate::state::State;

/// Free addresses for a device. Where to look first follows from its ID, so that neighbours in
/// address are no neighbours in time. `None` where a prefix is used up.
#[must_use]
pub fn allocate(
    prefixes: &OverlayPrefixes,
    state: &State,
    device: &DeviceId,
) -> Option<OverlayAddresses> {
    let devices = state.devices().values().map(|device| device.addresses);
    let resting = state.resting().values().map(|resting| resting.addresses);
    let (used_v4, used_v6): (BTreeSet<u32>, BTreeSet<u128>) = devices
        .chain(resting)
        .map(|addresses| (u32::from(addresses.v4), u128::from(addresses.v6)))
        .unzip();
    let (v4_seed, v6_seed) = seeds(device);

    let v4_net = u32::from(prefixes.v4.network());
    let v4_size = 1u64.checked_shl(32 - u32::from(prefixes.v4.prefix_len()))?;
    // The first and the last address of a prefix have meanings of their own.
    let v4_room = v4_size.checked_sub(2).filter(|room| *room > 0)?;
    let v4 = (0..v4_room)
        .map(|step| 1 + (u64::from(v4_seed) + step) % v4_room)
        .filter_map(|offset| v4_net.checked_add(u32::try_from(offset).ok()?))
        .find(|address| !used_v4.contains(address))?;

    let v6_net = u128::from(prefixes.v6.network());
    let host_bits = 128 - u32::from(prefixes.v6.prefix_len());
    let mask = 1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    // One more candidate than addresses in use: one of them is free.
    let tries = u128::try_from(used_v6.len()).ok()? + 2;
    let v6 = (0..tries)
        .map(|step| v6_seed.wrapping_add(step) & mask)
        .filter(|host| *host != 0)
        .map(|host| v6_net | host)
        .find(|address| !used_v6.contains(address))?;
    Some(OverlayAddresses {
        v4: Ipv4Addr::from(v4),
        v6: Ipv6Addr::from(v6),
    })
}

fn seeds(device: &DeviceId) -> (u32, u128) {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(b"gatereeve overlay address v1\0")
        .chain_update(device.0)
        .finalize()
        .into();
    let mut v4 = [0; 4];
    let mut v6 = [0; 16];
    v4.iter_mut().zip(&hash).for_each(|(to, from)| *to = *from);
    v6.iter_mut()
        .zip(hash.iter().skip(16))
        .for_each(|(to, from)| *to = *from);
    (u32::from_be_bytes(v4), u128::from_be_bytes(v6))
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::generation::Generation;
    use gatereeve_shared::identity::binding::KeyBinding;
    use gatereeve_shared::identity::fingerprint::Fingerprint;
    use gatereeve_shared::identity::identity_key::IdentityKey;
    use gatereeve_shared::identity::wg_key::WgPublicKey;
    use gatereeve_shared::ids::DeviceName;
    use gatereeve_shared::time::UnixMillis;
    use gatereeve_shared::wire::client::KeyUpdate;

    use super::*;
    use crate::audit::entry::{Actor, AuditEntry};
    use crate::audit::record::Record;
    use crate::change::Change;
    use crate::state::device::{Device, DeviceStatus};

    /// Adds a device with the addresses it is given, if there are any.
    fn add(prefixes: &OverlayPrefixes, state: &mut State, n: u8) -> Option<OverlayAddresses> {
        let key = IdentityKey::from_seed(&[n; 32]);
        let id = key.public().device_id();
        let addresses = allocate(prefixes, state, &id)?;
        let network = Fingerprint([0; 32]);
        let device = Device {
            id,
            identity: key.public(),
            name: DeviceName::new(format!("d{n}")).ok()?,
            addresses,
            tags: BTreeSet::new(),
            user: None,
            status: DeviceStatus::Approved,
            ephemeral: false,
            keys: KeyUpdate {
                current: KeyBinding::sign(&key, &network, WgPublicKey([n; 32]), 1),
                next: None,
            },
            enrolled_at: UnixMillis(0),
            key_expires: None,
        };
        let record = Record {
            generation: Generation::default(),
            at: UnixMillis(0),
            actor: Actor::System,
            change: Change::DeviceAdded {
                device: Box::new(device),
                invite: None,
            },
            audit: AuditEntry::done("test", ""),
        };
        state.apply(&record, [0; 32]);
        Some(addresses)
    }

    #[test]
    fn a_prefix_is_used_up_to_its_last_address_and_no_further() {
        let prefixes = OverlayPrefixes {
            v4: "10.9.0.0/28".parse().unwrap(),
            v6: "fd00:9::/124".parse().unwrap(),
        };
        let mut state = State::empty();
        let given: Vec<_> = (1..=20)
            .filter_map(|n| add(&prefixes, &mut state, n))
            .collect();
        assert_eq!(given.len(), 14);
        let v4: BTreeSet<_> = given.iter().map(|a| a.v4).collect();
        let v6: BTreeSet<_> = given.iter().map(|a| a.v6).collect();
        assert_eq!((v4.len(), v6.len()), (14, 14));
        assert!(given.iter().all(|a| prefixes.v4.contains(&a.v4)));
        assert!(given.iter().all(|a| prefixes.v6.contains(&a.v6)));
        assert!(!v4.contains(&"10.9.0.0".parse().unwrap()));
        assert!(!v4.contains(&"10.9.0.15".parse().unwrap()));
    }
}
