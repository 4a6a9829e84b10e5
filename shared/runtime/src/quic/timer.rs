//! quinn's timers for a client: one wake-up when something is due, none before.
//!
//! Tokio's own timers wake their thread several times on the way to a time that is seconds away. A server
//! has many connections and hardly sleeps; a client has one, and sleeps nearly always.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use gatereeve_shared::time::Mono;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use crate::alarm::Alarm;
use crate::clock::Clock;

/// Tokio, with [`Alarm`]s for timers.
#[derive(Debug)]
pub(super) struct ClientRuntime;

impl Runtime for ClientRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        match Alarm::new() {
            Ok(alarm) => Box::pin(Timer {
                alarm,
                at,
                due: boot_time(at),
                instead: None,
            }),
            // Out of descriptors: the connection goes on with what there is.
            Err(error) => {
                tracing::debug!(%error, "no timer of its own for a connection");
                TokioRuntime.new_timer(at)
            }
        }
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// One timer. quinn's times do not count a suspend and the alarm's do, so that it may go off early: quinn looks
/// at its own clock then, and sets it again.
#[derive(Debug)]
struct Timer {
    alarm: Alarm,
    at: Instant,
    due: Mono,
    /// Tokio's, once the alarm has failed.
    instead: Option<Pin<Box<dyn AsyncTimer>>>,
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.at = at;
        self.due = boot_time(at);
        if let Some(instead) = &mut self.instead {
            instead.as_mut().reset(at);
        }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.get_mut();
        if timer.instead.is_none() {
            let Err(error) = ready!(timer.alarm.poll(timer.due, cx)) else {
                return Poll::Ready(());
            };
            tracing::warn!(%error, "a connection's timer has failed, and is replaced");
        }
        let at = timer.at;
        let instead = timer
            .instead
            .get_or_insert_with(|| TokioRuntime.new_timer(at));
        instead.as_mut().poll(cx)
    }
}

/// `at`, on the clock of the alarms.
fn boot_time(at: Instant) -> Mono {
    let left = at.saturating_duration_since(TokioRuntime.now());
    Clock::mono().saturating_add(left)
}
