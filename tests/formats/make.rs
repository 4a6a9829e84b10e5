//! Makes the fixture of this version: a state with a record of every kind, by the product's own code
//! and from fixed keys. Run once for each release, as `tests/README.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_client::daemon::state_dir::{NetworkFile, save_stored};
use gatereeve_client_core::engine::{Engine, EngineConfig};
use gatereeve_client_core::output::{ObservedFact, Output};
use gatereeve_client_core::stored::Stored;
use gatereeve_controller::backup;
use gatereeve_controller::journal::file::FileJournal;
use gatereeve_controller::journal::open::{Floor, open};
use gatereeve_controller::state_dir::StateDir;
use gatereeve_controller::state_dir::checkpoints::CheckpointFile;
use gatereeve_controller::state_dir::settings::Settings;
use gatereeve_controller::store::Store;
use gatereeve_controller_core::audit::entry::{Actor, AuditEntry};
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::change::Change;
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::device::{Device, DeviceStatus, StoredReport};
use gatereeve_controller_core::state::invite::StoredInvite;
use gatereeve_controller_core::state::soft::{SoftDevice, SoftState};
use gatereeve_runtime::atomic_file;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::binding::{ControllerBinding, KeyBinding};
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{CheckName, DeviceName, InviteId, RuleId, TagName, UserName};
use gatereeve_shared::lease::Lease;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::posture::verdict::{Failure, Verdict};
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::client::{ClientMessage, KeyUpdate};
use gatereeve_shared::wire::controller::{ControllerHello, ControllerMessage, Pong, Standing};
use gatereeve_shared::wire::map::{
    MapUpdate, OverlayAddresses, OverlayPrefixes, PeerEntry, SelfEntry,
};

/// What the device runs: the same in the fixtures of all releases, so that these can be compared.
const SOFTWARE: &str = "0.1.0";
/// When everything in the fixture happens, a second apart.
const EPOCH: u64 = 1_800_000_000_000;
/// Seeds of the keys; the fixture holds no key that is used anywhere.
const NETWORK: [u8; 32] = [0xa1; 32];
const TLS: [u8; 32] = [0xa2; 32];

pub(crate) const POLICY: &str = r#"version = 1

[tags."tag:web"]
[tags."tag:db"]

[posture.healthy]
firewall = true
max_age = "15m"

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]

[[allow]]
id = "alice-to-web"
from = ["alice@example.com"]
to = ["tag:web"]
ports = ["tcp:22", "icmp"]
posture = ["healthy"]

[[test]]
from = "tag:web"
to = "tag:db"
ports = ["tcp:5432", "tcp:22"]
expect = ["allow", "deny"]
"#;

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn pin() -> Fingerprint {
    Fingerprint::of(&IdentityKey::from_seed(&NETWORK).public())
}

fn binding(seed: u8, counter: u64) -> KeyBinding {
    let mut secret = [seed; 32];
    secret[..8].copy_from_slice(&counter.to_be_bytes());
    let public = WgSecret::from_bytes(secret).public();
    KeyBinding::sign(&identity(seed), &pin(), public, counter)
}

fn addresses(seed: u8) -> OverlayAddresses {
    OverlayAddresses {
        v4: [100, 64, 0, seed].into(),
        v6: [0xfd00, 1, 2, 0, 0, 0, 0, u16::from(seed)].into(),
    }
}

fn prefixes() -> OverlayPrefixes {
    OverlayPrefixes {
        v4: "100.64.0.0/10".parse().unwrap(),
        v6: "fd00:1:2::/48".parse().unwrap(),
    }
}

fn device(seed: u8, name: &str, tag: Option<&str>, user: Option<&str>) -> Device {
    let public = identity(seed).public();
    Device {
        id: public.device_id(),
        identity: public,
        name: DeviceName::new(name).unwrap(),
        addresses: addresses(seed),
        tags: tag
            .map(|tag| TagName::new(tag).unwrap())
            .into_iter()
            .collect(),
        user: user.map(|user| UserName::new(user).unwrap()),
        status: DeviceStatus::Approved,
        ephemeral: false,
        keys: KeyUpdate {
            current: binding(seed, 1),
            next: None,
        },
        enrolled_at: UnixMillis(EPOCH),
        key_expires: None,
    }
}

