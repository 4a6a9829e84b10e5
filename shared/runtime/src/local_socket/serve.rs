//! The daemon's end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, DirBuilder, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{BODY, BODY_DEADLINE, CONNECTIONS, CONNECTIONS_PER_USER, HEADER_DEADLINE};
use crate::shutdown::Shutdown;

/// Who is at the other end of the socket, by the kernel's word, since the moment of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process; only for logs, as a number may be used again.
    pub pid: Option<i32>,
}

impl Caller {
    /// Whether it is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether it is in this group: by its effective group, or by the system's databases, where it is known there.
    /// These may ask a directory server, and so take a while.
    #[must_use]
    pub fn is_member(&self, group: u32) -> bool {
        self.gid == group || groups_of(self.uid).contains(&Gid::from_raw(group))
    }
}

/// The groups that a user is a member of, by the system's databases; none where they cannot be told.
fn groups_of(uid: u32) -> Vec<Gid> {
    let looked_up = || {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
        let name = CString::new(user.name).ok()?;
        getgrouplist(&name, user.gid).ok()
    };
    looked_up().unwrap_or_default()
}

/// A listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // Only ours: another daemon may have taken the path over.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Listens at `path`, with this mode and group from the first moment on. A socket file that nobody
/// listens behind is replaced; any other file is not. Must be called in a tokio runtime.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] where somebody listens, [`io::ErrorKind::AlreadyExists`] where a
/// file of another kind is in the way, [`io::ErrorKind::NotFound`] for an unknown group, and what
/// the system says.
pub fn bind(path: &Path, mode: u32, group: Option<&str>) -> io::Result<LocalListener> {
    let gid = group.map(gid_of).transpose()?;
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    check_free(path)?;
    // Bound under another name, it cannot be reached before it has its mode.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    let publish = || {
        // Not asked of the kernel without need: a service may be kept from changing owners at all.
        if gid.is_some() {
            std::os::unix::fs::chown(&temporary, None, gid)?;
        }
        fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
        let inode = fs::symlink_metadata(&temporary)?.ino();
        fs::rename(&temporary, path)?;
        Ok(inode)
    };
    match publish() {
        Ok(inode) => Ok(LocalListener {
            listener,
            path: path.to_owned(),
            inode,
        }),
        Err(error) => {
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

fn gid_of(group: &str) -> io::Result<u32> {
    match Group::from_name(group)? {
        Some(group) => Ok(group.gid.as_raw()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group {group:?}"),
        )),
    }
}

/// Whether nothing, or a socket left behind, is at `path`.
fn check_free(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let shown = path.display();
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{shown} exists and is not a socket"),
        ));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another daemon listens on {shown}"),
        )),
    }
}

/// Answers requests until the shutdown: `handler` gets the caller, the path of the URL and the
/// body, and returns a status and a JSON text. Requests at hand are finished.
pub async fn serve<H, F>(listener: LocalListener, shutdown: Shutdown, handler: H)
where
    H: Fn(Caller, String, Vec<u8>) -> F + Send + Sync + 'static,
    F: Future<Output = (u16, Vec<u8>)> + Send + 'static,
{
    let handler = Arc::new(handler);
    let slots = Arc::new(Slots::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.listener.accept() => accepted,
            () = shutdown.token.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Some((caller, slot)) = admit(&stream, &slots) {
                    let connection = connection(stream, caller, Arc::clone(&handler));
                    shutdown.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to let go of some.
                tracing::warn!(%error, "cannot accept on the local socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(stream: &UnixStream, slots: &Arc<Slots>) -> Option<(Caller, Slot)> {
    let credentials = stream.peer_cred().ok()?;
    let caller = Caller {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
    };
    let slot = Slots::take(slots, caller.uid);
    if slot.is_none() {
        tracing::debug!(uid = caller.uid, "too many local connections");
    }
    Some((caller, slot?))
}

async fn connection<H, F>(stream: UnixStream, caller: Caller, handler: Arc<H>)
where
    H: Fn(Caller, String, Vec<u8>) -> F + Send + Sync + 'static,
    F: Future<Output = (u16, Vec<u8>)> + Send + 'static,
{
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(request, caller, handler.as_ref()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(32)
        .max_buf_size(64 * 1024)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, uid = caller.uid, "local connection");
    }
}

async fn answer<H, F>(
    request: Request<Incoming>,
    caller: Caller,
    handler: &H,
) -> Response<Full<Bytes>>
where
    H: Fn(Caller, String, Vec<u8>) -> F,
    F: Future<Output = (u16, Vec<u8>)>,
{
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only POST is served here");
    }
    // No browser has business here, whatever bridge it came over.
    if request.headers().contains_key(ORIGIN) {
        return refuse(
            StatusCode::FORBIDDEN,
            "requests of web pages are not served",
        );
    }
    if request.headers().get(CONTENT_TYPE) != Some(&HeaderValue::from_static("application/json")) {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be application/json",
        );
    }
    let path = request.uri().path().to_owned();
    if usize::try_from(request.body().size_hint().lower()).map_or(true, |length| length > BODY) {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    let Ok(Ok(body)) = timeout(BODY_DEADLINE, body).await else {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large, too slow or cut off",
        );
    };
    let (status, json) = handler(caller, path, body.to_bytes().to_vec()).await;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(status, json)
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    respond(
        status,
        serde_json::json!({ "error": message })
            .to_string()
            .into_bytes(),
    )
}

fn respond(status: StatusCode, json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Connections by user.
#[derive(Debug, Default)]
struct Slots(Mutex<BTreeMap<u32, usize>>);

/// One connection's place, given back when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    uid: u32,
}

impl Slots {
    fn take(slots: &Arc<Self>, uid: u32) -> Option<Slot> {
        let mut by_user = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = by_user.values().sum();
        let own = by_user.get(&uid).copied().unwrap_or(0);
        // Several users may be one person's: root is let in all the same.
        let (all, each) = if uid == 0 {
            (CONNECTIONS.saturating_add(CONNECTIONS_PER_USER), usize::MAX)
        } else {
            (CONNECTIONS, CONNECTIONS_PER_USER)
        };
        if total >= all || own >= each {
            return None;
        }
        by_user.insert(uid, own.saturating_add(1));
        Some(Slot {
            slots: Arc::clone(slots),
            uid,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_user = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        match by_user.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_user.remove(&self.uid);
            }
        }
    }
}
