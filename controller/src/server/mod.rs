//! The actor: one task owns the [`Controller`] and carries out what it asks.
//!
//! One mutation, then drain: every input (an admin's request, an event of a control session, the
//! result of an append, the timer) is one `handle_*` call, after which all outputs are taken and
//! carried out in their order. Nothing here waits for a disk or a peer: appends go to the journal's
//! thread and come back as inputs, tables to the keeper's, messages to bounded queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_controller_core::command::{CommandError, Reply, Request};
use gatereeve_controller_core::controller::Controller;
use gatereeve_controller_core::output::{RequestId, SessionId};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::notify::Heart;
use gatereeve_runtime::sandbox::Confinement;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::journal::writer::{Appended, JournalWriter};
use crate::quic::{SessionEvent, SessionOutput};
use crate::state_dir::StateDir;
use crate::store::keeper::Keeper;

mod outputs;
pub mod recover;
pub mod serve;
mod stop;

#[cfg(test)]
mod tests;

/// The longest sleep: the timer is looked at again after that, whatever the clocks did.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// A command from the admin socket.
#[derive(Debug)]
pub struct AdminRequest {
    /// Who asks, by the socket's peer credentials.
    pub actor: Actor,
    /// Whether they may; if not, the audit log says that they tried.
    pub permitted: bool,
    /// What.
    pub request: Request,
    /// Where the answer goes. Dropped when the controller stops first.
    pub reply: oneshot::Sender<Result<Reply, CommandError>>,
}

/// What the actor listens to.
#[derive(Debug)]
pub struct Inputs {
    /// Commands.
    pub admin: mpsc::Receiver<AdminRequest>,
    /// What happens at the control sessions.
    pub events: mpsc::Receiver<SessionEvent>,
    /// Results of appends.
    pub appended: mpsc::Receiver<Appended>,
    /// Cancelled when the controller is to stop.
    pub stop: CancellationToken,
    /// Asked whether the actor lives.
    pub heart: Heart,
}

/// The actor.
#[derive(Debug)]
pub struct Server {
    controller: Controller,
    journal: JournalWriter,
    keeper: Keeper,
    sessions: BTreeMap<SessionId, mpsc::Sender<SessionOutput>>,
    /// Sessions that did not take what was sent, to be reported as closed.
    lost: BTreeSet<SessionId>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Reply, CommandError>>>,
    next_request: u64,
    /// Appends whose result the controller has not heard, oldest first.
    in_flight: VecDeque<Ticket>,
    /// Why the last append failed, if it did.
    journal_trouble: Option<String>,
    state_dir: StateDir,
    /// What the start found.
    notes: Vec<String>,
    confinement: Confinement,
}

impl Server {
    /// An actor over `controller`, which holds the state at the journal's head.
    #[must_use]
    pub fn new(
        controller: Controller,
        journal: JournalWriter,
        keeper: Keeper,
        state_dir: StateDir,
        notes: Vec<String>,
        confinement: Confinement,
    ) -> Self {
        Self {
            controller,
            journal,
            keeper,
            sessions: BTreeMap::new(),
            lost: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            in_flight: VecDeque::new(),
            journal_trouble: None,
            state_dir,
            notes,
            confinement,
        }
    }

    /// Runs until `inputs.stop` is cancelled; then tells the sessions, waits for the appends under way,
    /// signs the head and closes the files.
    pub async fn run(mut self, mut inputs: Inputs) {
        self.drain();
        while self.turn(&mut inputs).await {}
        self.stop(&mut inputs.appended).await;
    }

    /// One input and all that follows from it; false when it is time to stop.
    async fn turn(&mut self, inputs: &mut Inputs) -> bool {
        let goes_on = self.step(inputs).await;
        if goes_on {
            self.settle();
        }
        goes_on
    }

