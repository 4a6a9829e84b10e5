//! The collector behind a socket: one connection is one question and one answer.
//!
//! systemd listens on the socket and starts a collector for each connection, with the connection as its standard
//! input (`Accept=yes`). The question is one line of JSON, the answer a list of facts, then the end. Who may ask
//! is decided by the socket's mode and, again, by what the kernel says of the other end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use gatereeve_shared::limits;

use super::process::MAX_OUTPUT;
use super::{CollectedFact, Host};

/// The longest question.
const MAX_QUESTION: u64 = 64 * 1024;
/// How long the other end may take for its part.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon asks for. Where to look is the collector's own business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Executables whose running the policy asks for.
    pub watched: Vec<String>,
}

/// Why a question was not answered, or an answer not taken.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The other end is not who it should be.
    #[error("user {0} is at the other end of the collector's socket, and is not let through")]
    Stranger(u32),
    /// The question is none.
    #[error("the question to the posture collector is malformed: {0}")]
    Question(String),
    /// The answer is none.
    #[error("the posture collector at {socket} answered with what is no list of facts: {why}")]
    Answer {
        /// Where it was asked.
        socket: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The connection failed.
    #[error("the posture collector at {socket} cannot be asked: {source}")]
    Connection {
        /// Where it was asked.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the posture collector at {socket} did not answer within {deadline:?}")]
    Deadline {
        /// Where it was asked.
        socket: PathBuf,
        /// How long it had.
        deadline: Duration,
    },
    /// The collector's end of the connection failed.
    #[error("the connection to the posture collector failed: {0}")]
    Io(#[from] io::Error),
}

/// The collector's end: takes the question from one of the users `allowed`, lets `collect` find the facts, and
/// answers.
///
/// # Errors
/// [`ConnectionError`]; nothing was answered then.
pub fn answer(
    mut connection: &StdUnixStream,
    allowed: &[u32],
    collect: impl FnOnce(Vec<String>) -> Vec<CollectedFact>,
) -> Result<(), ConnectionError> {
    let peer = getsockopt(&connection, PeerCredentials).map_err(io::Error::from)?;
    if !allowed.contains(&peer.uid()) {
        return Err(ConnectionError::Stranger(peer.uid()));
    }
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let question = read_question(connection)?;
    let facts = serde_json::to_vec(&collect(question.watched)).map_err(io::Error::from)?;
    connection.write_all(&facts)?;
    Ok(())
}

fn read_question(connection: &StdUnixStream) -> Result<Question, ConnectionError> {
    let malformed = |why: &str| ConnectionError::Question(why.to_owned());
    let mut line = Vec::new();
    BufReader::new(connection.take(MAX_QUESTION)).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(malformed("it has no end, or is too long"));
    }
    let question: Question =
        serde_json::from_slice(&line).map_err(|error| malformed(&error.to_string()))?;
    let is_path = |path: &String| path.starts_with('/') && path.len() <= limits::TEXT;
    if question.watched.len() > limits::FACTS || !question.watched.iter().all(is_path) {
        return Err(malformed(
            "what is watched is no short list of absolute paths",
        ));
    }
    Ok(question)
}

/// The daemon's end: asks the collector behind `socket`, which must be root's or this user's own.
///
/// # Errors
/// [`ConnectionError`].
pub async fn ask(
    socket: &Path,
    watched: &[String],
    deadline: Duration,
) -> Result<Vec<CollectedFact>, ConnectionError> {
    match tokio::time::timeout(deadline, asked(socket, watched)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectionError::Deadline {
            socket: socket.to_owned(),
            deadline,
        }),
    }
}

