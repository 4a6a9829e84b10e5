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
                due: boot_time(at),
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
    due: Mono,
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.due = boot_time(at);
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.get_mut();
        if let Err(error) = ready!(timer.alarm.poll(timer.due, cx)) {
            // Due now: quinn sees what really is, and asks again.
            tracing::warn!(%error, "a connection's timer has failed");
        }
        Poll::Ready(())
    }
}

/// `at`, on the clock of the alarms.
fn boot_time(at: Instant) -> Mono {
    let left = at.saturating_duration_since(TokioRuntime.now());
    Clock::mono().saturating_add(left)
}
