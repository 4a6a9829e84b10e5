//! One way to stop everything, and to know that it has stopped.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The process's request to stop, and the tasks that have to finish first. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled when the process is to stop.
    pub token: CancellationToken,
    /// The tasks to wait for.
    pub tracker: TaskTracker,
}

impl Shutdown {
    /// Nothing to stop yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop on SIGTERM and SIGINT. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = self.token.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "this is what cancels the token; it ends with it"
        )]
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = token.cancelled() => return,
            };
            tracing::info!(signal = name, "stopping");
            token.cancel();
        });
        Ok(())
    }

    /// Starts a task that [`Self::finish`] waits for. It watches [`Self::token`] itself.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Asks to stop.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Asks to stop and waits for the tasks, `grace` at most. Whether all of them have ended.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_the_tasks_and_no_longer_than_allowed() {
        let shutdown = Shutdown::new();
        let token = shutdown.token.clone();
        shutdown.spawn(async move { token.cancelled().await });
        assert!(shutdown.finish(Duration::from_secs(5)).await);

        let stuck = Shutdown::new();
        stuck.spawn(std::future::pending::<()>());
        assert!(!stuck.finish(Duration::from_secs(5)).await);
    }
}