/// One change of every kind, and a second of some.
#[expect(clippy::too_many_lines, reason = "a list")]
fn changes() -> Vec<Change> {
    let invite = InviteId([7; 8]);
    let check = CheckName::new("healthy").unwrap();
    let added = |device: Device, invite| Change::DeviceAdded {
        device: Box::new(device),
        invite,
    };
    let laptop = identity(13).public().device_id();
    let old = identity(14).public().device_id();
    let lost = identity(15).public().device_id();
    let met = |until| BTreeMap::from([(check.clone(), Verdict::Compliant { until })]);
    vec![
        Change::Noted,
        Change::InviteCreated(StoredInvite {
            id: invite,
            secret_hash: [8; 32],
            tags: BTreeSet::from([TagName::new("web").unwrap()]),
            user: None,
            uses_left: 5,
            expires: UnixMillis::MAX,
            ephemeral: false,
            approve: true,
        }),
        Change::InviteCreated(StoredInvite {
            id: InviteId([9; 8]),
            secret_hash: [9; 32],
            tags: BTreeSet::new(),
            user: Some(UserName::new("alice@example.com").unwrap()),
            uses_left: 1,
            expires: UnixMillis(EPOCH + 3_600_000),
            ephemeral: true,
            approve: false,
        }),
        Change::InviteRevoked {
            invite: InviteId([9; 8]),
        },
        added(device(11, "web", Some("web"), None), Some(invite)),
        added(device(12, "database", None, None), None),
        added(device(13, "laptop", None, Some("alice@example.com")), None),
        added(device(14, "old", Some("db"), None), None),
        added(device(15, "lost", Some("web"), None), None),
        Change::DeviceRenamed {
            device: identity(12).public().device_id(),
            name: DeviceName::new("db").unwrap(),
        },
        Change::DeviceTagged {
            device: identity(12).public().device_id(),
            tags: BTreeSet::from([TagName::new("db").unwrap()]),
        },
        Change::KeysChanged {
            device: laptop,
            keys: Box::new(KeyUpdate {
                current: binding(13, 1),
                next: Some(binding(13, 2)),
            }),
        },
        Change::PolicyApplied {
            revision: 1,
            text: POLICY.to_owned(),
            pins: BTreeMap::new(),
            rules: 2,
            verdicts: BTreeMap::new(),
        },
        Change::VerdictsChanged {
            device: laptop,
            verdicts: BTreeMap::from([(
                check.clone(),
                Verdict::NonCompliant {
                    failures: vec![Failure {
                        wanted: "firewall = true".to_owned(),
                        found: "false".to_owned(),
                    }],
                },
            )]),
        },
        Change::VerdictsChanged {
            device: laptop,
            verdicts: met(UnixMillis::MAX),
        },
        Change::DeviceStatus {
            device: old,
            status: DeviceStatus::Quarantined,
        },
        Change::DeviceRevoked { device: lost },
        Change::DeviceRemoved { device: old },
        Change::TimePassed,
        Change::Restored,
    ]
}

/// The controller's state directory and a backup of it, in `to`.
pub(crate) fn controller(to: &Path) {
    let dir = StateDir::new(to.join("controller"));
    dir.create().unwrap();
    atomic_file::write(&dir.network_key(), &NETWORK, 0o600).unwrap();
    atomic_file::write(&dir.tls_key(), &TLS, 0o600).unwrap();
    let settings = Settings {
        name: "fixture".into(),
        advertise: vec!["vpn.example.com:8443".into()],
        prefixes: prefixes(),
    };
    settings.save(&dir.settings()).unwrap();
    let mut journal = open(&dir.journal(), Floor::default(), &mut |_| {})
        .unwrap()
        .journal;
    let mut state = State::empty();
    for change in changes() {
        append(&mut journal, &mut state, change);
    }
    let loaded = Store::load(&dir.tables(), UnixMillis(EPOCH)).unwrap();
    loaded.store.replace(&state).unwrap();
    let laptop = identity(13).public().device_id();
    let mut soft = SoftState::default();
    soft.devices.insert(
        laptop,
        SoftDevice {
            report: Some(StoredReport {
                received: UnixMillis(EPOCH),
                facts: vec![Fact::new("firewall", &FactValue::Bool(true), "fixture", 5)],
            }),
            last_seen: Some(UnixMillis(EPOCH)),
            software: Some(SOFTWARE.into()),
        },
    );
    loaded.store.write_soft(vec![soft.write(&laptop)]).unwrap();
    loaded.store.flush().unwrap();
    drop(loaded);
    let key = IdentityKey::from_seed(&NETWORK);
    let signed = Checkpoint::sign(&key, state.generation(), state.head(), UnixMillis(EPOCH));
    CheckpointFile::open(&dir.checkpoints())
        .unwrap()
        .append(&signed)
        .unwrap();
    let mut tar = File::create(to.join("backup.tar")).unwrap();
    backup::write(&dir, backup::Keys::Both, &mut tar).unwrap();
    tar.flush().unwrap();
}

