//! The helper's end: `gatereeve helper`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixStream, lookup_host};

use super::{MAX_LINE, Reply, Request};
use crate::posture::CollectRequest;
use crate::posture::process::run_collector;

/// This program, even when its file was replaced by an upgrade.
const PROGRAM: &str = "/proc/self/exe";
/// How long collecting may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers over the sockets that are standard input and output, until the daemon ends.
///
/// # Errors
/// When they are no sockets: a person has started it.
pub fn serve(config_dir: &Path) -> Result<()> {
    give_up_rights();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let context = "the helper is started by `gatereeve daemon` alone";
        let collect = socket(io::stdin().as_fd().try_clone_to_owned()).context(context)?;
        let resolve = socket(io::stdout().as_fd().try_clone_to_owned()).context(context)?;
        serve_both(collect, resolve, config_dir).await;
        Ok(())
    })
}

/// What the daemon has for the host's network is of no use here. Root keeps its rights: where there is no other
/// collector, this one looks at everybody's processes with them.
fn give_up_rights() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    let gone = rustix::thread::clear_ambient_capability_set()
        .and_then(|()| rustix::thread::set_capabilities(None, none));
    if let Err(error) = gone {
        tracing::warn!(%error, "the helper keeps the daemon's capabilities");
    }
}

fn socket(descriptor: io::Result<OwnedFd>) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(descriptor?);
    stream.local_addr()?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Answers both lines, until either ends.
pub(super) async fn serve_both(collect: UnixStream, resolve: UnixStream, config_dir: &Path) {
    let ended = tokio::select! {
        ended = line(collect, config_dir) => ended,
        ended = line(resolve, config_dir) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the daemon is gone");
    }
}

async fn line(mut stream: UnixStream, config_dir: &Path) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading.take(MAX_LINE));
    loop {
        reading.get_mut().set_limit(MAX_LINE);
        let mut line = Vec::new();
        reading.read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Ok(());
        }
        let mut reply =
            serde_json::to_vec(&answer(serde_json::from_slice(&line)?, config_dir).await)?;
        reply.push(b'\n');
        writing.write_all(&reply).await?;
    }
}

async fn answer(request: Request, config_dir: &Path) -> Reply {
    match request {
        Request::Collect { watched } => {
            let request = CollectRequest {
                root: PathBuf::from("/"),
                config_dir: config_dir.to_owned(),
                watched,
            };
            match run_collector(Path::new(PROGRAM), &request, DEADLINE).await {
                Ok(facts) => Reply::Facts(facts),
                Err(error) => Reply::Failed(format!("{:#}", anyhow::Error::from(error))),
            }
        }
        Request::Resolve(name) => match lookup_host(&name).await {
            Ok(addresses) => Reply::Addresses(addresses.collect()),
            Err(error) => Reply::Failed(error.to_string()),
        },
    }
}
