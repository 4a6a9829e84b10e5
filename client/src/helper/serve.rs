//! The helper's end: `gatereeve helper`, and `gatereeve helper --answer` for each question.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixStream, lookup_host};

use super::{MAX_LINE, Reply, Request};
use crate::dns::resolved;
use crate::posture::CollectRequest;
use crate::posture::process::run_collector;
use gatereeve_runtime::words::in_words;

/// This program, even when its file was replaced by an upgrade.
const PROGRAM: &str = "/proc/self/exe";
/// How long collecting may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Questions that are answered at a time. The daemon asks three; one that was taken over starts no more.
pub(super) const AT_A_TIME: usize = 8;
/// How long one may take, longer than the daemon waits, and how often it is looked at meanwhile.
const LONGEST: Duration = Duration::from_secs(20);
const LOOKS: u32 = 200;
/// Who starts these by hand is told.
const ALONE: &str = "the helper is started by `gatereeve daemon` alone";

/// Starts a process for each question that comes over the socket that is standard input, until the daemon ends.
///
/// # Errors
/// When it is no socket: a person has started it.
pub fn serve(config_dir: &Path) -> Result<()> {
    give_up_rights();
    let control = socket().context(ALONE)?;
    supervise(&control, |question| {
        Command::new(PROGRAM)
            .args(["helper", "--answer", "--config-dir"])
            .arg(config_dir)
            .stdin(Stdio::from(question))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
    })
    .context("the daemon cannot be heard any more")
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

/// Standard input, which has to be a Unix socket.
fn socket() -> io::Result<StdUnixStream> {
    let stream = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.local_addr()?;
    Ok(stream)
}

/// Has `start` start a process for each question. One that is not answered is closed, which the daemon sees.
pub(super) fn supervise(
    control: &StdUnixStream,
    start: impl Fn(OwnedFd) -> io::Result<Child>,
) -> io::Result<()> {
    let place = Arc::new(());
    while let Some(question) = next(control)? {
        if Arc::strong_count(&place) > AT_A_TIME {
            continue;
        }
        match start(question) {
            Ok(child) => await_end(child, Arc::clone(&place)),
            Err(error) => tracing::warn!(%error, "no process answers the daemon"),
        }
    }
    Ok(())
}

/// The connection of the next question; none when the daemon has ended.
fn next(control: &StdUnixStream) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::io::retry_on_intr(|| {
            let into = &mut [IoSliceMut::new(&mut byte)];
            recvmsg(control, into, &mut attached, RecvFlags::CMSG_CLOEXEC)
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let question = attached.drain().find_map(|message| {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                descriptors.next()
            } else {
                None
            }
        });
        if question.is_some() {
            return Ok(question);
        }
    }
}

/// Takes notice of the process's end, so that it does not stay as a zombie, and gives up its place. Who takes too long
/// is ended, with all that it has started.
fn await_end(child: Child, place: Arc<()>) {
    let child = Arc::new(Mutex::new(child));
    let waited_for = Arc::clone(&child);
    let waiting = std::thread::Builder::new().spawn(move || {
        let mut child = waited_for.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LONGEST / LOOKS),
                Ok(Some(status)) if status.success() => break,
                Ok(Some(status)) => {
                    tracing::warn!(%status, "a process that was to answer the daemon failed");
                    break;
                }
                Err(_) => break,
            }
        }
        end(&mut child);
        drop(place);
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "nobody can wait for the process that answers the daemon; it is ended");
        end(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Ends the process and its group, if it has not ended.
pub(super) fn end(child: &mut Child) {
    // Not after its end was noticed: the number could be another's by then.
    if let Ok(None) = child.try_wait() {
        let group = i32::try_from(child.id()).map(Pid::from_raw);
        if group.is_ok_and(|group| killpg(group, Signal::SIGKILL).is_ok()) || child.kill().is_ok() {
            tracing::warn!("a process that was to answer the daemon took too long, and was ended");
            drop(child.wait());
        }
    }
}

/// Answers the one question that comes over the socket that is standard input.
///
/// # Errors
/// When it is no socket, or no question comes.
pub fn answer_one(config_dir: &Path) -> Result<()> {
    let stream = socket().context(ALONE)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answered = runtime.block_on(async {
        let mut stream = UnixStream::from_std(stream)?;
        answer_over(&mut stream, config_dir).await
    });
    // A look-up that nobody waits for any more is not waited for here either.
    runtime.shutdown_background();
    answered.context("the daemon's question was not answered")
}

async fn answer_over(stream: &mut UnixStream, config_dir: &Path) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading.take(MAX_LINE));
    let mut line = Vec::new();
    reading.read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let request = serde_json::from_slice(&line)?;
    let mut nothing = [0];
    let reply = tokio::select! {
        reply = answer(request, config_dir) => reply,
        // Who asked has given up.
        _ = reading.read(&mut nothing) => return Ok(()),
    };
    let mut reply = serde_json::to_vec(&reply)?;
    reply.push(b'\n');
    writing.write_all(&reply).await
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
                Err(error) => Reply::Failed(in_words(anyhow::Error::from(error))),
            }
        }
        Request::Resolve(name) => match lookup_host(&name).await {
            Ok(addresses) => Reply::Addresses(addresses.collect()),
            Err(error) => Reply::Failed(error.to_string()),
        },
        Request::TellResolver(link) => match resolved::tell(&link).await {
            Ok(told) => Reply::Told(told),
            Err(why) => Reply::Failed(why),
        },
    }
}
