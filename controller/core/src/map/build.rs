//! The entries of a map, from what the policy engine grants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::{OverlayPrefixes, PeerEntry, SelfEntry};

use crate::pdp::{Grant, View, engine};
use crate::state::device::Device;

/// Where devices can be reached.
pub(crate) type Endpoints = BTreeMap<DeviceId, Vec<SocketAddr>>;

/// What `device` is told of `peer`; `None` where neither may reach the other.
pub(crate) fn peer(
    view: &View<'_>,
    device: &DeviceId,
    peer: &DeviceId,
    endpoints: &Endpoints,
    now: UnixMillis,
) -> Option<PeerEntry> {
    let ingress = rules(engine::grants(view, peer, device, now));
    let egress = rules(engine::grants(view, device, peer, now));
    if ingress.is_empty() && egress.is_empty() {
        return None;
    }
    let peer = view.devices.get(peer)?;
    // Who is behind it matters to those that it reaches.
    let is_source = !ingress.is_empty();
    Some(PeerEntry {
        device: peer.id,
        name: peer.name.clone(),
        addresses: peer.addresses,
        user: peer.user.clone().filter(|_| is_source),
        tags: if is_source {
            peer.tags.iter().cloned().collect()
        } else {
            Vec::new()
        },
        key: peer.keys.current.clone(),
        next_key: peer.keys.next.clone(),
        endpoints: endpoints.get(&peer.id).cloned().unwrap_or_default(),
        ingress,
        egress,
    })
}

fn rules(grants: Vec<Grant>) -> Vec<FilterRule> {
    grants
        .into_iter()
        .map(|grant| FilterRule {
            rule: grant.rule,
            ports: grant.ports,
            lease: grant.lease,
        })
        .collect()
}

/// What a device is told of itself.
pub(crate) fn this(
    view: &View<'_>,
    network: &str,
    prefixes: &OverlayPrefixes,
    device: &Device,
) -> SelfEntry {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    SelfEntry {
        network: network.to_owned(),
        prefixes: *prefixes,
        device: device.id,
        name: device.name.clone(),
        addresses: device.addresses,
        tags: device.tags.iter().cloned().collect(),
        user: device.user.clone(),
        key_expires: device.key_expires,
        report_every_secs: seconds(view.policy.posture_interval(device)).max(1),
        watched_processes: view.policy.watched_processes(),
        rotate_key_secs: seconds(view.policy.rotate_key()).max(1),
    }
}
