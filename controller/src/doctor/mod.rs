//! Whether all is well with a controller, running or not, and what to do where it is not. Looks, and
//! changes nothing.

use gatereeve_controller_core::command::{DeviceView, StatusReply};
use gatereeve_shared::time::UnixMillis;
use serde::Serialize;

use crate::config::Config;
use crate::state_dir::StateDir;

mod host;
mod running;
mod state;

#[cfg(test)]
mod tests;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As it should be.
    Ok,
    /// It works, and should not stay so.
    Warning,
    /// It does not work, or will not for long.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            standing: Standing::Ok,
            found: found.into(),
            advice: None,
        }
    }

    /// It works, and should not stay so.
    #[must_use]
    pub fn warning(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self {
            standing: Standing::Warning,
            advice: Some(advice.to_owned()),
            ..Self::ok(name, found)
        }
    }

    /// It does not work.
    #[must_use]
    pub fn problem(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self {
            standing: Standing::Problem,
            ..Self::warning(name, found, advice)
        }
    }
}

/// What a running controller says of itself.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusReply,
    /// Its devices.
    pub devices: Vec<DeviceView>,
}

/// Looks at everything. `answer` is what the controller behind the admin socket said, or why there is
/// none.
#[must_use]
pub fn examine(config: &Config, answer: &Result<Answer, String>, now: UnixMillis) -> Vec<Check> {
    let dir = StateDir::new(&config.state_dir);
    let mut checks = state::examine(&dir, now);
    let is_usable = !checks.iter().any(|check| {
        matches!(check.name, "state" | "format") && check.standing == Standing::Problem
    });
    if is_usable {
        checks.extend(host::disk(&dir));
        checks.extend(host::advertised(&dir));
        checks.extend(running::controller(&dir, answer));
        checks.extend(running::ports(&dir, &config.listen, answer.is_ok()));
    }
    checks.push(host::open_files(&dir));
    if let Ok(answer) = answer {
        checks.extend(running::told(answer));
    }
    checks
}
