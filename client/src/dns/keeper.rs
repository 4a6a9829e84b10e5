//! Who keeps telling resolved, as long as there is something to tell.
//!
//! It waits for reasons and looks at nothing in between: something else is wanted, something of ours has gone from the
//! host, or resolved has written its files anew, as it does when it starts or somebody tells it something. (What it is made to
//! forget by `resolvectl revert` it writes into no file that others may watch.) A failure is tried again a few times.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use gatereeve_client_core::api::NamesState;
use gatereeve_runtime::shutdown::Shutdown;

use super::{Link, Told, resolved};
use crate::helper::Helper;

/// Where resolved keeps the files that it writes, once it runs.
const RUN_DIR: &str = "/run/systemd/resolve";
/// Where that folder appears.
const ABOVE: &str = "/run/systemd";
/// Time between something that was seen and a look at it; what comes meanwhile is one with it.
const CALM: Duration = Duration::from_secs(3);
/// Time before the first time that a failure is tried again; each time, four times as long.
const RETRY: Duration = Duration::from_secs(2);
/// How often.
const RETRIES: u32 = 5;

/// The daemon's handle on it.
#[derive(Debug)]
pub struct Keeper {
    wanted: watch::Sender<Option<Link>>,
    state: watch::Receiver<(NamesState, Option<String>)>,
}

impl Keeper {
    /// Begins, with nothing to tell. It ends with `shutdown`.
    #[must_use]
    pub fn start(helper: Option<Arc<Helper>>, shutdown: &Shutdown) -> Self {
        let (wanted, asked) = watch::channel(None);
        let (tell, state) = watch::channel((NamesState::Pending, None));
        let task = Task {
            helper,
            asked,
            tell,
            files: Files::watch(),
        };
        shutdown.spawn(task.run(shutdown.token.clone()));
        Self { wanted, state }
    }

    /// There is an interface that resolved is to know this of; or none.
    pub fn want(&self, link: Option<Link>) {
        // The same once more is news, too: the interface may be another of that name.
        self.wanted.send_modify(|wanted| *wanted = link);
    }

    /// Something may have changed what resolved knows.
    pub fn suspect(&self) {
        self.wanted.send_if_modified(|wanted| wanted.is_some());
    }

    /// How it stands, and why it does not stand better.
    #[must_use]
    pub fn state(&self) -> (NamesState, Option<String>) {
        self.state.borrow().clone()
    }
}

struct Task {
    helper: Option<Arc<Helper>>,
    asked: watch::Receiver<Option<Link>>,
    tell: watch::Sender<(NamesState, Option<String>)>,
    files: Option<Files>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut failures = 0;
        loop {
            let link = self.asked.borrow_and_update().clone();
            let mut retry = None;
            if let Some(link) = &link {
                let state = self.told(link).await;
                let may_pass = matches!(state.0, NamesState::Failed | NamesState::Forbidden);
                if may_pass && failures < RETRIES {
                    retry = Some(RETRY * 4u32.pow(failures));
                    failures += 1;
                } else {
                    failures = 0;
                }
                self.note(state);
            } else {
                self.note((NamesState::Pending, None));
            }
            let again = async {
                match retry {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            let files = &mut self.files;
            let rewritten = async {
                match files {
                    Some(files) if link.is_some() => files.changed().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.asked.changed() => match changed {
                    Ok(()) => failures = 0,
                    Err(_) => return,
                },
                () = again => {}
                () = rewritten => {
                    failures = 0;
                    self.files = Files::watch();
                }
            }
        }
    }

    async fn told(&self, link: &Link) -> (NamesState, Option<String>) {
        let told = match &self.helper {
            Some(helper) => helper
                .tell_resolver(link)
                .await
                .map_err(|error| error.to_string()),
            None => resolved::tell(link).await,
        };
        match told {
            Ok(Told::Done {
                rivals: Some(rivals),
                ..
            }) => (NamesState::Contested, Some(rivals)),
            Ok(Told::Done { is_asked: true, .. }) => (NamesState::InUse, None),
            Ok(Told::Done { .. }) => (NamesState::Bypassed, None),
            Ok(Told::Absent) => (NamesState::Absent, None),
            Ok(Told::Forbidden(why)) => (NamesState::Forbidden, Some(why)),
            Err(why) => (NamesState::Failed, Some(why)),
        }
    }

    fn note(&self, state: (NamesState, Option<String>)) {
        let is_new = self.tell.send_if_modified(|held| {
            let is_new = *held != state;
            *held = state;
            is_new
        });
        let (state, why) = &*self.tell.borrow();
        match state {
            _ if !is_new => {}
            NamesState::Forbidden | NamesState::Failed | NamesState::Contested => {
                tracing::warn!(
                    ?state,
                    why,
                    "systemd-resolved does not ask us alone for names"
                );
            }
            NamesState::Pending => {}
            NamesState::InUse | NamesState::Bypassed | NamesState::Absent | NamesState::Off => {
                tracing::info!(?state, "names of devices");
            }
        }
    }
}

/// A watch over resolved's files.
struct Files {
    events: Inotify,
    readable: AsyncFd<OwnedFd>,
}

impl Files {
    /// None where there is no systemd.
    fn watch() -> Option<Self> {
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        // Its files are replaced; one that was never started has no folder.
        events
            .add_watch(RUN_DIR, AddWatchFlags::IN_MOVED_TO)
            .or_else(|_| events.add_watch(ABOVE, AddWatchFlags::IN_CREATE))
            .ok()?;
        let readable = events.as_fd().try_clone_to_owned().ok()?;
        #[expect(
            unsafe_code,
            reason = "asks that the descriptor stays the same and open until it is dropped"
        )]
        // SAFETY: an `OwnedFd` is one descriptor, open for as long as it lives.
        let readable = unsafe { AsyncFd::register_with_interest(readable, Interest::READABLE) };
        let readable = readable.ok()?;
        Some(Self { events, readable })
    }

    async fn changed(&mut self) {
        let Ok(mut ready) = self.readable.readable().await else {
            return std::future::pending().await;
        };
        tokio::time::sleep(CALM).await;
        // Until there is no more to read.
        while self.events.read_events().is_ok() {}
        ready.clear_ready();
    }
}
