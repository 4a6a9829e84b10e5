//! The engine, and what it is told: all that never waits, whatever else the daemon is in the middle of.

use gatereeve_runtime::alarm::Alarm;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::notify::Heart;
use gatereeve_shared::time::Mono;

use super::LONGEST_SLEEP;
use super::collector::Collected;
use super::joined::Joined;
use super::state_dir::StateDir;
use crate::control::ControlEvent;

/// What the daemon goes on with while it changes the host.
#[derive(Debug)]
pub(super) struct EngineLoop {
    /// The network that the device is in, with its engine.
    pub(super) joined: Option<Joined>,
    pub(super) state: StateDir,
    pub(super) alarm: Alarm,
    /// Asked whether this task lives.
    pub(super) heart: Heart,
}

/// One thing that the engine is told, or that nobody else needs for an answer.
#[derive(Debug)]
pub(super) enum EngineInput {
    Timeout,
    /// The service manager's watchdog asks.
    Asked,
    Enforced(u64),
    Control(Box<ControlEvent>),
    Collected(Collected),
}

impl EngineLoop {
    /// Waits for the next thing, at the latest until `latest`.
    pub(super) async fn next(&mut self, latest: Mono) -> EngineInput {
        let due = self
            .joined
            .as_ref()
            .and_then(|joined| joined.engine.poll_timeout())
            .map_or(latest, |due| due.min(latest));
        let joined = async {
            match &mut self.joined {
                Some(joined) => joined.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Before what others may keep full: timers keep the data path open, and an engine whose timers wait is
            // no living one, whatever the watchdog is told.
            () = self.alarm.wait(due) => EngineInput::Timeout,
            () = self.heart.asked() => EngineInput::Asked,
            input = joined => input,
        }
    }

    /// Tells the engine.
    pub(super) fn take(&mut self, input: EngineInput) {
        let now = Clock::now();
        match (input, self.joined.as_mut()) {
            (EngineInput::Asked, _) => self.heart.answer(self.status_line()),
            (EngineInput::Timeout, Some(joined)) => joined.engine.handle_timeout(now),
            (EngineInput::Enforced(serial), Some(joined)) => {
                joined.engine.handle_enforced(serial, now);
            }
            (EngineInput::Control(event), Some(joined)) => joined.take_control(*event, now),
            (EngineInput::Collected(collected), Some(joined)) => {
                joined.take_collected(collected, now);
            }
            // About a network that was left meanwhile.
            (
                EngineInput::Timeout
                | EngineInput::Enforced(_)
                | EngineInput::Control(_)
                | EngineInput::Collected(_),
                None,
            ) => {}
        }
    }

    /// Carries out everything that the engine wants, in order, until it wants nothing more.
    pub(super) async fn drain(&mut self) {
        if let Some(joined) = &mut self.joined {
            joined.drain().await;
        }
    }

    /// Waits for `work`, which takes as long as the kernel takes. What the engine is told meanwhile it is told at once,
    /// and what it wants is carried out, so that a revocation waits for nothing of it.
    pub(super) fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        // Boxed, as both are large and this is part of much that is waited for.
        let mut work = Box::pin(work);
        async move {
            loop {
                let latest = Clock::mono().saturating_add(LONGEST_SLEEP);
                let input = tokio::select! {
                    done = &mut work => return done,
                    input = self.next(latest) => input,
                };
                self.take(input);
                Box::pin(self.drain()).await;
            }
        }
    }

    /// How it goes, for the service manager: no names and no addresses.
    fn status_line(&self) -> String {
        match &self.joined {
            None => "not joined".to_owned(),
            Some(joined) if !joined.network.up => "down, as told".to_owned(),
            Some(joined) => {
                let status = joined.engine.status(Clock::now());
                format!("{:?}, {} peers", status.connection, status.peers)
            }
        }
    }
}
