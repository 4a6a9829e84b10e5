//! The local API: requests from the Unix socket, checked against who asks, put to the daemon's task.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use gatereeve_client_core::api::{LocalError, LocalReply, LocalRequest};
use gatereeve_runtime::diagnostics;
use gatereeve_runtime::local_socket::{self, Caller};
use gatereeve_runtime::shutdown::Shutdown;

use crate::config::Config;

/// The path that requests are posted to.
pub const URL: &str = "/v1";
/// Everybody on the host may ask; who may change is decided by credentials.
const SOCKET_MODE: u32 = 0o666;
/// Requests that may wait for the daemon's task.
const QUEUE: usize = 64;
/// How long a request may take, `ping` included.
const DEADLINE: Duration = Duration::from_secs(120);

/// Requests that one ping may send; the command line takes no more either.
const MOST_PINGS: u32 = 1000;

/// One request, and where its answer goes.
#[derive(Debug)]
pub(super) struct Call {
    /// What is asked.
    pub(super) request: LocalRequest,
    /// For the answer.
    pub(super) answer: oneshot::Sender<Result<LocalReply, LocalError>>,
}

/// Listens on the daemon's socket until the shutdown.
///
/// # Errors
/// When the socket cannot be made, or another daemon listens on it.
pub(super) fn listen(config: &Config, shutdown: &Shutdown) -> Result<mpsc::Receiver<Call>> {
    let listener = local_socket::bind(&config.socket, SOCKET_MODE, None)
        .with_context(|| format!("cannot listen on {}", config.socket.display()))?;
    let (calls, inbox) = mpsc::channel(QUEUE);
    let rights = Arc::new(Rights {
        own: nix::unistd::geteuid().as_raw(),
        operator: config.operator,
    });
    let serve = local_socket::serve(listener, shutdown.clone(), move |caller, url, body| {
        let (calls, rights) = (calls.clone(), Arc::clone(&rights));
        async move {
            if let Some(answered) = diagnostics::answer(&caller, &url, &body) {
                return answered;
            }
            respond(&answer(&calls, &rights, caller, &url, &body).await)
        }
    });
    shutdown.spawn(serve);
    Ok(inbox)
}

/// Who may make changes.
#[derive(Debug)]
struct Rights {
    own: u32,
    operator: Option<u32>,
}

impl Rights {
    fn permit(&self, uid: u32, request: &LocalRequest) -> Result<(), LocalError> {
        let is_change = match request {
            LocalRequest::Status
            | LocalRequest::Peers
            | LocalRequest::Ping { .. }
            | LocalRequest::Why { .. }
            | LocalRequest::Posture
            | LocalRequest::Whois { .. } => false,
            LocalRequest::Join(_) | LocalRequest::Leave | LocalRequest::Up | LocalRequest::Down => {
                true
            }
        };
        if !is_change || uid == 0 || uid == self.own || Some(uid) == self.operator {
            return Ok(());
        }
        Err(LocalError {
            exit_status: 3,
            message: format!(
                "user {uid} may not change this daemon; ask as root, or as the operator that client.toml names"
            ),
        })
    }
}

async fn answer(
    calls: &mpsc::Sender<Call>,
    rights: &Rights,
    caller: Caller,
    url: &str,
    body: &[u8],
) -> Result<LocalReply, LocalError> {
    if url != URL {
        return Err(failed(
            2,
            format!("there is nothing at {url}; requests go to {URL}"),
        ));
    }
    let request: LocalRequest = serde_json::from_slice(body)
        .map_err(|error| failed(2, format!("the request is malformed: {error}")))?;
    rights.permit(caller.uid, &request)?;
    if let LocalRequest::Ping { count, .. } = &request
        && !(1..=MOST_PINGS).contains(count)
    {
        let message = format!("a ping sends 1 to {MOST_PINGS} requests");
        return Err(failed(2, message));
    }
    let (answer, inbox) = oneshot::channel();
    let call = Call { request, answer };
    let stopping = || failed(6, "the daemon is stopping".into());
    calls.send(call).await.map_err(|_| stopping())?;
    match tokio::time::timeout(DEADLINE, inbox).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(failed(1, format!("no answer within {DEADLINE:?}"))),
    }
}

fn failed(exit_status: u8, message: String) -> LocalError {
    LocalError {
        exit_status,
        message,
    }
}

fn respond(result: &Result<LocalReply, LocalError>) -> (u16, Vec<u8>) {
    let (status, body) = match result {
        Ok(reply) => (200, serde_json::to_vec(reply)),
        Err(error) => {
            let status = match error.exit_status {
                2 => 400,
                3 => 403,
                4 => 404,
                5 => 409,
                6 => 503,
                _ => 500,
            };
            (status, serde_json::to_vec(error))
        }
    };
    body.map_or_else(
        |error| (500, error.to_string().into_bytes()),
        |body| (status, body),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_may_ask_and_few_may_change() {
        let rights = Rights {
            own: 50,
            operator: Some(1000),
        };
        for uid in [0, 50, 1000, 1001] {
            assert!(rights.permit(uid, &LocalRequest::Status).is_ok());
            let changes = [LocalRequest::Up, LocalRequest::Down, LocalRequest::Leave];
            for change in changes {
                assert_eq!(
                    rights.permit(uid, &change).is_ok(),
                    uid != 1001,
                    "{uid} {change:?}"
                );
            }
        }
        let nobody = Rights {
            own: 0,
            operator: None,
        };
        assert_eq!(
            nobody
                .permit(1000, &LocalRequest::Down)
                .unwrap_err()
                .exit_status,
            3
        );
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let (calls, _inbox) = mpsc::channel(1);
        let rights = Rights {
            own: 0,
            operator: None,
        };
        let root = Caller {
            uid: 0,
            gid: 0,
            pid: None,
        };
        for (url, body) in [
            ("/v2", "{\"request\":\"status\"}"),
            (URL, "{}"),
            (URL, "{\"request\":\"ping\",\"peer\":\"web\",\"count\":-1}"),
            (URL, "{\"request\":\"ping\",\"peer\":\"web\",\"count\":0}"),
            (
                URL,
                "{\"request\":\"ping\",\"peer\":\"web\",\"count\":1001}",
            ),
            (URL, ""),
        ] {
            let error = answer(&calls, &rights, root, url, body.as_bytes())
                .await
                .unwrap_err();
            assert_eq!(error.exit_status, 2, "{url} {body}");
        }
    }

    #[tokio::test]
    async fn a_request_that_is_one_reaches_the_daemon() {
        let (calls, mut inbox) = mpsc::channel(1);
        let rights = Rights {
            own: 0,
            operator: None,
        };
        let anybody = Caller {
            uid: 1000,
            gid: 1000,
            pid: None,
        };
        let body = "{\"request\":\"ping\",\"peer\":\"web\",\"count\":1000}";
        let asking = answer(&calls, &rights, anybody, URL, body.as_bytes());
        let daemon = async {
            let call = inbox.recv().await.unwrap();
            assert!(matches!(
                call.request,
                LocalRequest::Ping { count: 1000, .. }
            ));
        };
        // The daemon drops the question, as it does when it stops.
        let (answered, ()) = tokio::join!(asking, daemon);
        assert_eq!(answered.unwrap_err().exit_status, 6);
    }
}
