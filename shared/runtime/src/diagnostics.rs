//! What both daemons answer about their own logging, at paths of their own on the local socket.
//!
//! The filter may be seen and switched, and the last warnings seen, by root and by the user that the
//! daemon runs as: a log at a lower level names devices and addresses.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::local_socket::Caller;
use crate::telemetry::{self, FilterError, LogFilter};

/// Where a [`FilterRequest`] is posted to; answered by a [`LogFilter`].
pub const FILTER_PATH: &str = "/v1/log-level";
/// Where `{}` is posted to for the last [`Warnings`].
pub const WARNINGS_PATH: &str = "/v1/warnings";

/// Asks for the filter, or switches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRequest {
    /// The new filter; none asks for the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// The last warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warnings {
    /// Oldest first.
    pub warnings: Vec<String>,
}

/// The answer to a request at one of the paths above: HTTP status and body. `None` for every other
/// path.
#[must_use]
pub fn answer(caller: &Caller, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let own = nix::unistd::geteuid().as_raw();
    let permitted = caller.is_root() || caller.uid == own;
    match path {
        FILTER_PATH | WARNINGS_PATH if !permitted => {
            tracing::warn!(
                uid = caller.uid,
                pid = caller.pid,
                "a question about the log was refused"
            );
            Some(refusal(
                403,
                "refused",
                3,
                "only root and the daemon's own user may see or switch what is logged; try again with sudo",
            ))
        }
        FILTER_PATH => Some(filter(body)),
        WARNINGS_PATH => {
            let warnings = telemetry::recent_warnings();
            Some((200, to_json(&Warnings { warnings })))
        }
        _ => None,
    }
}

fn filter(body: &[u8]) -> (u16, Vec<u8>) {
    let request: FilterRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            return refusal(
                400,
                "usage",
                2,
                &format!("the request is malformed: {error}"),
            );
        }
    };
    let answered: Result<LogFilter, FilterError> = match request.filter {
        None => telemetry::filter(),
        Some(filter) => telemetry::set_filter(&filter),
    };
    match answered {
        Ok(filter) => (200, to_json(&filter)),
        Err(error @ FilterError::Invalid { .. }) => refusal(400, "usage", 2, &error.to_string()),
        Err(error @ FilterError::NotStarted) => refusal(500, "failed", 1, &error.to_string()),
    }
}

/// An error that both command lines understand.
fn refusal(status: u16, code: &str, exit_status: u8, message: &str) -> (u16, Vec<u8>) {
    let body = json!({"code": code, "exit_status": exit_status, "message": message});
    (status, body.to_string().into_bytes())
}

fn to_json(answer: &impl Serialize) -> Vec<u8> {
    // Texts alone: there is nothing in it that JSON could not hold.
    serde_json::to_vec(answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller {
            uid,
            gid: uid,
            pid: None,
        }
    }

    #[test]
    fn only_root_and_the_own_user_are_answered_and_other_paths_are_not_ours() {
        let own = nix::unistd::geteuid().as_raw();
        for path in [FILTER_PATH, WARNINGS_PATH] {
            let (status, body) = answer(&caller(own.wrapping_add(54_321)), path, b"{}").unwrap();
            assert_eq!(status, 403);
            assert!(
                String::from_utf8(body)
                    .unwrap()
                    .contains("\"exit_status\":3")
            );
            for uid in [0, own] {
                assert_ne!(answer(&caller(uid), path, b"{}").unwrap().0, 403);
            }
        }
        assert_eq!(answer(&caller(0), "/v1/command", b"{}"), None);
        let (status, body) = answer(&caller(0), FILTER_PATH, b"{\"filtre\":1}").unwrap();
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
        assert_eq!(answer(&caller(0), WARNINGS_PATH, b"{}").unwrap().0, 200);
    }
}