async fn asked(socket: &Path, watched: &[String]) -> Result<Vec<CollectedFact>, ConnectionError> {
    let failed = |source: io::Error| ConnectionError::Connection {
        socket: socket.to_owned(),
        source,
    };
    let refused = |why: String| ConnectionError::Answer {
        socket: socket.to_owned(),
        why,
    };
    let mut connection = UnixStream::connect(socket).await.map_err(failed)?;
    // Anybody could make a socket; only root's word, and our own, is a fact.
    let listener = connection.peer_cred().map_err(failed)?.uid();
    if listener != 0 && listener != nix::unistd::geteuid().as_raw() {
        return Err(ConnectionError::Stranger(listener));
    }
    let question = Question {
        watched: watched.to_owned(),
    };
    let mut line = serde_json::to_vec(&question).map_err(|error| refused(error.to_string()))?;
    line.push(b'\n');
    connection.write_all(&line).await.map_err(failed)?;
    let mut bytes = Vec::new();
    let mut limited = connection.take(MAX_OUTPUT + 1);
    limited.read_to_end(&mut bytes).await.map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_OUTPUT) {
        return Err(refused(format!("it has more than {MAX_OUTPUT} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))
}

/// Collects for one connection on standard input.
///
/// # Errors
/// [`ConnectionError`].
pub fn serve_standard_input(
    allowed: &[u32],
    host: &dyn Host,
    collect: impl FnOnce(&dyn Host, Vec<String>) -> Vec<CollectedFact>,
) -> Result<(), ConnectionError> {
    use std::os::fd::AsFd as _;
    let connection = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    answer(&connection, allowed, |watched| collect(host, watched))
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::posture::fact::FactValue;

    use super::*;

    fn own() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn fact(text: &str) -> CollectedFact {
        CollectedFact::new("os", FactValue::Text(text.into()), "test")
    }

    /// What the collector's end makes of these bytes from this process.
    fn given(bytes: &[u8], allowed: &[u32]) -> (Result<(), ConnectionError>, String) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        (&ours).write_all(bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let result = answer(&theirs, allowed, |watched| vec![fact(&watched.join(","))]);
        drop(theirs);
        let mut text = String::new();
        // A question that was not read to its end makes the end of the connection an error.
        drop((&ours).read_to_string(&mut text));
        (result, text)
    }

    #[test]
    fn a_question_is_answered_once() {
        let (result, text) = given(b"{\"watched\":[\"/a\",\"/b\"]}\n", &[own()]);
        assert!(result.is_ok(), "{result:?}");
        let facts: Vec<CollectedFact> = serde_json::from_str(&text).unwrap();
        assert_eq!(facts, [fact("/a,/b")]);
    }

    #[test]
    fn strangers_and_what_is_no_question_get_nothing() {
        let good = b"{\"watched\":[]}\n";
        let (refused, text) = given(good, &[own() + 1]);
        assert!(matches!(refused, Err(ConnectionError::Stranger(uid)) if uid == own()));
        assert_eq!(text, "");
        let long = format!("{{\"watched\":[\"/{}\"]}}\n", "x".repeat(300));
        let many = format!(
            "{{\"watched\":[{}\"/x\"]}}\n",
            "\"/x\",".repeat(limits::FACTS)
        );
        for bad in [
            "\n",
            "{}\n",
            "{\"watched\":[]}",
            "{\"watched\":[\"relative\"]}\n",
            "{\"watched\":[],\"root\":\"/tmp\"}\n",
            &long,
            &many,
        ] {
            let (result, text) = given(bad.as_bytes(), &[own()]);
            assert!(
                matches!(result, Err(ConnectionError::Question(_))),
                "{bad}: {result:?}"
            );
            assert_eq!(text, "");
        }
    }

    #[tokio::test]
    async fn the_daemon_takes_facts_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let missing = ask(&path, &[], PATIENCE).await;
        assert!(
            matches!(missing, Err(ConnectionError::Connection { .. })),
            "{missing:?}"
        );
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let long = format!("[{}]", " ".repeat(usize::try_from(MAX_OUTPUT).unwrap()));
        let good = serde_json::to_string(&[fact("x")]).unwrap();
        for (reply, is_good) in [
            (good.as_str(), true),
            ("", false),
            ("{}", false),
            (&long, false),
        ] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; 128];
                assert!(stream.read(&mut question).await.unwrap() > 0);
                drop(stream.write_all(reply.as_bytes()).await);
            };
            let watched = ["/opt/agent".to_owned()];
            let (answer, ()) = tokio::join!(ask(&path, &watched, PATIENCE), serve);
            assert_eq!(answer.is_ok(), is_good, "{answer:?}");
        }
        let silent = ask(&path, &[], Duration::from_millis(50)).await;
        assert!(
            matches!(silent, Err(ConnectionError::Deadline { .. })),
            "{silent:?}"
        );
    }
}
