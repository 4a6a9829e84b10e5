//! One match over [`Output`], exhaustive, nothing ignored.

use gatereeve_controller_core::command::{CommandError, Reply};
use gatereeve_controller_core::output::{Output, SessionId};
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, warn};

use super::{Server, Ticket};
use crate::quic::SessionOutput;
use crate::state_dir::space;

impl Server {
    /// Takes every output of the controller and carries it out, in order.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.controller.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Append { ticket, records } => {
                let not_queued = self.journal.submit(ticket, records).err();
                // The controller hears of it as of any other result, not from within the drain.
                self.in_flight.push_back(Ticket {
                    number: ticket,
                    not_queued,
                });
            }
            Output::Tables(writes) => self.keeper.hard(writes),
            Output::Soft(writes) => self.keeper.soft(writes),
            Output::Checkpoint(checkpoint) => {
                if !self.keeper.checkpoint(checkpoint) {
                    warn!("a signed head is not kept; the next one covers it");
                }
            }
            Output::Send { session, message } => {
                self.send(session, SessionOutput::Message(message));
            }
            Output::Close { session, refusal } => {
                self.send(session, SessionOutput::Close(refusal));
                self.sessions.remove(&session);
            }
            Output::Reply { request, result } => {
                let result = result.map(|reply| self.with_shell_facts(reply));
                if let Some(waiting) = self.waiting.remove(&request) {
                    self.answer(waiting, result);
                }
            }
        }
    }

    fn send(&mut self, session: SessionId, output: SessionOutput) {
        let Some(outbound) = self.sessions.get(&session) else {
            return;
        };
        match outbound.try_send(output) {
            Ok(()) => {}
            // It does not read. Without its queue the session's task ends; when the device comes
            // back it is sent a whole map.
            Err(TrySendError::Full(_)) => {
                debug!(session = session.0, "session does not take its messages");
                self.sessions.remove(&session);
                self.lost.insert(session);
            }
            Err(TrySendError::Closed(_)) => {
                self.sessions.remove(&session);
                self.lost.insert(session);
            }
        }
    }

    fn answer(
        &self,
        waiting: tokio::sync::oneshot::Sender<Result<Reply, CommandError>>,
        result: Result<Reply, CommandError>,
    ) {
        // The caller may have gone away; what it asked for is done all the same.
        if waiting.send(result).is_err() {
            debug!("an admin request's caller has gone");
        }
    }

    /// Adds what only the shell knows to a status.
    fn with_shell_facts(&self, reply: Reply) -> Reply {
        let Reply::Status(mut status) = reply else {
            return reply;
        };
        let journal = self
            .journal_trouble
            .as_ref()
            .map(|why| format!("the last change was refused because the journal failed: {why}"));
        status.warnings.extend(journal);
        status.warnings.extend(self.keeper.warnings());
        match space::measure(&self.state_dir) {
            Ok(disk) => {
                status.warnings.extend(space::warning(disk));
                status.disk = Some(disk);
            }
            Err(error) => status
                .warnings
                .push(format!("cannot tell how much room the state has: {error}")),
        }
        status.warnings.extend(self.notes.iter().cloned());
        status
            .warnings
            .extend(self.confinement.missing.iter().cloned());
        status.sandbox = Some(self.confinement.to_string());
        Reply::Status(status)
    }
}
