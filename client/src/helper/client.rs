//! The daemon's end.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{MAX_LINE, Reply, Request};
use crate::posture::CollectedFact;

/// Requests of one kind that may wait; one more waits to be taken.
const QUEUE: usize = 4;

/// Why the helper has no answer.
#[derive(Debug, Error)]
pub enum HelperError {
    /// It could not do what it was asked.
    #[error("{0}")]
    Failed(String),
    /// There is no helper any more, and a confined daemon can start no other.
    #[error("the daemon's helper process has ended; restart the daemon")]
    Gone,
}

/// The two ends of one line for each kind of request.
type Ends = [StdUnixStream; 2];

/// Two socket pairs: our ends, and the helper's.
pub(super) fn pairs() -> io::Result<(Ends, Ends)> {
    let (collect, their_collect) = StdUnixStream::pair()?;
    let (resolve, their_resolve) = StdUnixStream::pair()?;
    Ok(([collect, resolve], [their_collect, their_resolve]))
}

/// A helper that runs, not spoken to yet: it is started before there is an async runtime.
#[derive(Debug)]
pub struct PreparedHelper {
    ends: Ends,
}

impl PreparedHelper {
    /// Starts `program` as the helper, which finds administrator's facts below `config_dir`. It ends when the
    /// daemon does.
    ///
    /// # Errors
    /// When the system gives no more processes or descriptors.
    pub fn spawn(program: &Path, config_dir: &Path) -> io::Result<Self> {
        let (ends, [collect, resolve]) = pairs()?;
        Command::new(program)
            .args([OsStr::new("helper"), OsStr::new("--config-dir")])
            .arg(config_dir)
            .env_clear()
            // What is collected is collected in this language.
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(collect)))
            .stdout(Stdio::from(OwnedFd::from(resolve)))
            .spawn()?;
        Ok(Self { ends })
    }

    #[cfg(test)]
    pub(super) fn over(ends: Ends) -> Self {
        Self { ends }
    }

    /// Begins to speak to it; needs a tokio runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the sockets.
    pub fn start(self) -> io::Result<Helper> {
        let [collect, resolve] = self.ends;
        Ok(Helper {
            collect: Line::start(collect)?,
            resolve: Line::start(resolve)?,
        })
    }
}

/// The helper, as the daemon's tasks use it.
#[derive(Debug)]
pub struct Helper {
    collect: Line,
    resolve: Line,
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
        match self.collect.ask(request).await? {
            Reply::Facts(facts) => Ok(facts),
            Reply::Failed(why) => Err(HelperError::Failed(why)),
            Reply::Addresses(_) => Err(HelperError::Gone),
        }
    }

    /// The addresses of `host:port`.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, HelperError> {
        match self.resolve.ask(Request::Resolve(name.to_owned())).await? {
            Reply::Addresses(addresses) => Ok(addresses),
            Reply::Failed(why) => Err(HelperError::Failed(why)),
            Reply::Facts(_) => Err(HelperError::Gone),
        }
    }
}

type Asked = (Request, oneshot::Sender<Reply>);

/// One stream of questions and answers. A task of its own keeps them in step, whoever gives up waiting.
#[derive(Debug)]
struct Line {
    asked: mpsc::Sender<Asked>,
}

impl Line {
    fn start(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let (asked, inbox) = mpsc::channel(QUEUE);
        #[expect(clippy::disallowed_methods, reason = "ends with the helper")]
        tokio::spawn(async move {
            if let Err(error) = speak(stream, inbox).await {
                tracing::error!(%error, "the helper process is lost");
            }
        });
        Ok(Self { asked })
    }

    async fn ask(&self, request: Request) -> Result<Reply, HelperError> {
        let (answer, inbox) = oneshot::channel();
        let asked = self.asked.send((request, answer)).await;
        asked.map_err(|_| HelperError::Gone)?;
        inbox.await.map_err(|_| HelperError::Gone)
    }
}

async fn speak(mut stream: UnixStream, mut inbox: mpsc::Receiver<Asked>) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading.take(MAX_LINE));
    while let Some((request, answer)) = inbox.recv().await {
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        writing.write_all(&line).await?;
        reading.get_mut().set_limit(MAX_LINE);
        let mut line = Vec::new();
        reading.read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Who asked may have given up.
        drop(answer.send(serde_json::from_slice(&line)?));
    }
    Ok(())
}
