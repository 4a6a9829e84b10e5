//! The command line's end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::REPLY;

/// How long a call waits for its answer: above any `--wait` that is usual.
const DEADLINE: Duration = Duration::from_secs(150);

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody answers at the socket.
    #[error("cannot reach the daemon at {}: {source}; is it running, and may this user talk to it?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It answered, with a status other than success.
    #[error("the daemon answered with status {status}")]
    Remote {
        /// The HTTP status.
        status: u16,
        /// The body: JSON, of the interface's error type.
        body: Vec<u8>,
    },
    /// It answered in words that are not understood: another version, most likely.
    #[error("the daemon's answer is not understood ({0}); are both of the same version?")]
    Malformed(serde_json::Error),
    /// The question cannot be put into JSON.
    #[error("the request cannot be written as JSON: {0}")]
    Request(serde_json::Error),
}

/// Sends `body` as JSON to `url` (a path such as `/v1`) at the socket, and returns the answer.
///
/// # Errors
/// [`CallError`].
pub async fn call<T: DeserializeOwned>(
    path: &Path,
    url: &str,
    body: &impl Serialize,
) -> Result<T, CallError> {
    call_within(path, url, body, DEADLINE).await
}

/// Like [`call`], with a deadline for the whole of it.
///
/// # Errors
/// [`CallError`].
pub async fn call_within<T: DeserializeOwned>(
    path: &Path,
    url: &str,
    body: &impl Serialize,
    deadline: Duration,
) -> Result<T, CallError> {
    let json = serde_json::to_vec(body).map_err(CallError::Request)?;
    let unreachable = |source| CallError::Unreachable {
        path: path.to_owned(),
        source,
    };
    let (status, body) = timeout(deadline, exchange(path, url, json))
        .await
        .map_err(|_| unreachable(io::Error::from(io::ErrorKind::TimedOut)))?
        .map_err(unreachable)?;
    if (200..300).contains(&status) {
        serde_json::from_slice(&body).map_err(CallError::Malformed)
    } else {
        Err(CallError::Remote { status, body })
    }
}

async fn exchange(path: &Path, url: &str, json: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json)))
        .map_err(io::Error::other)?;
    let asking = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), REPLY)
            .collect()
            .await
            .map_err(io::Error::other)?;
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection may end just before the answer has been picked up.
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}
