use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::posture::fact::PostureReport;
use gatereeve_shared::wire::client::{Attach, EndpointUpdate, KeyUpdate};

use super::*;
use crate::daemon::state_dir::save_stored;

fn generation(n: u64) -> Generation {
    Generation {
        n,
        ..Generation::default()
    }
}

/// A place where nothing can be written until it is made.
struct Missing {
    _parent: tempfile::TempDir,
    directory: PathBuf,
    path: PathBuf,
}

impl Missing {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("missing");
        let path = directory.join("state");
        Self {
            _parent: parent,
            directory,
            path,
        }
    }

    fn saver(&self) -> Saver {
        Saver::start(self.path.clone())
    }

    fn make(&self) {
        std::fs::create_dir(&self.directory).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_written() {
    let disk = Missing::new();
    let saver = disk.saver();
    let (link, mut said) = ControlLink::detached();
    let link = Arc::new(link);
    let send = |message| Job::Send(Arc::clone(&link), Box::new(message));
    saver.job(Job::Save(Box::default())).await;
    for n in [1, 2] {
        saver.job(send(ClientMessage::Ack(generation(n)))).await;
    }
    saver.job(send(ClientMessage::Ping(7))).await;
    // Everything else passes, and what is tried again fails again.
    assert_eq!(said.recv().await, Some(ClientMessage::Ping(7)));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(saver.problem().is_some());
    assert_eq!(said.try_recv().ok(), None);

    // The end of another link changes nothing.
    let (other, _) = ControlLink::detached();
    saver.job(Job::Close(Arc::new(other))).await;

    disk.make();
    let newest = ClientMessage::Ack(generation(2));
    assert_eq!(said.recv().await, Some(newest), "the last one says it all");
    assert!(disk.path.exists());
    assert!(saver.problem().is_none());

    saver.job(send(ClientMessage::Ack(generation(3)))).await;
    let next = ClientMessage::Ack(generation(3));
    assert_eq!(said.recv().await, Some(next), "nothing is held any more");
    assert_eq!(said.try_recv().ok(), None, "and none comes twice");
    saver.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_written_is_tried_again_ever_more_seldom() {
    let disk = Missing::new();
    let saver = disk.saver();
    saver.job(Job::Save(Box::default())).await;
    // Tried at 0 and 1 s, and next at 3.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    disk.make();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!disk.path.exists());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(disk.path.exists() && saver.problem().is_none());
    saver.finish().await;
}

/// One of two memories that differ.
fn memory(newer: bool) -> Box<Stored> {
    let mut fields = serde_json::to_value(Stored::default()).unwrap();
    fields["loopback"] = newer.into();
    serde_json::from_value(fields).unwrap()
}

/// What is written of a memory.
fn written(memory: &Stored) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    save_stored(&path, memory).unwrap();
    std::fs::read(path).unwrap()
}

/// Writes `memory` once it is told to, and says whether that was well.
fn stuck(path: PathBuf, memory: Box<Stored>) -> (std::sync::mpsc::Sender<()>, Write) {
    let (sender, go) = std::sync::mpsc::channel();
    let write = tokio::task::spawn_blocking(move || {
        go.recv()?;
        save_stored(&path, &memory)
    });
    (sender, write)
}

/// What is on its way to `path`, while a write is stuck.
fn stuck_memory(path: PathBuf, older: Box<Stored>) -> (std::sync::mpsc::Sender<()>, Memory) {
    let mut memory = Memory::new(path.clone(), watch::channel(None).0);
    let (go, write) = stuck(path, older);
    memory.writes(write);
    (go, memory)
}

#[tokio::test]
async fn an_older_memory_does_not_come_in_the_place_of_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (go, mut work) = stuck_memory(path.clone(), memory(false));
    let newer = memory(true);
    work.save(newer.clone());
    let early = timeout(Duration::from_millis(50), work.written()).await;
    assert!(early.is_err(), "it waits for the older one");
    go.send(()).unwrap();
    work.written().await;
    assert!(work.is_written());
    assert_eq!(std::fs::read(path).unwrap(), written(&newer));
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_is_the_newest() {
    let disk = Missing::new();
    let saver = disk.saver();
    for newer in [false, true] {
        saver.job(Job::Save(memory(newer))).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.make();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(std::fs::read(&disk.path).unwrap(), written(&memory(true)));
    saver.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_new_puts_no_try_off() {
    let disk = Missing::new();
    let saver = disk.saver();
    for _ in 0..20 {
        saver.job(Job::Save(Box::default())).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.make();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(disk.path.exists() && saver.problem().is_none());
    saver.finish().await;
}

/// A disk that does not even say no: everything is said but what rests on it.
#[tokio::test]
async fn a_disk_that_says_nothing_keeps_acknowledgements_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (go, memory) = stuck_memory(path, Box::default());
    let (sending, inbox) = mpsc::channel(QUEUE);
    let (link, mut said) = ControlLink::detached();
    let link = Arc::new(link);
    let send = |message| Job::Send(Arc::clone(&link), Box::new(message));
    #[expect(clippy::disallowed_methods, reason = "ends with the channel")]
    let task = tokio::spawn(run(memory, inbox));
    let jobs = [
        send(ClientMessage::Ack(generation(1))),
        send(ClientMessage::Ping(7)),
        Job::Save(Box::default()),
        send(ClientMessage::Ack(generation(2))),
        send(attach()),
        send(ClientMessage::Ping(8)),
    ];
    for job in jobs {
        sending.send(job).await.unwrap();
    }
    assert_eq!(said.recv().await, Some(ClientMessage::Ping(7)));
    assert_eq!(have(said.recv().await), None);
    assert_eq!(said.recv().await, Some(ClientMessage::Ping(8)));
    assert_eq!(said.try_recv().ok(), None);
    go.send(()).unwrap();
    // One of the memory that was stuck, and one of the next.
    let both = [said.recv().await, said.recv().await];
    let expected = [1, 2].map(|n| Some(ClientMessage::Ack(generation(n))));
    assert_eq!(both, expected);
    drop(sending);
    task.await.unwrap();
}

/// A device that attaches, with a map.
fn attach() -> ClientMessage {
    let secret = WgSecret::from_bytes([1; 32]);
    let (identity, network) = (IdentityKey::from_seed(&[2; 32]), Fingerprint([3; 32]));
    ClientMessage::Attach(Attach {
        keys: KeyUpdate {
            current: KeyBinding::sign(&identity, &network, secret.public(), 1),
            next: None,
        },
        endpoints: EndpointUpdate {
            listen_port: 1,
            endpoints: Vec::new(),
        },
        have: Some(generation(1)),
        report: PostureReport {
            counter: 1,
            facts: Vec::new(),
        },
        software: String::new(),
    })
}

/// What it says that it has.
fn have(message: Option<ClientMessage>) -> Option<Generation> {
    match message {
        Some(ClientMessage::Attach(attach)) => attach.have,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_not_written_is_not_said_to_be_held() {
    let disk = Missing::new();
    let saver = disk.saver();
    let (link, mut said) = ControlLink::detached();
    let link = Arc::new(link);
    saver.job(Job::Save(Box::default())).await;
    saver
        .job(Job::Send(Arc::clone(&link), Box::new(attach())))
        .await;
    assert_eq!(have(said.recv().await), None);
    disk.make();
    saver.job(Job::Save(Box::default())).await;
    saver.job(Job::Send(link, Box::new(attach()))).await;
    assert_eq!(have(said.recv().await), Some(generation(1)), "control");
    saver.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_goes_with_its_link_and_a_memory_gets_a_last_chance() {
    let disk = Missing::new();
    let saver = disk.saver();
    let (link, mut said) = ControlLink::detached();
    let link = Arc::new(link);
    saver.job(Job::Save(Box::default())).await;
    let acknowledgement = Box::new(ClientMessage::Ack(generation(1)));
    saver
        .job(Job::Send(Arc::clone(&link), acknowledgement))
        .await;
    saver.job(Job::Close(link)).await;
    assert_eq!(said.recv().await, None, "the link is let go of");
    disk.make();
    saver.finish().await;
    assert!(disk.path.exists());
}
