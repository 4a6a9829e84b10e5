//! One connection's life: handshake, stream, messages both ways, last words.

use gatereeve_controller_core::output::SessionId;
use gatereeve_runtime::framed::{FrameError, Reader, Writer};
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Refusal, RefusalCode};
use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::Place;
use super::{Limits, SessionEvent, SessionOutput};

/// Messages that wait for a peer: the parts of the largest map and what else may come meanwhile.
const OUTBOUND: usize = 512;

/// A session to be.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) events: mpsc::Sender<SessionEvent>,
    pub(super) stopping: CancellationToken,
    pub(super) limits: Limits,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The peer is done or gone.
    Gone,
    /// The actor says so.
    Closed(Option<Refusal>),
    /// The peer does not keep to the protocol.
    Protocol(FrameError),
    /// The peer is too slow to say or to hear something.
    TooSlow,
    /// The process stops.
    Stopping,
}

impl Session {
    /// Runs the session to its end.
    pub(super) async fn run(self, incoming: Incoming, mut place: Place) {
        let from = quic::canonical(incoming.remote_address());
        let opening = async {
            let connection = match incoming.accept() {
                Ok(connecting) => connecting.await,
                Err(error) => Err(error),
            };
            connection.inspect_err(|error| tracing::debug!(%from, %error, "handshake"))
        };
        let Ok(Ok(connection)) = timeout(self.limits.handshake, opening).await else {
            return;
        };
        place.validated();
        let Some(key) = quic::peer_key(&connection) else {
            return quic::close(&connection, CloseCode::Protocol);
        };
        // The client speaks first, so the stream comes with its first bytes.
        let Ok(streams) = timeout(self.limits.handshake, connection.accept_bi()).await else {
            return quic::close(&connection, CloseCode::TooSlow);
        };
        let Ok((send, recv)) = streams else { return };
        let (outbound, queue) = mpsc::channel(OUTBOUND);
        let opened = SessionEvent::Opened {
            session: self.id,
            key,
            from: quic::remote(&connection),
            outbound,
        };
        if self.events.send(opened).await.is_err() {
            return quic::close(&connection, CloseCode::ShuttingDown);
        }
        let mut writer = Writer::new(send, self.limits.write);
        let end = self
            .talk(&connection, recv, &mut writer, queue, &mut place)
            .await;
        tracing::debug!(session = self.id.0, %from, ?end, "session ends");
        let closed = self.events.send(SessionEvent::Closed { session: self.id });
        let (told, ()) = tokio::join!(closed, self.last_words(&connection, writer, end));
        drop(told);
    }

    async fn talk(
        &self,
        connection: &Connection,
        recv: RecvStream,
        writer: &mut Writer<ControllerMessage, SendStream>,
        queue: mpsc::Receiver<SessionOutput>,
        place: &mut Place,
    ) -> End {
        tokio::select! {
            end = self.listen(recv) => end,
            end = speak(writer, queue, place) => end,
            _ = connection.closed() => End::Gone,
            () = self.stopping.cancelled() => End::Stopping,
        }
    }

    async fn listen(&self, recv: RecvStream) -> End {
        let mut reader = Reader::<ClientMessage>::new(recv, self.limits.frame);
        let first = timeout(self.limits.handshake, reader.next()).await;
        let Ok(mut read) = first else {
            return End::TooSlow;
        };
        loop {
            let message = match read {
                Ok(Some(message)) => message,
                Ok(None) | Err(FrameError::Io(_) | FrameError::Truncated) => return End::Gone,
                Err(FrameError::Deadline(_)) => return End::TooSlow,
                Err(error @ (FrameError::Wire(_) | FrameError::Codec(_))) => {
                    return End::Protocol(error);
                }
            };
            // Waits for the actor; meanwhile the peer's window fills, and the peer waits too.
            let event = SessionEvent::Message {
                session: self.id,
                message,
            };
            if self.events.send(event).await.is_err() {
                return End::Stopping;
            }
            read = reader.next().await;
        }
    }

    async fn last_words(
        &self,
        connection: &Connection,
        mut writer: Writer<ControllerMessage, SendStream>,
        end: End,
    ) {
        let (refusal, code) = match end {
            End::Gone | End::Closed(None) => (None, CloseCode::Done),
            End::Closed(Some(refusal)) => (Some(refusal), CloseCode::Refused),
            End::Protocol(error) => {
                // The error speaks of the peer's own bytes only.
                let message = format!("the message is refused: {error}; is the client up to date?");
                (refuse(RefusalCode::Protocol, message), CloseCode::Protocol)
            }
            End::TooSlow => (None, CloseCode::TooSlow),
            End::Stopping => {
                let message = "the controller is shutting down; connect again".to_owned();
                (
                    refuse(RefusalCode::ShuttingDown, message),
                    CloseCode::ShuttingDown,
                )
            }
        };
        if code != CloseCode::TooSlow {
            let speaking = async {
                match refusal {
                    Some(refusal) => {
                        let said = writer.send(&ControllerMessage::Refused(refusal)).await;
                        said.is_ok() && writer.finish(self.limits.grace).await
                    }
                    None => writer.finish(self.limits.grace).await,
                }
            };
            let heard = timeout(self.limits.grace, speaking).await.unwrap_or(false);
            tracing::trace!(session = self.id.0, heard, "last words");
        }
        quic::close(connection, code);
    }
}

/// Sends what the actor says.
async fn speak(
    writer: &mut Writer<ControllerMessage, SendStream>,
    mut queue: mpsc::Receiver<SessionOutput>,
    place: &mut Place,
) -> End {
    while let Some(output) = queue.recv().await {
        let message = match output {
            SessionOutput::Message(message) => message,
            SessionOutput::Close(refusal) => return End::Closed(refusal),
        };
        // Only devices of the network are sent maps.
        if matches!(message, ControllerMessage::Map(_)) {
            place.known();
        }
        match writer.send(&message).await {
            Ok(()) => {}
            Err(FrameError::Deadline(_)) => return End::TooSlow,
            Err(FrameError::Codec(error)) => {
                // Sending anything after a message that is missing would mislead the device.
                tracing::error!(%error, kind = message.kind(), "a message cannot be encoded");
                return End::Closed(refuse(
                    RefusalCode::Unavailable,
                    "the controller cannot send this device its map; see its log".to_owned(),
                ));
            }
            Err(FrameError::Wire(_) | FrameError::Truncated | FrameError::Io(_)) => {
                return End::Gone;
            }
        }
    }
    End::Closed(None)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what it makes is one of several optional refusals"
)]
fn refuse(code: RefusalCode, message: String) -> Option<Refusal> {
    Some(Refusal { code, message })
}
