//! Messages over a stream: a header checked before its body is waited for, a body that grows with
//! what really comes, and a deadline on every frame.
//!
//! Reader and writer may be dropped out of a `select!` at any await and go on where they were.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::codec::CodecError;
use gatereeve_shared::wire::controller::ControllerMessage;
use gatereeve_shared::wire::frame::{FrameHeader, HEADER_LEN, WireError};
use quinn::{RecvStream, SendStream};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a frame may take from its first byte to its last, either way.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// How long a frame from a controller may take: up to a mebibyte, over any line.
pub const CONTROLLER_FRAME_DEADLINE: Duration = Duration::from_secs(30);
/// Room made for a body at a time, whatever length it claims.
const STEP: usize = 16 * 1024;

/// A direction of the control protocol.
pub trait Message: Sized {
    /// Largest body in bytes.
    const LIMIT: usize;

    /// The whole frame.
    ///
    /// # Errors
    /// Where the body is over the limit.
    fn to_frame(&self) -> Result<Vec<u8>, CodecError>;

    /// The message of this kind in `body`.
    ///
    /// # Errors
    /// Where the kind is unknown or the body is not what it should be.
    fn from_body(kind: u16, body: &[u8]) -> Result<Self, WireError>;
}

impl Message for ClientMessage {
    const LIMIT: usize = Self::LIMIT;

    fn to_frame(&self) -> Result<Vec<u8>, CodecError> {
        self.to_frame()
    }

    fn from_body(kind: u16, body: &[u8]) -> Result<Self, WireError> {
        Self::from_body(kind, body)
    }
}

impl Message for ControllerMessage {
    const LIMIT: usize = Self::LIMIT;

    fn to_frame(&self) -> Result<Vec<u8>, CodecError> {
        self.to_frame()
    }

    fn from_body(kind: u16, body: &[u8]) -> Result<Self, WireError> {
        Self::from_body(kind, body)
    }
}

/// Why a stream carries no further.
#[derive(Debug, Error)]
pub enum FrameError {
    /// What came is no frame of ours.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// What is to go does not fit a frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A frame has taken too long.
    #[error("a message took longer than {0:?}")]
    Deadline(Duration),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a message")]
    Truncated,
    /// The stream or its connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads messages of one direction.
pub struct Reader<M, R = RecvStream> {
    stream: R,
    deadline: Duration,
    /// The header or body at hand, as far as it has come.
    buffer: Vec<u8>,
    header: Option<FrameHeader>,
    /// When the frame at hand must be complete; `None` between frames.
    due: Option<Instant>,
    messages: PhantomData<fn() -> M>,
}

impl<M, R> fmt::Debug for Reader<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} bytes of a frame)", self.buffer.len())
    }
}

impl<M: Message, R: AsyncRead + Unpin> Reader<M, R> {
    /// Reads from `stream`; each frame has `deadline` from its first byte on.
    #[must_use]
    pub fn new(stream: R, deadline: Duration) -> Self {
        Self {
            stream,
            deadline,
            buffer: Vec::new(),
            header: None,
            due: None,
            messages: PhantomData,
        }
    }

    /// The next message, or `None` at the end of the stream between two. Waits for its first byte
    /// as long as it takes. After an error the stream is of no more use.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            let wanted = self.header.map_or(HEADER_LEN, |header| header.length);
            let room = wanted.saturating_sub(self.buffer.len());
            if room > 0 {
                if self.fill(room).await? == 0 {
                    return match self.due {
                        None => Ok(None),
                        Some(_) => Err(FrameError::Truncated),
                    };
                }
                self.due
                    .get_or_insert_with(|| Instant::now() + self.deadline);
            } else if let Some(header) = self.header.take() {
                let message = M::from_body(header.kind, &self.buffer)?;
                // A large message keeps no memory behind it.
                self.buffer = Vec::new();
                self.due = None;
                return Ok(Some(message));
            } else {
                let bytes = self.buffer.as_slice().try_into().unwrap_or_default();
                self.header = Some(FrameHeader::parse(bytes, M::LIMIT)?);
                self.buffer.clear();
            }
        }
    }

    /// Reads up to `room` bytes into the buffer: how many came, 0 at the end.
    async fn fill(&mut self, room: usize) -> Result<usize, FrameError> {
        self.buffer.reserve(room.min(STEP));
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        let mut limited = (&mut self.stream).take(room);
        let read = limited.read_buf(&mut self.buffer);
        match self.due {
            None => Ok(read.await?),
            Some(due) => match timeout_at(due, read).await {
                Ok(count) => Ok(count?),
                Err(_) => Err(FrameError::Deadline(self.deadline)),
            },
        }
    }
}

/// Writes messages of one direction.
pub struct Writer<M, W = SendStream> {
    stream: W,
    deadline: Duration,
    /// Whole frames; those before `sent` are gone.
    pending: Vec<u8>,
    sent: usize,
    messages: PhantomData<fn(M)>,
}

impl<M, W> fmt::Debug for Writer<M, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} of {} bytes)", self.sent, self.pending.len())
    }
}

impl<M: Message, W: AsyncWrite + Unpin> Writer<M, W> {
    /// Writes to `stream`; the other side has `deadline` to make room for each message.
    #[must_use]
    pub fn new(stream: W, deadline: Duration) -> Self {
        Self {
            stream,
            deadline,
            pending: Vec::new(),
            sent: 0,
            messages: PhantomData,
        }
    }

    /// The stream; what is not sent yet is dropped.
    #[must_use]
    pub fn into_stream(self) -> W {
        self.stream
    }

    /// Sends a message: returns when the transport has taken all of it. Dropped before that, what
    /// is left goes out ahead of the next.
    ///
    /// # Errors
    /// [`FrameError`]; over [`FrameError::Codec`] nothing was sent and the stream is still good.
    pub async fn send(&mut self, message: &M) -> Result<(), FrameError> {
        let frame = message.to_frame()?;
        if self.pending.is_empty() {
            self.pending = frame;
        } else {
            self.pending.extend(frame);
        }
        self.flush().await
    }

    /// Sends what is left of messages whose sending was dropped.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        let due = Instant::now() + self.deadline;
        while let Some(rest) = self.pending.get(self.sent..).filter(|r| !r.is_empty()) {
            let count = timeout_at(due, self.stream.write(rest))
                .await
                .map_err(|_| FrameError::Deadline(self.deadline))??;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.sent = self.sent.saturating_add(count);
        }
        self.pending = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

impl<M: Message> Writer<M> {
    /// Ends the stream and waits until the other side has all of it, `grace` at most: closing the
    /// connection any earlier would throw away what is on the way. Whether it has.
    pub async fn finish(&mut self, grace: Duration) -> bool {
        let finishing = async {
            self.flush().await.is_ok()
                && self.stream.finish().is_ok()
                && matches!(self.stream.stopped().await, Ok(None))
        };
        timeout(grace, finishing).await.unwrap_or(false)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime of a test ends its tasks"
)]
mod tests;
