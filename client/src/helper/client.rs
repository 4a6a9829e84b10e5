//! The daemon's end.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;

use super::{MAX_LINE, Reply, Request};
use crate::dns::{Link, Told};
use crate::posture::CollectedFact;

/// How long an answer may take; longer than the collector may.
const PATIENCE: Duration = Duration::from_secs(12);

/// Why the helper has no answer.
#[derive(Debug, Error)]
pub enum HelperError {
    /// It could not do what it was asked.
    #[error("{0}")]
    Failed(String),
    /// The process that was to answer ended first; the next question gets another one.
    #[error("the helper's process ended before it had answered")]
    Died,
    /// No answer in time.
    #[error("the daemon's helper did not answer within {PATIENCE:?}")]
    Silent,
    /// There is no helper any more, and a confined daemon can start no other.
    #[error("the daemon's helper process has ended; restart the daemon")]
    Gone,
    /// The system gives no more descriptors.
    #[error("the daemon's helper cannot be asked: {0}")]
    Io(#[from] io::Error),
}

/// A helper that runs, not spoken to yet: it is started before there is an async runtime.
#[derive(Debug)]
pub struct PreparedHelper {
    control: StdUnixStream,
}

impl PreparedHelper {
    /// Starts `program` as the helper, which finds administrator's facts below `config_dir`. It ends when the
    /// daemon does.
    ///
    /// # Errors
    /// When the system gives no more processes or descriptors.
    pub fn spawn(program: &Path, config_dir: &Path) -> io::Result<Self> {
        let (control, theirs) = StdUnixStream::pair()?;
        Command::new(program)
            .args([OsStr::new("helper"), OsStr::new("--config-dir")])
            .arg(config_dir)
            .env_clear()
            // What is collected is collected in this language.
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { control })
    }

    #[cfg(test)]
    pub(super) fn over(control: StdUnixStream) -> Self {
        Self { control }
    }

    /// Begins to speak to it; needs a tokio runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn start(self) -> io::Result<Helper> {
        self.control.set_nonblocking(true)?;
        let control = UnixStream::from_std(self.control)?;
        Ok(Helper { control })
    }
}

/// The helper, as the daemon's tasks use it.
#[derive(Debug)]
pub struct Helper {
    control: UnixStream,
}

impl Helper {
    /// Collects posture.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn collect(&self, watched: &[String]) -> Result<Vec<CollectedFact>, HelperError> {
        let request = Request::Collect {
            watched: watched.to_owned(),
        };
        match self.ask(&request).await? {
            Reply::Facts(facts) => Ok(facts),
            Reply::Failed(why) => Err(HelperError::Failed(why)),
            Reply::Addresses(_) | Reply::Told(_) => Err(HelperError::Died),
        }
    }

    /// The addresses of `host:port`.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, HelperError> {
        match self.ask(&Request::Resolve(name.to_owned())).await? {
            Reply::Addresses(addresses) => Ok(addresses),
            Reply::Failed(why) => Err(HelperError::Failed(why)),
            Reply::Facts(_) | Reply::Told(_) => Err(HelperError::Died),
        }
    }

    /// Tells the host's resolver.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn tell_resolver(&self, link: &Link) -> Result<Told, HelperError> {
        match self.ask(&Request::TellResolver(link.clone())).await? {
            Reply::Told(told) => Ok(told),
            Reply::Failed(why) => Err(HelperError::Failed(why)),
            Reply::Facts(_) | Reply::Addresses(_) => Err(HelperError::Died),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply, HelperError> {
        match tokio::time::timeout(PATIENCE, self.asked(request)).await {
            Ok(result) => result,
            Err(_) => Err(HelperError::Silent),
        }
    }

    /// One question over a connection of its own. Whoever gives up waiting closes it.
    async fn asked(&self, request: &Request) -> Result<Reply, HelperError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let sent = self
            .control
            .async_io(Interest::WRITABLE, || hand_over(&self.control, &theirs));
        sent.await.map_err(|_| HelperError::Gone)?;
        // With this end open here, the end of the other process would not show.
        drop(theirs);
        ours.set_nonblocking(true)?;
        let line = spoken(UnixStream::from_std(ours)?, request).await;
        let line = line.map_err(|_| HelperError::Died)?;
        serde_json::from_slice(&line).map_err(|_| HelperError::Died)
    }
}

/// Gives the helper the far end of a question's connection.
fn hand_over(control: &UnixStream, end: &StdUnixStream) -> io::Result<()> {
    let ends = [end.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    if !attached.push(SendAncillaryMessage::ScmRights(&ends)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        control,
        &[IoSlice::new(&[0])],
        &mut attached,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

async fn spoken(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut line = Vec::new();
    let mut reading = BufReader::new(stream.take(MAX_LINE));
    reading.read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}
