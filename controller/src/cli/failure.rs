//! Why a command failed, and the exit status that tells it.

use gatereeve_controller_core::command::{CommandError, ErrorCode, PolicyProblem};
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::local_socket::CallError;
use gatereeve_runtime::words::in_words;

/// What failed, why, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: ExitStatus,
    /// For people.
    pub message: String,
    /// Places in a policy file.
    pub problems: Vec<PolicyProblem>,
    /// The policy file they are about: its name and text.
    pub file: Option<(String, String)>,
}

impl Failure {
    /// A failure with this status.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            problems: Vec::new(),
            file: None,
        }
    }

    /// Shows problems in the source text of this file.
    pub fn in_file(mut self, name: &str, text: &str) -> Self {
        self.file = Some((name.to_owned(), text.to_owned()));
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(ExitStatus::FAILED, in_words(&error))
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self {
            problems: error.problems,
            ..Self::new(status_of(error.code), error.message)
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Remote { status, body } => {
                match serde_json::from_slice::<CommandError>(&body) {
                    Ok(error) => error.into(),
                    Err(_) => Self::new(
                        ExitStatus::FAILED,
                        format!(
                            "the controller answered with status {status}: {}",
                            gatereeve_shared::text::printable(&String::from_utf8_lossy(&body))
                        ),
                    ),
                }
            }
            CallError::Unreachable { path, source } => Self::new(
                ExitStatus::UNREACHABLE,
                format!(
                    "cannot reach the controller at {}: {source}. Is `gatereeve-controller serve` \
                     running, and may this user administrate it? --socket names another socket",
                    path.display()
                ),
            ),
            CallError::Malformed(_) | CallError::Request(_) => {
                Self::new(ExitStatus::FAILED, error.to_string())
            }
        }
    }
}

/// The exit status of each kind of error.
pub fn status_of(code: ErrorCode) -> ExitStatus {
    match code {
        ErrorCode::Failed => ExitStatus::FAILED,
        ErrorCode::Usage => ExitStatus::USAGE,
        ErrorCode::Refused => ExitStatus::REFUSED,
        ErrorCode::NotFound => ExitStatus::NOT_FOUND,
        ErrorCode::Conflict => ExitStatus::CONFLICT,
    }
}
