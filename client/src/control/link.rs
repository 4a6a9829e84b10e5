//! One link: a task that owns the connection, and the handle to it.

use gatereeve_runtime::framed::{Reader, Writer};
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::ControllerMessage;
use quinn::Connection;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{LinkError, words};
use super::greet::{Session, establish};
use super::{ControlEvent, Target, Timing};

/// Messages that wait for the controller to read. The engine sends few; more than this do not
/// wait for a slow controller but for a dead one.
const OUTBOUND: usize = 256;

/// Why a message was not taken; `Disconnected` has come or comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The controller does not read. The link is given up.
    #[error("the controller does not take messages")]
    Full,
    /// The link has ended.
    #[error("the connection to the controller has ended")]
    Closed,
}

/// A connection to a controller, or the attempt at one. Dropping it closes it, after what was sent.
#[derive(Debug)]
pub struct ControlLink {
    outbound: mpsc::Sender<ClientMessage>,
    closing: CancellationToken,
}

impl ControlLink {
    /// Begins to connect, and returns at once: what comes of it arrives at `events`. Give each link
    /// a channel of its own, so that the end of one is not taken for the end of its successor.
    /// Must be called in a tokio runtime.
    #[must_use]
    pub fn connect(target: Target, events: mpsc::Sender<ControlEvent>) -> Self {
        Self::connect_with(target, events, Timing::default())
    }

    /// A link that leads nowhere, and what was said over it.
    #[cfg(test)]
    pub(crate) fn detached() -> (Self, mpsc::Receiver<ClientMessage>) {
        let (outbound, queue) = mpsc::channel(OUTBOUND);
        let closing = CancellationToken::new();
        (Self { outbound, closing }, queue)
    }

    /// [`Self::connect`] with other deadlines.
    #[must_use]
    pub fn connect_with(
        target: Target,
        events: mpsc::Sender<ControlEvent>,
        timing: Timing,
    ) -> Self {
        let (outbound, queue) = mpsc::channel(OUTBOUND);
        let closing = CancellationToken::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the link, and says so at `events`"
        )]
        tokio::spawn(run(target, events, queue, closing.clone(), timing));
        Self { outbound, closing }
    }

    /// Queues a message; sent in order, once connected. Never waits.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, message: ClientMessage) -> Result<(), SendError> {
        self.outbound
            .try_send(message)
            .map_err(|error| match error {
                TrySendError::Full(_) => {
                    self.closing.cancel();
                    SendError::Full
                }
                TrySendError::Closed(_) => SendError::Closed,
            })
    }

    /// Closes it, after what was sent. `Disconnected` still comes, once the controller has taken
    /// what was sent or [`Timing::grace`] is over: a process that ends waits for it.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for ControlLink {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A link's life. Its last event is `Disconnected`, whatever happens.
async fn run(
    target: Target,
    events: mpsc::Sender<ControlEvent>,
    queue: mpsc::Receiver<ClientMessage>,
    closing: CancellationToken,
    timing: Timing,
) {
    let connecting = Box::pin(establish(&target, &timing));
    let established = tokio::select! {
        established = connecting => established,
        () = closing.cancelled() => Err(LinkError::Closed),
    };
    let (error, endpoint) = match established {
        Ok(session) => {
            let endpoint = session.endpoint.clone();
            let talk = Box::pin(talk(session, &events, queue, &closing, &timing));
            (talk.await, Some(endpoint))
        }
        Err(error) => (error, None),
    };
    let disconnected = ControlEvent::Disconnected {
        error: error.to_string(),
        mismatch: error.is_mismatch(),
    };
    // Nobody listens any more where the daemon stops.
    drop(events.send(disconnected).await);
    // The close has to leave the socket, which goes with the endpoint. Nobody waits for that.
    if let Some(endpoint) = endpoint
        && timeout(timing.grace, endpoint.wait_idle()).await.is_err()
    {
        tracing::debug!("the connection did not end in time");
    }
}

/// A session's life, and why it ended.
async fn talk(
    session: Session,
    events: &mpsc::Sender<ControlEvent>,
    mut queue: mpsc::Receiver<ClientMessage>,
    closing: &CancellationToken,
    timing: &Timing,
) -> LinkError {
    let Session {
        connection,
        mut reader,
        mut writer,
        hello,
        local,
        endpoint: _,
    } = session;
    let connected = ControlEvent::Connected { hello, local };
    if events.send(connected).await.is_err() {
        quic::close(&connection, CloseCode::Done);
        return LinkError::Closed;
    }
    let error = tokio::select! {
        error = listen(&mut reader, &connection, events) => error,
        error = speak(&mut writer, &connection, &mut queue) => error,
        () = quic::silence(&connection, timing.silence) => LinkError::Slow {
            what: "send or acknowledge anything",
            limit: timing.silence,
        },
        () = closing.cancelled() => LinkError::Closed,
    };
    if matches!(error, LinkError::Closed) {
        let last_words = async {
            while let Ok(message) = queue.try_recv() {
                writer.send(&message).await.ok()?;
            }
            writer.finish(timing.grace).await.then_some(())
        };
        if timeout(timing.grace, last_words).await.is_err() {
            tracing::debug!("the controller did not hear our last words");
        }
    }
    quic::close(&connection, CloseCode::Done);
    error
}

async fn listen(
    reader: &mut Reader<ControllerMessage>,
    connection: &Connection,
    events: &mpsc::Sender<ControlEvent>,
) -> LinkError {
    loop {
        let message = match reader.next().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let reason = connection.close_reason();
                return LinkError::Lost(
                    reason
                        .as_ref()
                        .map_or_else(|| "the controller has ended the session".to_owned(), words),
                );
            }
            Err(error) => return LinkError::stream(error, connection),
        };
        // Waits for the daemon; meanwhile the controller's window fills, and it waits too.
        if events.send(ControlEvent::Message(message)).await.is_err() {
            return LinkError::Closed;
        }
    }
}

async fn speak(
    writer: &mut Writer<ClientMessage>,
    connection: &Connection,
    queue: &mut mpsc::Receiver<ClientMessage>,
) -> LinkError {
    while let Some(message) = queue.recv().await {
        if let Err(error) = writer.send(&message).await {
            return LinkError::stream(error, connection);
        }
    }
    LinkError::Closed
}
