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
