//! Principals to sets of devices.

use std::collections::BTreeMap;

use gatereeve_shared::ids::{DeviceId, TagName, UserName};

use crate::state::device::Device;

use super::Policy;
use super::bits::Bits;
use super::principal::{Principal, Subject};

/// Which devices each rule of one policy speaks of.
///
/// It goes with the policy and the devices it was made from: make a new one when a device comes, goes,
/// or changes its tags or its user. A device that it does not know is allowed nothing. Status, keys and
/// posture are not in it.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// All devices, ascending; their positions are the numbers in the sets.
    ids: Vec<DeviceId>,
    /// For each rule, the devices that may reach by it.
    sources: Vec<Bits>,
    /// For each rule, the devices that may be reached by it.
    destinations: Vec<Bits>,
    /// For each device, the rules that name it as source.
    as_source: Vec<Bits>,
    /// For each device, the rules that name it as destination.
    as_destination: Vec<Bits>,
}

impl Resolved {
    /// Finds the devices that each rule means.
    #[must_use]
    pub fn new(policy: &Policy, devices: &BTreeMap<DeviceId, Device>) -> Self {
        let index = Index::new(devices);
        let mut sets = BTreeMap::new();
        let mut side = |principals: &[Principal]| {
            let mut devices = Bits::new(index.ids.len());
            for principal in principals {
                devices.add_all(
                    sets.entry(principal.clone())
                        .or_insert_with(|| index.devices_of(principal, policy)),
                );
            }
            devices
        };
        let sources: Vec<Bits> = policy.rules().iter().map(|rule| side(&rule.from)).collect();
        let destinations: Vec<Bits> = policy.rules().iter().map(|rule| side(&rule.to)).collect();
        Self {
            as_source: transpose(&sources, index.ids.len()),
            as_destination: transpose(&destinations, index.ids.len()),
            ids: index.ids,
            sources,
            destinations,
        }
    }

    /// How many devices a rule means as source and as destination.
    #[must_use]
    pub fn sizes(&self, rule: usize) -> (usize, usize) {
        let len = |sets: &[Bits]| sets.get(rule).map_or(0, Bits::len);
        (len(&self.sources), len(&self.destinations))
    }

    pub(crate) fn position(&self, device: &DeviceId) -> Option<usize> {
        self.ids.binary_search(device).ok()
    }

    pub(crate) fn id(&self, position: usize) -> Option<&DeviceId> {
        self.ids.get(position)
    }

    pub(crate) fn device_count(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn rule_count(&self) -> usize {
        self.sources.len()
    }

    /// The rules that name the device as source.
    pub(crate) fn as_source(&self, device: usize) -> Option<&Bits> {
        self.as_source.get(device)
    }

    /// The rules that name the device as destination.
    pub(crate) fn as_destination(&self, device: usize) -> Option<&Bits> {
        self.as_destination.get(device)
    }

    /// The positions of rules that name both, ascending.
    pub(crate) fn common_rules(
        &self,
        src: &DeviceId,
        dst: &DeviceId,
    ) -> impl Iterator<Item = usize> {
        let sets = self
            .position(src)
            .and_then(|src| self.as_source.get(src))
            .zip(
                self.position(dst)
                    .and_then(|dst| self.as_destination.get(dst)),
            );
        sets.into_iter().flat_map(|(src, dst)| src.common(dst))
    }

    /// All devices that a rule lets this one reach.
    pub(crate) fn reachable(&self, device: usize) -> Bits {
        self.union(self.as_source.get(device), &self.destinations)
    }

    /// All devices that a rule lets reach this one.
    pub(crate) fn reaching(&self, device: usize) -> Bits {
        self.union(self.as_destination.get(device), &self.sources)
    }

    fn union(&self, rules: Option<&Bits>, sets: &[Bits]) -> Bits {
        let mut all = Bits::new(self.ids.len());
        for devices in rules
            .into_iter()
            .flat_map(Bits::iter)
            .filter_map(|rule| sets.get(rule))
        {
            all.add_all(devices);
        }
        all
    }
}

fn transpose(by_rule: &[Bits], devices: usize) -> Vec<Bits> {
    let mut by_device = vec![Bits::new(by_rule.len()); devices];
    for (rule, set) in by_rule.iter().enumerate() {
        for device in set.iter() {
            if let Some(rules) = by_device.get_mut(device) {
                rules.insert(rule);
            }
        }
    }
    by_device
}

/// Devices by what principals speak of.
struct Index {
    ids: Vec<DeviceId>,
    by_user: BTreeMap<UserName, Bits>,
    by_tag: BTreeMap<TagName, Bits>,
}

impl Index {
    fn new(devices: &BTreeMap<DeviceId, Device>) -> Self {
        let mut by_user = BTreeMap::new();
        let mut by_tag = BTreeMap::new();
        for (at, device) in devices.values().enumerate() {
            let subject = Subject::from(device);
            if let Some(user) = subject.user {
                let set = by_user
                    .entry(user)
                    .or_insert_with(|| Bits::new(devices.len()));
                set.insert(at);
            }
            for tag in subject.tags {
                let set = by_tag
                    .entry(tag)
                    .or_insert_with(|| Bits::new(devices.len()));
                set.insert(at);
            }
        }
        Self {
            ids: devices.keys().copied().collect(),
            by_user,
            by_tag,
        }
    }

    fn devices_of(&self, principal: &Principal, policy: &Policy) -> Bits {
        let mut devices = Bits::new(self.ids.len());
        let mut add = |set: Option<&Bits>| {
            if let Some(set) = set {
                devices.add_all(set);
            }
        };
        match principal {
            Principal::Any => (0..self.ids.len()).for_each(|at| devices.insert(at)),
            Principal::User(user) => add(self.by_user.get(user)),
            Principal::Tag(tag) => add(self.by_tag.get(tag)),
            Principal::Group(group) => {
                for user in policy.groups().get(group).into_iter().flatten() {
                    add(self.by_user.get(user));
                }
            }
            Principal::Device(_, id) => {
                if let Ok(at) = self.ids.binary_search(id) {
                    devices.insert(at);
                }
            }
        }
        devices
    }
}
