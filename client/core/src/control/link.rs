//! The states of the control session.

use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::controller::Standing;

/// How the device is connected to a controller.
#[derive(Debug)]
pub(crate) enum Link {
    /// Not wanted.
    Off,
    /// Waiting to try again.
    Idle,
    /// The shell is connecting.
    Connecting,
    /// Authenticated.
    Up(Box<Session>),
}

/// One control session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Since when.
    pub(crate) since: Mono,
    /// The network's key, as the controller has shown it and the fingerprint has confirmed it.
    pub(crate) network_key: IdentityPublicKey,
    /// How the device stands, as last said.
    pub(crate) standing: Standing,
    /// How far it got.
    pub(crate) phase: Phase,
    /// Counter of the last posture report.
    pub(crate) reports: u64,
    /// Whether the whole map was asked for and has not come.
    pub(crate) resync: Resync,
    /// Whether both ends agree on what is held: steps from it make sense.
    pub(crate) has_base: bool,
    /// Number of the ping that is out, and when it was sent.
    pub(crate) ping: Option<(u64, Now)>,
    /// The last generation acknowledged.
    pub(crate) acked: Option<gatereeve_shared::generation::Generation>,
}

/// How far a session got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for a standing that allows to attach.
    Waiting,
    /// Waiting for the first facts, to attach with them.
    Collecting,
    /// Attached, waiting for the map.
    Attached,
    /// The newest map is held.
    Synced,
}

/// Whether the whole map was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resync {
    /// No need.
    Settled,
    /// It was asked for; deltas until it comes are of no use.
    Asked,
    /// What came in answer was refused too; asking again would only repeat it.
    GivenUp,
}

impl Link {
    /// The session, where there is one.
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::Up(session) => Some(session),
            Self::Off | Self::Idle | Self::Connecting => None,
        }
    }

    /// The session, where there is one.
    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::Up(session) => Some(session),
            Self::Off | Self::Idle | Self::Connecting => None,
        }
    }

    /// The session, where it is attached.
    pub(crate) fn attached(&self) -> Option<&Session> {
        self.session()
            .filter(|session| matches!(session.phase, Phase::Attached | Phase::Synced))
    }
}
