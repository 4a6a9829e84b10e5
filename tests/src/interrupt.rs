//! Ctrl-C: nothing may stay behind.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::process;

/// Directories to remove.
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on SIGINT and SIGTERM kill all children, remove the registered directories and end this
/// process with status 130. Namespaces go with the process. Call it before any other thread starts.
///
/// # Errors
/// Where signals cannot be blocked.
pub fn clean_up_on_signals() -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            process::kill_all();
            for directory in registered(std::mem::take) {
                // What cannot be removed is below the system's temporary directory.
                drop(std::fs::remove_dir_all(directory));
            }
            #[expect(clippy::exit, reason = "the whole process has been asked to end")]
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Removes `directory` too when a signal ends this process.
pub fn register(directory: PathBuf) {
    registered(|directories| directories.push(directory));
}

fn registered<T>(work: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
    work(&mut DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner))
}