fn append(journal: &mut FileJournal, state: &mut State, change: Change) {
    let mut generation = state.next_generation();
    if matches!(change, Change::Restored) {
        generation.incarnation += 1;
    }
    let record = Record {
        generation,
        at: UnixMillis(EPOCH + generation.n * 1000),
        actor: match generation.n % 3 {
            0 => Actor::System,
            1 => Actor::Local {
                uid: 0,
                user: "root".into(),
            },
            _ => Actor::Device(identity(11).public().device_id()),
        },
        change,
        audit: AuditEntry::done("fixture.change", generation.to_string())
            .from_to("before", "after")
            .because("a reason")
            .detailed(["a detail".to_owned()]),
    };
    let sealed = record.seal(&state.head()).unwrap();
    journal.append(std::slice::from_ref(&sealed)).unwrap();
    state.apply(&record, sealed.hash);
}

/// The client's state directory, in `to`: identity, network, and the engine's memory with a map.
pub(crate) fn client(to: &Path) {
    let dir = to.join("client");
    std::fs::create_dir_all(&dir).unwrap();
    atomic_file::write(&dir.join("identity.key"), &[13; 32], 0o600).unwrap();
    let mut network = NetworkFile {
        controllers: vec!["vpn.example.com:8443".into()],
        fingerprint: pin(),
        tls_key: None,
        up: true,
    };
    network.set_tls_key(&IdentityKey::from_seed(&TLS).public());
    let text = serde_json::to_vec_pretty(&network).unwrap();
    atomic_file::write(&dir.join("network"), &text, 0o600).unwrap();
    save_stored(&dir.join("state"), &memory()).unwrap();
}

/// What an engine keeps that has been approved and has got a map.
fn memory() -> Stored {
    let now = Now {
        mono: Mono(100_000_000_000),
        unix: UnixMillis(EPOCH),
    };
    let config = EngineConfig {
        software: SOFTWARE.into(),
        identity: Arc::new(identity(13)),
        network: pin(),
    };
    let mut engine = Engine::new(config, Stored::default(), [9; 32], now);
    engine.handle_up(true, now);
    engine.handle_connected(
        ControllerHello {
            minor: 1,
            binding: ControllerBinding::sign(
                &IdentityKey::from_seed(&NETWORK),
                IdentityKey::from_seed(&TLS).public(),
                UnixMillis::MAX,
            ),
            now: now.unix,
            standing: Standing::Approved,
            observed: "198.51.100.7:4000".parse().unwrap(),
        },
        now,
    );
    let fact = ObservedFact {
        id: "firewall".into(),
        value: FactValue::Bool(true),
        source: "fixture".into(),
        observed: now.mono,
    };
    engine.handle_posture(vec![fact], now);
    let mut stored = None;
    drain(&mut engine, &mut stored, now);
    engine.handle_control(ControllerMessage::Map(map()), now);
    drain(&mut engine, &mut stored, now);
    engine.handle_timeout(now.after(Duration::from_secs(60)));
    drain(&mut engine, &mut stored, now);
    stored.expect("the engine saves what it holds")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what else the engine wants does not matter to what it saves"
)]
fn drain(engine: &mut Engine, stored: &mut Option<Stored>, now: Now) {
    let mut pings = Vec::new();
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Save(newest) => *stored = Some(*newest),
            Output::Send(ClientMessage::Ping(nonce)) => pings.push(nonce),
            Output::Publish(table) => engine.handle_enforced(table.serial, now),
            _ => {}
        }
    }
    for nonce in pings {
        let pong = Pong {
            nonce,
            now: now.unix,
        };
        engine.handle_control(ControllerMessage::Pong(pong), now);
        drain(engine, stored, now);
    }
}

fn map() -> MapUpdate {
    let rule = FilterRule {
        rule: RuleId::new("alice-to-web").unwrap(),
        ports: vec!["tcp:22".parse().unwrap(), "icmp".parse().unwrap()],
        lease: Lease::new(UnixMillis::MAX, UnixMillis::MAX),
    };
    MapUpdate {
        from: None,
        to: Generation {
            incarnation: 1,
            n: 20,
        },
        this: Some(SelfEntry {
            network: "fixture".into(),
            prefixes: prefixes(),
            device: identity(13).public().device_id(),
            name: DeviceName::new("laptop").unwrap(),
            addresses: addresses(13),
            tags: Vec::new(),
            user: Some(UserName::new("alice@example.com").unwrap()),
            key_expires: None,
            report_every_secs: 300,
            watched_processes: vec!["/opt/edr/agent".into()],
            rotate_key_secs: 86_400,
        }),
        removed: Vec::new(),
        upserted: vec![PeerEntry {
            device: identity(11).public().device_id(),
            name: DeviceName::new("web").unwrap(),
            addresses: addresses(11),
            user: None,
            tags: Vec::new(),
            key: binding(11, 1),
            next_key: Some(binding(11, 2)),
            endpoints: vec!["192.0.2.11:51840".parse().unwrap()],
            ingress: Vec::new(),
            egress: vec![rule],
        }],
        checkpoint: None,
        more: false,
    }
}
