//! The admin socket: who may use it, and the way of a request to the actor.
//!
//! One URL, [`COMMAND`]: a [`Request`] in, a [`Reply`] out, or a [`CommandError`] with a status that
//! tells its kind. Beside it are the two of [`diagnostics`], about the log. Who asks is what the kernel says of the socket's other end.

use std::future::Future;
use std::pin::Pin;

use anyhow::Context as _;
use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_controller_core::command::{CommandError, ErrorCode, Reply, Request};
use gatereeve_runtime::diagnostics;
use gatereeve_runtime::local_socket::Caller;
use nix::unistd::{Group, Uid, User, getuid};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::server::AdminRequest;

/// Where requests are posted to.
pub const COMMAND: &str = "/v1/command";

/// Who may administrate: root, the user that the daemon runs as, and a group if one is configured.
#[derive(Clone, Debug)]
pub struct Access {
    own: Uid,
    group: Option<Group>,
}

impl Access {
    /// Access for root, this process's own user and the members of `group`.
    ///
    /// # Errors
    /// There is no such group.
    pub fn new(group: Option<&str>) -> anyhow::Result<Self> {
        let group = match group {
            None => None,
            Some(name) => Some(
                Group::from_name(name)
                    .with_context(|| format!("cannot look up the group {name:?}"))?
                    .with_context(|| format!("there is no group {name:?} (admin_group)"))?,
            ),
        };
        Ok(Self {
            own: getuid(),
            group,
        })
    }

    /// The mode of the socket's file.
    #[must_use]
    pub fn socket_mode(&self) -> u32 {
        if self.group.is_some() { 0o660 } else { 0o600 }
    }

    /// The group of the socket's file.
    #[must_use]
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.name.as_str())
    }

    /// Whether this caller may do everything; there is nothing in between.
    #[must_use]
    pub fn permits(&self, caller: &Caller) -> bool {
        let is_member = |group: &Group| caller.is_member(group.gid.as_raw());
        caller.is_root()
            || Uid::from_raw(caller.uid) == self.own
            || self.group.as_ref().is_some_and(is_member)
    }
}

/// The name of a user, or its number.
fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

type Answer = Pin<Box<dyn Future<Output = (u16, Vec<u8>)> + Send>>;

/// What answers the socket's requests.
pub fn handler(
    access: Access,
    actor: mpsc::Sender<AdminRequest>,
) -> impl Fn(Caller, String, Vec<u8>) -> Answer + Send + Sync + 'static {
    move |caller, path, body| {
        let permitted = access.permits(&caller);
        let requests = actor.clone();
        Box::pin(async move {
            if !permitted {
                warn!(uid = caller.uid, pid = caller.pid, "admin request refused");
            }
            if let Some(answered) = diagnostics::answer(&caller, &path, &body) {
                return answered;
            }
            encode(&answer(caller, permitted, &path, &body, &requests).await)
        })
    }
}

async fn answer(
    caller: Caller,
    permitted: bool,
    path: &str,
    body: &[u8],
    requests: &mpsc::Sender<AdminRequest>,
) -> Result<Reply, CommandError> {
    if path != COMMAND {
        return Err(CommandError::new(
            ErrorCode::NotFound,
            format!("there is nothing at {path:?}; post to {COMMAND}"),
        ));
    }
    let request: Request = serde_json::from_slice(body).map_err(|error| {
        CommandError::new(
            ErrorCode::Usage,
            format!("the request is malformed: {error}"),
        )
    })?;
    let (reply, answered) = oneshot::channel();
    let actor = Actor::Local {
        uid: caller.uid,
        user: user_name(caller.uid),
    };
    requests
        .try_send(AdminRequest {
            actor,
            permitted,
            request,
            reply,
        })
        .map_err(|_| {
            CommandError::new(
                ErrorCode::Failed,
                "too many admin requests wait, or the controller shuts down; try again",
            )
        })?;
    answered.await.map_err(|_| {
        CommandError::new(
            ErrorCode::Failed,
            "the controller stopped before it answered; `audit tail` shows what was committed",
        )
    })?
}

/// HTTP status and body of an answer.
fn encode(answer: &Result<Reply, CommandError>) -> (u16, Vec<u8>) {
    let (status, body) = match answer {
        Ok(reply) => (200, serde_json::to_vec(reply)),
        Err(error) => (status_of(error.code), serde_json::to_vec(error)),
    };
    match body {
        Ok(body) => (status, body),
        Err(error) => (
            500,
            format!("{{\"error\":{:?}}}", error.to_string()).into_bytes(),
        ),
    }
}

fn status_of(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::Failed => 500,
        ErrorCode::Usage => 400,
        ErrorCode::Refused => 403,
        ErrorCode::NotFound => 404,
        ErrorCode::Conflict => 409,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_the_own_user_and_the_group_may_administrate() {
        let own = getuid().as_raw();
        let nobody = own.wrapping_add(54_321);
        let caller = |uid, gid| Caller {
            uid,
            gid,
            pid: None,
        };
        let alone = Access::new(None).unwrap();
        assert!(alone.permits(&caller(0, 0)) && alone.permits(&caller(own, 77)));
        assert!(!alone.permits(&caller(nobody, 77)));
        assert_eq!(alone.socket_mode(), 0o600);
        let group = Group::from_gid(nix::unistd::Gid::from_raw(0))
            .unwrap()
            .unwrap();
        let shared = Access::new(Some(&group.name)).unwrap();
        assert!(shared.permits(&caller(nobody, 0)));
        assert!(!shared.permits(&caller(nobody, 77)));
        assert_eq!(shared.socket_mode(), 0o660);
        assert!(Access::new(Some("no such group")).is_err());
    }

    #[test]
    fn a_request_reads_back_with_and_without_a_wait() {
        let plain: Request = serde_json::from_str(r#"{"command":"status"}"#).unwrap();
        assert_eq!(plain.wait_ms, None);
        let waits: Request =
            serde_json::from_str(r#"{"command":"policy_rollback","revision":3,"wait_ms":5}"#)
                .unwrap();
        assert_eq!(waits.wait_ms, Some(5));
        let text = serde_json::to_string(&waits).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), waits);
        assert!(serde_json::from_str::<Request>(r#"{"command":"open_all"}"#).is_err());
    }
}
