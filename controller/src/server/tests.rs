//! What comes in does not keep the actor from what is due.

use gatereeve_controller_core::output::SessionId;
use gatereeve_runtime::keyfile;
use gatereeve_runtime::notify::{self, Notifier};
use gatereeve_runtime::sandbox::Confinement;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::map::OverlayPrefixes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::recover::recover;
use super::serve::start;
use super::*;
use crate::state_dir::settings::{DEFAULT_V4, Settings};

/// Inputs that wait.
const FLOOD: usize = 64;
const IDLE: SessionId = SessionId(1);
const UNKNOWN: SessionId = SessionId(2);

fn state_dir(root: &std::path::Path) -> StateDir {
    let dir = StateDir::new(root.join("state"));
    dir.create().unwrap();
    keyfile::load_or_create_seed(&dir.network_key()).unwrap();
    keyfile::load_or_create_seed(&dir.tls_key()).unwrap();
    let settings = Settings {
        name: "test".into(),
        advertise: vec!["127.0.0.1:8443".into()],
        prefixes: OverlayPrefixes {
            v4: DEFAULT_V4.parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        },
    };
    settings.save(&dir.settings()).unwrap();
    dir
}

/// Timers close idle sessions, end leases and open and close rules by time: a session that was opened at `since`
/// and says nothing stands for them. What it has been told after one of many inputs that wait.
async fn told_in_a_flood(since: Mono) -> Option<SessionOutput> {
    let root = tempfile::tempdir().unwrap();
    let dir = state_dir(root.path());
    let recovered = recover(&dir, Clock::unix()).unwrap();
    let (mut server, _lock, appended) = start(recovered, dir, Confinement::default()).unwrap();
    let now = Now {
        mono: since,
        unix: Clock::unix(),
    };
    let (outbound, mut told) = mpsc::channel(8);
    server.sessions.insert(IDLE, outbound);
    let key = IdentityKey::from_seed(&[7; 32]).public();
    let from = "192.0.2.1:1".parse().unwrap();
    server.controller.handle_opened(IDLE, key, from, now);

    let (event_sender, events) = mpsc::channel(FLOOD);
    let (_admin_sender, admin) = mpsc::channel(1);
    let (heart, _watch) = notify::pulse(Notifier::new(None, None, None));
    let mut inputs = Inputs {
        admin,
        events,
        appended,
        stop: CancellationToken::new(),
        heart,
    };
    for _ in 0..FLOOD {
        let event = SessionEvent::Closed { session: UNKNOWN };
        event_sender.try_send(event).unwrap();
    }
    assert!(server.turn(&mut inputs).await);
    assert_eq!(inputs.events.len(), FLOOD - 1, "the flood was served first");
    told.try_recv().ok()
}

#[tokio::test]
async fn a_flood_does_not_keep_timers_waiting() {
    let told = told_in_a_flood(Mono(0)).await;
    assert!(matches!(told, Some(SessionOutput::Close(_))), "{told:?}");
    // The control: a session that is not idle for long is told nothing.
    let told = told_in_a_flood(Clock::mono()).await;
    assert!(told.is_none(), "{told:?}");
}
