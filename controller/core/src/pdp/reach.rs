//! The blast radius of a device: all it can reach, directly and through others.

use std::collections::BTreeMap;

use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::time::UnixMillis;

use super::View;
use super::engine::grants;
use super::live::Live;
use super::ports::PortSet;
use crate::command::{ReachView, ReachedView};
use crate::policy::bits::Bits;
use crate::state::device::DeviceStatus;

/// All devices that this one can reach now, nearest first, each by a shortest way. Whoever holds the
/// device can go no further than this, even if every device on the way gives in.
///
/// `None` if there is no such device.
#[must_use]
pub fn reach(view: &View<'_>, device: &DeviceId, now: UnixMillis) -> Option<ReachView> {
    let start = view.sets.position(device)?;
    let name = |at: usize| -> Option<&DeviceName> {
        let device = view.devices.get(view.sets.id(at)?)?;
        Some(&device.name)
    };
    let live = Live::new(view, now);
    let mut seen = Bits::new(view.sets.device_count());
    seen.insert(start);
    // From where each device was reached first.
    let mut before: BTreeMap<usize, usize> = BTreeMap::new();
    let mut reached = Vec::new();
    let mut hop = vec![start];
    let mut hops = 0;
    while !hop.is_empty() {
        hops += 1;
        let mut next = Vec::new();
        for from in hop {
            for to in live.reached_from(from).iter() {
                if !seen.contains(to) {
                    seen.insert(to);
                    before.insert(to, from);
                    next.push(to);
                }
            }
        }
        next.sort_by_key(|at| name(*at));
        for to in &next {
            reached.extend(entry(view, &before, (start, *to), hops, now));
        }
        hop = next;
    }
    let others = view
        .devices
        .values()
        .filter(|other| other.status != DeviceStatus::Revoked && other.id != *device);
    Some(ReachView {
        device: name(start)?.clone(),
        unreached: others.count().saturating_sub(reached.len()),
        reached,
    })
}

fn entry(
    view: &View<'_>,
    before: &BTreeMap<usize, usize>,
    (start, to): (usize, usize),
    hops: usize,
    now: UnixMillis,
) -> Option<ReachedView> {
    let name = |at: usize| Some(view.devices.get(view.sets.id(at)?)?.name.clone());
    let last = *before.get(&to)?;
    let mut through = Vec::new();
    let mut at = last;
    while at != start {
        through.push(name(at)?);
        at = *before.get(&at)?;
    }
    through.reverse();
    let grants = grants(view, view.sets.id(last)?, view.sets.id(to)?, now);
    let ports: PortSet = grants.iter().flat_map(|grant| &grant.ports).collect();
    Some(ReachedView {
        device: name(to)?,
        hops,
        through,
        ports: ports.specs(),
        rules: grants.into_iter().map(|grant| grant.rule).collect(),
    })
}
