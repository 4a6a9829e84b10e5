//! The rules that grant now, for all pairs at once.
//!
//! A rule lets a source reach a destination if both ends fulfil what the rule asks of them, and each
//! end does so on its own. So what holds for all pairs follows from one set of rules for each device and
//! direction. The conditions are those of [`engine`](super::engine), which a test holds this against.

use gatereeve_shared::ids::{CheckName, DeviceId};
use gatereeve_shared::time::UnixMillis;

use super::View;
use super::engine::{posture_until, time_until};
use crate::policy::bits::Bits;

/// Live rules by device, live destinations by rule.
#[derive(Debug)]
pub(crate) struct Live {
    as_source: Vec<Bits>,
    as_destination: Vec<Bits>,
    destinations: Vec<Bits>,
}

impl Live {
    pub(crate) fn new(view: &View<'_>, now: UnixMillis) -> Self {
        let sets = view.sets;
        let mut active = Bits::new(sets.rule_count());
        for (at, rule) in view.policy.rules().iter().enumerate() {
            if time_until(rule, now).is_some() {
                active.insert(at);
            }
        }
        let mut live = Self {
            as_source: Vec::with_capacity(sets.device_count()),
            as_destination: Vec::with_capacity(sets.device_count()),
            destinations: vec![Bits::new(sets.device_count()); sets.rule_count()],
        };
        for at in 0..sets.device_count() {
            let device = sets.id(at).filter(|id| {
                let device = view.devices.get(*id);
                device.is_some_and(|device| device.may_have_peers(now))
            });
            let as_source = side(view, &active, device.zip(sets.as_source(at)), now, |rule| {
                view.policy.rules().get(rule).map(|rule| &*rule.posture)
            });
            let as_destination = side(
                view,
                &active,
                device.zip(sets.as_destination(at)),
                now,
                |rule| view.policy.rules().get(rule).map(|rule| &*rule.to_posture),
            );
            for rule in as_destination.iter() {
                if let Some(devices) = live.destinations.get_mut(rule) {
                    devices.insert(at);
                }
            }
            live.as_source.push(as_source);
            live.as_destination.push(as_destination);
        }
        live
    }

    /// The rules by which the device may reach others.
    pub(crate) fn as_source(&self, device: usize) -> Option<&Bits> {
        self.as_source.get(device)
    }

    /// The rules by which others may reach the device.
    pub(crate) fn as_destination(&self, device: usize) -> Option<&Bits> {
        self.as_destination.get(device)
    }

    /// All devices that this one reaches.
    pub(crate) fn reached_from(&self, device: usize) -> Bits {
        let mut reached = Bits::new(self.as_source.len());
        for rule in self.as_source.get(device).into_iter().flat_map(Bits::iter) {
            if let Some(devices) = self.destinations.get(rule) {
                reached.add_all(devices);
            }
        }
        reached.remove(device);
        reached
    }
}

/// The active rules whose checks the device meets.
fn side<'a>(
    view: &View<'_>,
    active: &Bits,
    device: Option<(&DeviceId, &Bits)>,
    now: UnixMillis,
    checks: impl Fn(usize) -> Option<&'a [CheckName]>,
) -> Bits {
    let mut met = Bits::new(view.sets.rule_count());
    if let Some((device, rules)) = device {
        for rule in rules.common(active) {
            let checks = checks(rule);
            if checks.is_some_and(|checks| posture_until(view, device, checks, now).is_some()) {
                met.insert(rule);
            }
        }
    }
    met
}
