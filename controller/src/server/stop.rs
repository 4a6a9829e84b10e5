//! Stopping in order: sessions are told, appends under way are finished, the head is signed.

use std::time::Duration;

use gatereeve_controller_core::command::{CommandError, ErrorCode};
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::wire::controller::{Refusal, RefusalCode};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::Server;
use crate::journal::writer::Appended;
use crate::quic::SessionOutput;

/// How long the disk may take for the appends under way.
const GRACE: Duration = Duration::from_secs(10);

impl Server {
    pub(super) async fn stop(mut self, appended: &mut mpsc::Receiver<Appended>) {
        while !self.in_flight.is_empty() {
            if !self.refuse_not_queued() {
                match tokio::time::timeout(GRACE, appended.recv()).await {
                    Ok(Some(appended)) => self.appended(appended),
                    Ok(None) => break,
                    Err(_) => {
                        warn!(appends = self.in_flight.len(), "the disk does not answer");
                        break;
                    }
                }
            }
            self.drain();
        }
        for outbound in std::mem::take(&mut self.sessions).into_values() {
            drop(outbound.try_send(SessionOutput::Close(Some(Refusal {
                code: RefusalCode::ShuttingDown,
                message: "the controller shuts down; connect again later".to_owned(),
            }))));
        }
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            drop(waiting.send(Err(CommandError::new(
                ErrorCode::Failed,
                "the controller shuts down. What was asked may be committed already; \
                 `audit tail` shows it",
            ))));
        }
        self.controller.handle_stopping(Clock::now());
        self.drain();
        let (journal, keeper) = (self.journal, self.keeper);
        let closed = tokio::task::spawn_blocking(move || {
            journal.stop();
            keeper.stop();
        });
        if closed.await.is_err() {
            error!("the files could not be closed in order");
        }
    }
}