    /// Waits for one input and hands it on; false when it is time to stop.
    async fn step(&mut self, inputs: &mut Inputs) -> bool {
        let sleep = self.sleep_for();
        tokio::select! {
            // Results first: they release what others wait for. Commands before sessions: a
            // revocation must not queue behind a flood of reports.
            biased;
            Some(appended) = inputs.appended.recv() => self.appended(appended),
            () = inputs.stop.cancelled() => return false,
            // Before what may be a flood: a busy actor is no dead one.
            () = inputs.heart.asked() => inputs.heart.answer(self.status_line()),
            Some(request) = inputs.admin.recv() => self.command(request),
            Some(event) = inputs.events.recv() => self.event(event),
            // Last, and yet never behind a flood: after each input, what is due is done ([`Self::settle`]).
            () = tokio::time::sleep(sleep) => {}
        }
        true
    }

    /// How it goes, for the service manager: numbers alone.
    fn status_line(&self) -> String {
        let state = self.controller.state();
        let trouble = if self.journal_trouble.is_some() {
            "; the last change was refused, see the status"
        } else {
            ""
        };
        format!(
            "serving {} devices, {} sessions, generation {}{trouble}",
            state.devices().len(),
            self.sessions.len(),
            state.generation()
        )
    }

    fn sleep_for(&self) -> Duration {
        if self.next_was_not_queued() || !self.lost.is_empty() {
            return Duration::ZERO;
        }
        self.controller
            .poll_timeout()
            .map_or(LONGEST_SLEEP, |due| Clock::until(due).min(LONGEST_SLEEP))
    }

    /// Drains, and does what is due besides the input.
    fn settle(&mut self) {
        self.drain();
        for session in std::mem::take(&mut self.lost) {
            self.controller.handle_closed(session, Clock::now());
            self.drain();
        }
        if self.refuse_not_queued() {
            self.drain();
        }
        let now = Clock::now();
        if self
            .controller
            .poll_timeout()
            .is_some_and(|due| due <= now.mono)
        {
            self.controller.handle_timeout(now);
            self.drain();
        }
    }

    fn command(&mut self, request: AdminRequest) {
        self.next_request = self.next_request.saturating_add(1);
        let id = RequestId(self.next_request);
        self.waiting.insert(id, request.reply);
        let now = Clock::now();
        if request.permitted {
            self.controller
                .handle_command(id, &request.actor, request.request, now);
        } else {
            self.controller
                .handle_forbidden(id, &request.actor, &request.request, now);
        }
    }

    fn event(&mut self, event: SessionEvent) {
        let now = Clock::now();
        match event {
            SessionEvent::Opened {
                session,
                key,
                from,
                outbound,
            } => {
                self.sessions.insert(session, outbound);
                self.controller.handle_opened(session, key, from, now);
            }
            SessionEvent::Message { session, message } => {
                // A session that is closed on our side may still have had messages under way.
                if self.sessions.contains_key(&session) {
                    self.controller.handle_message(session, message, now);
                }
            }
            SessionEvent::Closed { session } => {
                self.sessions.remove(&session);
                // Also where we closed it: the controller forgets what it still knows of it.
                self.controller.handle_closed(session, now);
            }
        }
    }

    /// Results come in the order of submission, so this is the oldest one's.
    fn appended(&mut self, appended: Appended) {
        self.in_flight.pop_front();
        self.hand_over(appended.ticket, appended.result);
    }

    fn next_was_not_queued(&self) -> bool {
        self.in_flight
            .front()
            .is_some_and(|ticket| ticket.not_queued.is_some())
    }

    /// Reports the oldest append, if it was not queued. In its turn: what was submitted before it may
    /// yet be committed, and the controller drops whatever it has staged when it hears of a failure.
    fn refuse_not_queued(&mut self) -> bool {
        if !self.next_was_not_queued() {
            return false;
        }
        let Some(Ticket {
            number,
            not_queued: Some(why),
        }) = self.in_flight.pop_front()
        else {
            return false;
        };
        self.hand_over(number, Err(why));
        true
    }

    fn hand_over(&mut self, ticket: u64, result: Result<(), String>) {
        self.journal_trouble = result.as_ref().err().cloned();
        self.controller
            .handle_appended(ticket, result, Clock::now());
    }
}

/// An append that the controller waits for.
#[derive(Debug)]
struct Ticket {
    number: u64,
    /// Why the journal has not even seen it.
    not_queued: Option<String>,
}
