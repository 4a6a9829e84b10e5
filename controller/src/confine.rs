//! What the daemon may do once it has started.

use gatereeve_runtime::sandbox::{Access, Calls, Files, Sandbox};

use crate::config::Config;

/// The sandbox of a daemon with this configuration. The directory of its socket is made where it is missing: only
/// what is there can be granted.
#[must_use]
pub fn sandbox(config: &Config) -> Sandbox {
    let is_root = nix::unistd::geteuid().is_root();
    let mut files = Files::none()
        .allow(&config.state_dir, Access::Write)
        .allow("/proc/self", Access::Read)
        // How many processors the controller may use.
        .allow_if_there("/sys/fs/cgroup", Access::Read)
        // The users and groups of those who administrate.
        .allow_look_ups(is_root);
    if let Some(directory) = config.socket.parent() {
        // What cannot be made is found, and said, when the socket is bound.
        drop(std::fs::create_dir_all(directory));
        files = files.allow(directory, Access::Sockets);
    }
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        files = files.allow_if_there(directory, Access::Read);
    }
    Sandbox {
        files,
        calls: Calls::Controller,
    }
}
