//! Everything an administrator may ask, and every answer: the vocabulary of the admin socket.
//!
//! The command line sends a [`Request`] as JSON and prints the [`Reply`]; with `--json` it prints
//! the reply as it came.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId, TagName, UserName};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::UnixMillis;

mod views;

pub use views::*;

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
