//! `collect-posture`: the collector, as a process of its own.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nix::unistd::User;

use gatereeve_runtime::sandbox::{Access, Calls, Files, Sandbox};

use super::Failure;
use super::output::Printer;
use crate::posture::linux::{ThisHost, leave_network};
use crate::posture::{CollectRequest, CollectedFact, Host, collect, connection};

/// What the collector is told by whoever starts it.
#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// The directory that stands for `/`.
    #[arg(long, default_value = "/")]
    pub root: PathBuf,
    /// Holds `facts.d`.
    #[arg(long, default_value = "/etc/gatereeve")]
    pub config_dir: PathBuf,
    /// An executable whose running is asked for; may be repeated.
    #[arg(long)]
    pub watch: Vec<String>,
    /// Answer one question over the socket that is standard input, as systemd hands it over.
    #[arg(long, conflicts_with = "watch")]
    pub connection: bool,
    /// The user who may ask over the socket, by name or number, besides root.
    #[arg(long, value_name = "USER", default_value = "gatereeve")]
    pub client: String,
}

/// Collects, and prints or answers.
pub(super) fn run(arguments: &CollectArgs, printer: &mut Printer) -> Result<u8, Failure> {
    let host = ThisHost::new(arguments.root.clone());
    if !arguments.connection {
        let facts = facts(&host, arguments, arguments.watch.clone());
        return printer.json(&facts).map(|()| 0);
    }
    let allowed = askers(&arguments.client).map_err(|error| Failure::failed(&error))?;
    connection::serve_standard_input(&allowed, &host, |host, watched| {
        facts(host, arguments, watched)
    })
    .map(|()| 0)
    .map_err(|error| Failure::failed(&error.into()))
}

fn facts(host: &dyn Host, arguments: &CollectArgs, watched: Vec<String>) -> Vec<CollectedFact> {
    let request = CollectRequest {
        root: arguments.root.clone(),
        config_dir: arguments.config_dir.clone(),
        watched,
    };
    leave_network();
    collect(host, &request, || confine(host, &request))
}

/// Root, and the client's user where there is one.
fn askers(client: &str) -> anyhow::Result<Vec<u32>> {
    if let Ok(number) = client.parse() {
        return Ok(vec![0, number]);
    }
    let user =
        User::from_name(client).with_context(|| format!("cannot look up the user {client:?}"))?;
    Ok([0]
        .into_iter()
        .chain(user.map(|user| user.uid.as_raw()))
        .collect())
}

/// Leaves in reach what the collectors read, and no more: with the right to look at everybody's processes often
/// comes the right to read everybody's files.
fn confine(host: &dyn Host, request: &CollectRequest) {
    let read = [
        "/etc/os-release",
        "/usr/lib/os-release",
        "/proc/sys/kernel",
        "/sys",
        "/var/lib/dpkg",
        "/var/lib/apt/lists",
        "/etc/dconf",
        "/etc/xdg",
    ];
    let list = [
        "/proc",
        "/usr/share/xsessions",
        "/usr/share/wayland-sessions",
    ];
    let files = read.into_iter().fold(Files::none(), |files, path| {
        files.allow_if_there(host.path(path), Access::Read)
    });
    let files = list.into_iter().fold(files, |files, path| {
        files.allow_if_there(host.path(path), Access::List)
    });
    let sandbox = Sandbox {
        files: files
            .allow_if_there(host.path("/proc/self"), Access::Read)
            .allow_if_there(request.config_dir.join("facts.d"), Access::Read),
        calls: Calls::Collector,
    };
    // What is not confined is logged; the facts are none the worse.
    drop(sandbox.enter());
}
