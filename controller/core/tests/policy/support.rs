//! Small worlds to decide in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use gatereeve_controller_core::pdp::View;
use gatereeve_controller_core::policy::Policy;
use gatereeve_controller_core::policy::resolve::Resolved;
use gatereeve_controller_core::posture::evaluate::evaluate;
use gatereeve_controller_core::state::device::{Device, DeviceStatus, StoredReport};
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{CheckName, DeviceId, DeviceName, TagName, UserName};
use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::client::KeyUpdate;
use gatereeve_shared::wire::map::OverlayAddresses;

/// 2026-11-23T12:00:00Z, a Monday.
pub(crate) const NOON: UnixMillis = UnixMillis(1_795_435_200_000);
pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// Keys play no part in decisions: all devices of the tests have the same.
static KEYS: LazyLock<KeyUpdate> = LazyLock::new(|| {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let network = Fingerprint::of(&identity.public());
    let wg_key = WgSecret::from_bytes([2; 32]).public();
    KeyUpdate {
        current: KeyBinding::sign(&identity, &network, wg_key, 1),
        next: None,
    }
});

/// An approved device with a name; its ID follows from `number`.
pub(crate) fn device(number: u16, name: &str, user: Option<&str>, tags: &[&str]) -> Device {
    let mut id = [0; 20];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Device {
        id: DeviceId(id),
        identity: KEYS.current.identity,
        name: DeviceName::new(name).unwrap(),
        addresses: OverlayAddresses {
            v4: [100, 64, 0, 1].into(),
            v6: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        },
        tags: tags.iter().map(|tag| TagName::new(*tag).unwrap()).collect(),
        user: user.map(|user| UserName::new(user).unwrap()),
        status: DeviceStatus::Approved,
        ephemeral: false,
        keys: KEYS.clone(),
        enrolled_at: UnixMillis(0),
        key_expires: None,
    }
}

/// Devices, their reports, and a policy over them.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) reports: BTreeMap<DeviceId, StoredReport>,
}

impl World {
    pub(crate) fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        Self {
            devices: devices.into_iter().map(|d| (d.id, d)).collect(),
            reports: BTreeMap::new(),
        }
    }

    pub(crate) fn names(&self) -> BTreeMap<DeviceName, DeviceId> {
        let devices = self.devices.values();
        devices.map(|d| (d.name.clone(), d.id)).collect()
    }

    pub(crate) fn id(&self, name: &str) -> DeviceId {
        self.names()[&DeviceName::new(name).unwrap()]
    }

    pub(crate) fn device(&mut self, name: &str) -> &mut Device {
        let id = self.id(name);
        self.devices.get_mut(&id).unwrap()
    }

    pub(crate) fn report(&mut self, name: &str, received: UnixMillis, facts: Vec<Fact>) {
        let id = self.id(name);
        self.reports.insert(id, StoredReport { received, facts });
    }

    pub(crate) fn decide(&self, text: &str, now: UnixMillis) -> Decided<'_> {
        let policy = match Policy::parse(text, &self.names()) {
            Ok((policy, _)) => policy,
            Err(problems) => panic!("{problems:#?}\n{text}"),
        };
        let verdicts = self
            .devices
            .keys()
            .map(|id| (*id, evaluate(&policy, self.reports.get(id), now)))
            .collect();
        Decided {
            sets: Resolved::new(&policy, &self.devices),
            policy,
            verdicts,
            devices: &self.devices,
        }
    }
}

/// A policy in force.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    pub(crate) policy: Policy,
    pub(crate) sets: Resolved,
    pub(crate) verdicts: BTreeMap<DeviceId, BTreeMap<CheckName, Verdict>>,
    pub(crate) devices: &'a BTreeMap<DeviceId, Device>,
}

impl Decided<'_> {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            devices: self.devices,
            verdicts: &self.verdicts,
            policy: &self.policy,
            sets: &self.sets,
        }
    }
}

pub(crate) fn fact(id: &str, value: &FactValue, age_ms: u64) -> Fact {
    Fact::new(id, value, "test", age_ms)
}
