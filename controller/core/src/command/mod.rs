//! Everything an administrator may ask, and every answer: the vocabulary of the admin socket.
//!
//! The command line sends a [`Request`] as JSON and prints the [`Reply`]; with `--json` it prints
//! the reply as it came.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId, RuleId, TagName, UserName};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

use crate::state::device::DeviceStatus;

/// A command, and how long its caller waits for the devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
    /// With a value, a change is answered only when every connected device concerned enforces it,
    /// or after this many milliseconds.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// What an administrator may ask. A `device` is a name or a device ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// What the controller is doing.
    Status,
    /// Make an invite.
    InviteCreate {
        /// Tags that its devices get.
        tags: Vec<TagName>,
        /// User whose devices they are.
        user: Option<UserName>,
        /// How many devices may use it; at least 1.
        uses: u32,
        /// Seconds until it expires.
        expires_secs: u64,
        /// Devices vanish when they have been gone for a while.
        ephemeral: bool,
        /// Devices wait for approval.
        approve: bool,
    },
    /// All invites that could still be used.
    InviteList,
    /// End an invite.
    InviteRevoke {
        /// Which.
        id: InviteId,
    },
    /// All devices.
    DeviceList,
    /// One device.
    DeviceShow {
        /// Which.
        device: String,
    },
    /// Let a pending device in.
    DeviceApprove {
        /// Which.
        device: String,
        /// A name in place of the one it asked for.
        name: Option<DeviceName>,
        /// Tags it gets.
        tags: Vec<TagName>,
        /// User whose device it is.
        user: Option<UserName>,
    },
    /// Give a device another name.
    DeviceRename {
        /// Which.
        device: String,
        /// The name.
        name: DeviceName,
    },
    /// Change a device's tags.
    DeviceTag {
        /// Which.
        device: String,
        /// Tags to add.
        add: Vec<TagName>,
        /// Tags to remove.
        remove: Vec<TagName>,
    },
    /// Cut a device off from all peers, or lift that.
    DeviceQuarantine {
        /// Which.
        device: String,
        /// Lift it.
        lift: bool,
        /// Why, for the audit log.
        reason: Option<String>,
    },
    /// End a device's key, for good.
    DeviceRevoke {
        /// Which.
        device: String,
        /// Why, for the audit log.
        reason: Option<String>,
    },
    /// Forget a device; a revoked key stays refused.
    DeviceDelete {
        /// Which.
        device: String,
    },
    /// Check a policy file and run its tests.
    PolicyCheck {
        /// The file.
        text: String,
    },
    /// What a policy would open and close.
    PolicyPlan {
        /// The file.
        text: String,
    },
    /// Put a policy in force.
    PolicyApply {
        /// The file.
        text: String,
        /// Refuse unless this revision is in force.
        if_generation: Option<u64>,
    },
    /// A policy's text.
    PolicyShow {
        /// Which revision; the one in force if absent.
        revision: Option<u64>,
    },
    /// All revisions.
    PolicyHistory,
    /// Put an earlier revision in force, as a new one.
    PolicyRollback {
        /// Which.
        revision: u64,
    },
    /// Run the `[[test]]`s of the policy in force.
    PolicyTest,
    /// Whether and why one device reaches another. Principals of the policy language are devices
    /// here: a name, a device ID or an overlay address.
    PolicyExplain {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// Protocol and port, such as `tcp:22`.
        port: PortSpec,
    },
    /// All that a device can reach, directly and through others.
    PolicyReach {
        /// From where.
        device: String,
    },
    /// A device's last report and its verdicts.
    PostureShow {
        /// Which.
        device: String,
    },
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct CommandError {
    /// What kind; decides the exit status.
    pub code: ErrorCode,
    /// What failed, why, and what to do next.
    pub message: String,
    /// Where in a policy file, if it is about one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<PolicyProblem>,
}

impl CommandError {
    /// An error without places in a file.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            problems: Vec::new(),
        }
    }
}

/// Kinds of error, and the exit status that each becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 1: it could not be done.
    Failed,
    /// 2: the request makes no sense.
    Usage,
    /// 3: policy or permission forbids it.
    Refused,
    /// 4: no such thing.
    NotFound,
    /// 5: something else is in the way, or has changed meanwhile.
    Conflict,
}

/// One problem in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes from the start of the file, and how many.
    pub span: (usize, usize),
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// A warning lets the file pass.
    pub is_warning: bool,
}

/// Answers, one for each kind of command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Command::Status`].
    Status(StatusReply),
    /// To [`Command::InviteCreate`].
    Invite {
        /// Its number.
        id: InviteId,
        /// The string to hand over. Shown once.
        invite: String,
        /// When it expires.
        expires: UnixMillis,
    },
    /// To [`Command::InviteList`].
    Invites {
        /// First to expire first.
        invites: Vec<InviteView>,
    },
    /// To [`Command::DeviceList`].
    Devices {
        /// By name.
        devices: Vec<DeviceView>,
    },
    /// To [`Command::DeviceShow`].
    Device(Box<DeviceView>),
    /// To every command that changed something.
    Committed(Committed),
    /// To [`Command::PolicyCheck`].
    PolicyChecked {
        /// Rules in the file.
        rules: usize,
        /// Tests in the file, all passed.
        tests: usize,
        /// What is worth a look.
        warnings: Vec<PolicyProblem>,
    },
    /// To [`Command::PolicyPlan`].
    Plan(PlanView),
    /// To [`Command::PolicyShow`].
    Policy {
        /// Revision; 0 before any policy was applied.
        revision: u64,
        /// The file as it was applied.
        text: String,
    },
    /// To [`Command::PolicyHistory`].
    History {
        /// Newest first.
        revisions: Vec<RevisionView>,
    },
    /// To [`Command::PolicyTest`].
    Tests {
        /// One line for each port of each test.
        results: Vec<TestView>,
    },
    /// To [`Command::PolicyExplain`].
    Explained(ExplainView),
    /// To [`Command::PolicyReach`].
    Reach(ReachView),
    /// To [`Command::PostureShow`].
    Posture(PostureView),
}

/// A committed change and who enforces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The state that the change made.
    pub generation: Generation,
    /// When it was committed, by the controller's clock.
    pub at: UnixMillis,
    /// What was done, in words.
    pub summary: String,
    /// The policy revision that the change made, if it was one.
    pub revision: Option<u64>,
    /// Device pairs that gained something, and that lost something.
    pub gained_pairs: usize,
    /// See `gained_pairs`.
    pub lost_pairs: usize,
    /// Connected devices concerned that had confirmed when the answer was sent.
    pub confirmed: Vec<DeviceName>,
    /// Devices concerned that had not.
    pub unconfirmed: Vec<Unconfirmed>,
    /// Whether the caller asked to wait.
    pub waited: bool,
}

/// A device that may still act on what was in force before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Which.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Whether it is connected now.
    pub connected: bool,
    /// When its leases end at the latest.
    pub leases_end: Option<UnixMillis>,
}

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
    /// Devices by status.
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
