//! The controller: one state machine that takes commands, messages and time, and says what to do.

use std::collections::VecDeque;
use std::net::SocketAddr;

use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::map::OverlayPrefixes;

use crate::audit::entry::Actor;
use crate::command::Request;
use crate::output::{Output, RequestId, SessionId};
use crate::state::State;
use crate::state::soft::SoftState;

/// What is set when the network is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// The network's name.
    pub network_name: String,
    /// Its addresses.
    pub prefixes: OverlayPrefixes,
    /// `host:port` of this controller, as invites carry it.
    pub advertised: Vec<String>,
    /// Software version.
    pub version: String,
}

/// The policy decision point. Drain [`Self::poll_output`] after every `handle_*`.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    network_key: IdentityKey,
    tls_key: IdentityPublicKey,
    state: State,
    soft: SoftState,
    outputs: VecDeque<Output>,
}

impl Controller {
    /// A controller over the state that the journal gives. `seed` is 32 bytes of the operating
    /// system's randomness; all of the controller's comes from it.
    #[must_use]
    pub fn new(
        config: ControllerConfig,
        network_key: IdentityKey,
        tls_key: IdentityPublicKey,
        state: State,
        soft: SoftState,
        _seed: [u8; 32],
        _now: Now,
    ) -> Self {
        Self {
            config,
            network_key,
            tls_key,
            state,
            soft,
            outputs: VecDeque::new(),
        }
    }

    /// An administrator asks; answered by [`Output::Reply`].
    pub fn handle_command(&mut self, _request: RequestId, _actor: &Actor, _r: Request, _now: Now) {}

    /// A connection has proven possession of `key`.
    pub fn handle_opened(
        &mut self,
        _session: SessionId,
        _key: IdentityPublicKey,
        _from: SocketAddr,
        _now: Now,
    ) {
    }

    /// A message came.
    pub fn handle_message(&mut self, _session: SessionId, _message: ClientMessage, _now: Now) {}

    /// A connection is gone.
    pub fn handle_closed(&mut self, _session: SessionId, _now: Now) {}

    /// The answer to [`Output::Append`]: durable, or why not.
    pub fn handle_appended(&mut self, _ticket: u64, _result: Result<(), String>, _now: Now) {}

    /// The instant of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// When [`Self::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// The next effect, or `None` when all are taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is in force: never ahead of the journal.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}
