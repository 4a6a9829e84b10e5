//! What answers show: devices, invites, revisions, flows and what they hang on.

use serde::{Deserialize, Serialize};

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId, RuleId, TagName, UserName};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

use super::PolicyProblem;
use crate::state::device::DeviceStatus;

/// What the controller is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// Software version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// What clients pin.
    pub fingerprint: Fingerprint,
    /// Its addresses.
    pub prefixes: OverlayPrefixes,
    /// The state in force.
    pub generation: Generation,
    /// The policy in force; 0 for none.
    pub policy_revision: u64,
    /// How many devices there are, of any status.
    pub devices: usize,
    /// Devices that are connected.
    pub connected: usize,
    /// Devices that wait for approval.
    pub pending: usize,
    /// Connected devices that have not confirmed what they were last sent.
    pub lagging: Vec<DeviceName>,
    /// Attempts with keys that nobody knows, since the start.
    pub unknown_keys: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// What needs attention, such as a disk that refuses writes.
    pub warnings: Vec<String>,
    /// How the daemon is confined; `None` from one that does not say.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// What the state takes, where that is known.
    pub disk: Option<DiskUse>,
}

/// Room for the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// Bytes that the journal takes; it is the audit log, so it only grows.
    pub journal: u64,
    /// Bytes that are left on its file system.
    pub free: u64,
}

/// An invite, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// Its number.
    pub id: InviteId,
    /// See [`Command::InviteCreate`].
    pub tags: Vec<TagName>,
    /// See [`Command::InviteCreate`].
    pub user: Option<UserName>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// When it expires.
    pub expires: UnixMillis,
    /// See [`Command::InviteCreate`].
    pub ephemeral: bool,
    /// See [`Command::InviteCreate`].
    pub approve: bool,
}

/// A device, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its ID.
    pub id: DeviceId,
    /// Its name; of a pending one, the name it asked for.
    pub name: DeviceName,
    /// How it stands.
    pub status: DeviceStatus,
    /// Its addresses; a pending device has none.
    pub addresses: Option<OverlayAddresses>,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// Its user.
    pub user: Option<UserName>,
    /// Whether it vanishes when it is gone.
    pub ephemeral: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was last heard of.
    pub last_seen: Option<UnixMillis>,
    /// When its key expires.
    pub key_expires: Option<UnixMillis>,
    /// The WireGuard key it uses, in base64.
    pub wg_key: Option<String>,
    /// Its client's version.
    pub software: Option<String>,
    /// The generation it has confirmed.
    pub confirmed: Option<Generation>,
    /// How it does on the posture checks of the policy.
    pub posture: Vec<CheckOutcome>,
    /// How many peers its map has.
    pub peers: usize,
}

/// What a policy would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The revision in force, for `--if-generation`.
    pub revision: u64,
    /// What would be allowed and is not.
    pub opens: Vec<FlowView>,
    /// What is allowed and would not be.
    pub closes: Vec<FlowView>,
    /// What is worth a look in the file.
    pub warnings: Vec<PolicyProblem>,
}

/// Ports from one device to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowView {
    /// Source.
    pub from: DeviceName,
    /// Destination.
    pub to: DeviceName,
    /// Which ports.
    pub ports: Vec<PortSpec>,
    /// Through which rules.
    pub rules: Vec<RuleId>,
}

/// One revision of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Its number, from 1.
    pub revision: u64,
    /// When it was applied.
    pub at: UnixMillis,
    /// By whom.
    pub by: String,
    /// Rules in it.
    pub rules: usize,
    /// Whether it is in force.
    pub in_force: bool,
}

/// One port of one `[[test]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestView {
    /// Source principal.
    pub from: String,
    /// Destination principal.
    pub to: String,
    /// Port.
    pub port: PortSpec,
    /// What the file expects.
    pub expect_allow: bool,
    /// What the policy does.
    pub allowed: bool,
}

/// Why a flow is allowed or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// Source.
    pub from: DeviceName,
    /// Destination.
    pub to: DeviceName,
    /// Port.
    pub port: PortSpec,
    /// Whether it is allowed now.
    pub allowed: bool,
    /// The rule that grants it.
    pub rule: Option<RuleId>,
    /// Until when, as leased now.
    pub until: Option<UnixMillis>,
    /// Every rule that names both devices and the port, with what it lacks now.
    pub candidates: Vec<RuleView>,
    /// What is missing, when it is denied: about the devices, then about the nearest rule.
    pub missing: Vec<String>,
}

/// One rule and what it lacks for a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// The rule.
    pub rule: RuleId,
    /// Line of the policy file.
    pub line: usize,
    /// Conditions that are not met now; empty for a rule that grants.
    pub missing: Vec<String>,
}

/// All that a device can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachView {
    /// From where.
    pub device: DeviceName,
    /// One entry for each device that can be reached, nearest first.
    pub reached: Vec<ReachedView>,
    /// Devices of the network that cannot be reached at all.
    pub unreached: usize,
}

/// A device that can be reached, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedView {
    /// Which.
    pub device: DeviceName,
    /// 1 for direct reach, one more for each device in between.
    pub hops: usize,
    /// The devices in between, in order.
    pub through: Vec<DeviceName>,
    /// What the last hop opens.
    pub ports: Vec<PortSpec>,
    /// Through which rules.
    pub rules: Vec<RuleId>,
}

/// A device's posture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureView {
    /// Which device.
    pub device: DeviceName,
    /// When its last report came.
    pub received: Option<UnixMillis>,
    /// The facts of it.
    pub facts: Vec<FactView>,
    /// Each check of the policy.
    pub checks: Vec<CheckOutcome>,
}

/// One reported fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactView {
    /// Which.
    pub id: String,
    /// The value.
    pub value: FactValue,
    /// Where the device read it.
    pub source: String,
    /// When it was observed, by the controller's clock.
    pub observed: UnixMillis,
}
