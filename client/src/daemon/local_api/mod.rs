//! The local API: requests from the Unix socket, checked against who asks, put to the daemon's task.
//!
//! Each operation is a POST to `/v1/NAME`, with its arguments as a JSON object. `client/docs/local-api.json`
//! describes all of them, and is held to the types by a test. The paths of [`diagnostics`] are beside them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use gatereeve_client_core::api::{LocalError, LocalReply, LocalRequest};
use gatereeve_runtime::diagnostics;
use gatereeve_runtime::local_socket::{self, Caller};
use gatereeve_runtime::shutdown::Shutdown;

use crate::config::Config;

/// What every path begins with: the version of the interface.
const PREFIX: &str = "/v1/";
/// The name of the operation, in a [`LocalRequest`] as JSON.
const NAME: &str = "request";
/// Every operation there is.
pub const OPERATIONS: [&str; 12] = [
    "status", "peers", "flows", "ping", "why", "posture", "whois", "join", "leave", "up", "down",
    "repair",
];
/// Everybody on the host may ask; who may change is decided by credentials.
const SOCKET_MODE: u32 = 0o666;
/// Requests that may wait for the daemon's task.
const QUEUE: usize = 64;
/// How long a request may take, `ping` included.
const DEADLINE: Duration = Duration::from_secs(120);

/// Requests that one ping may send; the command line takes no more either.
const MOST_PINGS: u32 = 1000;
/// Flows that one answer may list; the same holds for the command line.
const MOST_FLOWS: u32 = 1_000;

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
        group: config.operator_group,
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

/// Where a request is posted, and the body that goes with it.
///
/// # Errors
/// When it cannot be written as JSON, which is not to be expected.
pub fn address(request: &LocalRequest) -> Result<(String, Value)> {
    let mut body = serde_json::to_value(request)?;
    let name = body.as_object_mut().and_then(|object| object.remove(NAME));
    let name = name.as_ref().and_then(Value::as_str);
    let name = name.context("a request without a name")?;
    Ok((format!("{PREFIX}{name}"), body))
}

/// The request that was posted to `url`.
fn parse(url: &str, body: &[u8]) -> Result<LocalRequest, LocalError> {
    let name = url
        .strip_prefix(PREFIX)
        .filter(|name| OPERATIONS.contains(name))
        .ok_or_else(|| {
            let known = OPERATIONS.join(", ");
            failed(
                4,
                format!("there is nothing at {url}; there is {PREFIX} with one of {known}"),
            )
        })?;
    let malformed = |error| failed(2, format!("the request is malformed: {error}"));
    let mut object: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(malformed)?;
    if object.insert(NAME.to_owned(), name.into()).is_some() {
        return Err(failed(
            2,
            format!("the request is malformed: the path names it, not {NAME:?}"),
        ));
    }
    serde_json::from_value(Value::Object(object)).map_err(malformed)
}

/// Refuses what would be too much of something.
fn check_amount(request: &LocalRequest) -> Result<(), LocalError> {
    let (amount, allowed, what) = match request {
        LocalRequest::Ping { count, .. } => (*count, 1..=MOST_PINGS, "requests of a ping"),
        LocalRequest::Flows { limit, .. } => (*limit, 0..=MOST_FLOWS, "flows to list"),
        LocalRequest::Status
        | LocalRequest::Peers
        | LocalRequest::Why { .. }
        | LocalRequest::Posture
        | LocalRequest::Whois { .. }
        | LocalRequest::Join(_)
        | LocalRequest::Leave
        | LocalRequest::Up
        | LocalRequest::Down
        | LocalRequest::Repair => return Ok(()),
    };
    if allowed.contains(&amount) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(failed(
        2,
        format!("{what}: {least} to {most}, not {amount}"),
    ))
}

/// Who may make changes.
#[derive(Clone, Debug)]
struct Rights {
    own: u32,
    operator: Option<u32>,
    group: Option<u32>,
}

impl Rights {
    /// Looks the caller's groups up, where they matter: that may ask a directory server, and so take a while.
    fn permit(&self, caller: Caller, request: &LocalRequest) -> Result<(), LocalError> {
        let uid = caller.uid;
        if !takes_rights(request) || uid == 0 || uid == self.own || Some(uid) == self.operator {
            return Ok(());
        }
        if self.group.is_some_and(|group| caller.is_member(group)) {
            return Ok(());
        }
        Err(LocalError {
            exit_status: 3,
            message: format!(
                "user {uid} may not change this daemon, nor see what others do; ask as root, or as the operator or a member of the operator_group that \
                 client.toml names"
            ),
        })
    }
}

/// Whether it changes something, or tells what others on this host do.
fn takes_rights(request: &LocalRequest) -> bool {
    match request {
        LocalRequest::Status
        | LocalRequest::Peers
        | LocalRequest::Ping { .. }
        | LocalRequest::Why { .. }
        | LocalRequest::Posture
        | LocalRequest::Whois { .. } => false,
        LocalRequest::Flows { .. }
        | LocalRequest::Join(_)
        | LocalRequest::Leave
        | LocalRequest::Up
        | LocalRequest::Down
        | LocalRequest::Repair => true,
    }
}

async fn answer(
    calls: &mpsc::Sender<Call>,
    rights: &Rights,
    caller: Caller,
    url: &str,
    body: &[u8],
) -> Result<LocalReply, LocalError> {
    let request = parse(url, body)?;
    let (rights, asked) = (rights.clone(), request.clone());
    tokio::task::spawn_blocking(move || rights.permit(caller, &asked))
        .await
        .map_err(|error| failed(1, format!("who asks could not be looked up: {error}")))??;
    check_amount(&request)?;
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
mod tests;
