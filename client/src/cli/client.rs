//! Asks the daemon.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use gatereeve_client_core::api::{LocalError, LocalReply, LocalRequest};
use gatereeve_runtime::local_socket::{CallError, call_within};

use super::Failure;
use crate::daemon::address;

/// Longer than the daemon takes for anything.
const DEADLINE: Duration = Duration::from_secs(130);

/// The daemon's answer to `request`.
///
/// # Errors
/// [`Failure`] with the daemon's own words, or with what to do when it cannot be reached.
pub(super) fn ask(socket: &Path, request: &LocalRequest) -> Result<LocalReply, Failure> {
    ask_within(socket, request, DEADLINE)
}

/// [`ask`] with another deadline.
///
/// # Errors
/// As there.
pub(super) fn ask_within(
    socket: &Path,
    request: &LocalRequest,
    deadline: Duration,
) -> Result<LocalReply, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(&error.into()))?;
    let (url, body) = address(request).map_err(|error| Failure::failed(&error))?;
    runtime
        .block_on(call_within(socket, &url, &body, deadline))
        .map_err(|error| failure(&error))
}

/// The daemon's answer at another path than that of requests.
///
/// # Errors
/// See [`ask`].
pub(super) fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(&error.into()))?;
    runtime
        .block_on(call_within(socket, path, body, DEADLINE))
        .map_err(|error| failure(&error))
}

fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Remote { status, body } => match serde_json::from_slice::<LocalError>(body) {
            Ok(LocalError {
                exit_status,
                message,
            }) => Failure {
                status: exit_status.max(1),
                message,
            },
            Err(_) => Failure {
                status: 1,
                message: format!("the daemon answered with status {status}"),
            },
        },
        CallError::Unreachable { .. } => Failure {
            status: 6,
            message: format!(
                "{error}; `gatereeve daemon` runs it, `--socket` names another socket"
            ),
        },
        CallError::Malformed(_) | CallError::Request(_) => Failure {
            status: 1,
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_there_is_status_6_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("none.sock");
        let failure = ask(&socket, &LocalRequest::Status).unwrap_err();
        assert_eq!(failure.status, 6);
        assert!(
            failure.message.contains("gatereeve daemon"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn the_daemons_words_and_status_come_through() {
        let body = serde_json::to_vec(&LocalError {
            exit_status: 5,
            message: "leave first".into(),
        })
        .unwrap();
        let failure = failure(&CallError::Remote { status: 409, body });
        assert_eq!(
            (failure.status, failure.message.as_str()),
            (5, "leave first")
        );
    }
}
