//! The collector as a process of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::{CollectRequest, CollectedFact};

/// The most that a collector may answer.
pub(super) const MAX_OUTPUT: u64 = 64 * 1024;

/// Why there are no facts.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The process could not be started.
    #[error("cannot start the posture collector {program}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not finish in time, and was killed.
    #[error("the posture collector did not finish within {0:?} and was stopped")]
    Deadline(Duration),
    /// It failed, or printed what is no list of facts.
    #[error("the posture collector failed: {0}")]
    Failed(String),
}

/// Runs `program collect-posture` in a process group of its own, with an empty environment, and takes
/// its facts.
///
/// # Errors
/// [`CollectError`]; the whole process group is gone then.
pub async fn run_collector(
    program: &Path,
    request: &CollectRequest,
    deadline: Duration,
) -> Result<Vec<CollectedFact>, CollectError> {
    let mut command = Command::new(program);
    command
        .arg("collect-posture")
        .arg("--root")
        .arg(&request.root)
        .arg("--config-dir")
        .arg(&request.config_dir);
    for path in &request.watched {
        command.arg("--watch").arg(path);
    }
    run(command, program, deadline).await
}

async fn run(
    mut command: Command,
    program: &Path,
    deadline: Duration,
) -> Result<Vec<CollectedFact>, CollectError> {
    let mut child = command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CollectError::Start {
            program: program.to_owned(),
            source,
        })?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    let result = tokio::time::timeout(deadline, answer(&mut child)).await;
    // Whatever came of it, nothing that it started stays behind.
    if let Some(group) = group
        && killpg(group, Signal::SIGKILL).is_ok()
    {
        tracing::debug!("the posture collector left processes behind; they were stopped");
    }
    match result {
        Ok(result) => result,
        Err(_) => Err(CollectError::Deadline(deadline)),
    }
}

async fn answer(child: &mut Child) -> Result<Vec<CollectedFact>, CollectError> {
    let failed = |error: io::Error| CollectError::Failed(error.to_string());
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| CollectError::Failed("it has no output".into()))?;
    let mut bytes = Vec::new();
    stdout
        .take(MAX_OUTPUT + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_OUTPUT) {
        return Err(CollectError::Failed(format!(
            "it printed more than {MAX_OUTPUT} bytes"
        )));
    }
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(CollectError::Failed(status.to_string()));
    }
    serde_json::from_slice(&bytes).map_err(|error| CollectError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, deadline: Duration) -> Result<Vec<CollectedFact>, CollectError> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        run(command, Path::new("/bin/sh"), deadline).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn facts_are_taken_from_standard_output() {
        let facts = shell(
            r#"echo '[{"id":"firewall","value":{"bool":true},"source":"nft"}]'"#,
            LONG,
        )
        .await;
        assert_eq!(facts.unwrap()[0].id, "firewall");
    }

    #[tokio::test]
    async fn what_hangs_prints_too_much_or_fails_gives_nothing() {
        let hangs = shell("sleep 600 & sleep 600", Duration::from_millis(300)).await;
        assert!(matches!(hangs, Err(CollectError::Deadline(_))), "{hangs:?}");
        let floods = shell("yes | head -c 10000000", LONG).await;
        assert!(
            matches!(&floods, Err(CollectError::Failed(why)) if why.contains("more than")),
            "{floods:?}"
        );
        let fails = shell("echo '[]'; exit 3", LONG).await;
        assert!(matches!(fails, Err(CollectError::Failed(_))), "{fails:?}");
        let garbage = shell("echo no", LONG).await;
        assert!(
            matches!(garbage, Err(CollectError::Failed(_))),
            "{garbage:?}"
        );
    }

    #[tokio::test]
    async fn the_environment_is_empty() {
        // Without PATH the shell still finds its own built-ins; what the tests were started with is gone.
        let facts = shell(r#"[ -z "$HOME$CARGO" ] && echo '[]'"#, LONG).await;
        assert!(facts.is_ok(), "{facts:?}");
    }
}
