//! A controller with its journal and its tables, all in memory, and time; [`clients`](crate::clients) are its clients.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gatereeve_controller_core::audit::chain::{EncodedRecord, GENESIS};
use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::command::{
    Command, CommandError, Committed, DeviceView, Reply, Request,
};
use gatereeve_controller_core::controller::{Controller, ControllerConfig};
use gatereeve_controller_core::output::{Output, RequestId, SessionId};
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::soft::SoftState;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::ids::{TagName, UserName};
use gatereeve_shared::invite::Invite;
use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::controller::ControllerMessage;

use crate::clients::Client;

/// Everything.
pub(crate) struct World {
    pub(crate) controller: Controller,
    pub(crate) now: Now,
    pub(crate) network: Fingerprint,
    pub(crate) journal: Vec<EncodedRecord>,
    pub(crate) tables: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) soft: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) clients: BTreeMap<&'static str, Client>,
    pub(crate) replies: BTreeMap<RequestId, Result<Reply, CommandError>>,
    /// Who was sent map updates, in order.
    pub(crate) updated: Vec<&'static str>,
    /// While set, appends wait in `queue`.
    pub(crate) hold: bool,
    pub(crate) queue: VecDeque<(u64, Vec<EncodedRecord>)>,
    /// While set, the disk is full.
    pub(crate) refuse: bool,
    /// Connections closed that no client had.
    pub(crate) closed_strangers: usize,
    next: u64,
    /// The fold of the journal so far.
    replayed: State,
}

pub(crate) fn config() -> ControllerConfig {
    ControllerConfig {
        network_name: "test".into(),
        prefixes: gatereeve_shared::wire::map::OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00:1:2::/48".parse().unwrap(),
        },
        advertised: vec!["controller.example.com:8443".into()],
        version: "0".into(),
    }
}

fn network_key() -> IdentityKey {
    IdentityKey::from_seed(&[200; 32])
}

fn controller(state: State, soft: SoftState, now: Now) -> Controller {
    let tls = IdentityKey::from_seed(&[201; 32]).public();
    Controller::new(config(), network_key(), tls, state, soft, [7; 32], now)
}

pub(crate) fn admin() -> Actor {
    Actor::Local {
        uid: 0,
        user: "root".into(),
    }
}

pub(crate) fn tag(name: &str) -> TagName {
    TagName::new(name).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Now {
            mono: Mono(1_000_000_000_000),
            unix: UnixMillis(1_795_305_600_000),
        };
        Self {
            controller: controller(State::empty(), SoftState::default(), now),
            now,
            network: Fingerprint::of(&network_key().public()),
            journal: Vec::new(),
            tables: BTreeMap::new(),
            soft: BTreeMap::new(),
            checkpoints: Vec::new(),
            clients: BTreeMap::new(),
            replies: BTreeMap::new(),
            updated: Vec::new(),
            hold: false,
            queue: VecDeque::new(),
            refuse: false,
            closed_strangers: 0,
            next: 0,
            replayed: State::empty(),
        }
    }

    /// With devices `web` (tag:web), `db` (tag:db), `laptop` (alice) and `other` (tag:other), all
    /// connected, and the policy.
    pub(crate) fn standard(policy: &str) -> Self {
        let mut world = Self::new();
        for (name, tags, user) in [
            ("web", &["web"][..], None),
            ("db", &["db"], None),
            ("laptop", &[], Some("alice@example.com")),
            ("other", &["other"], None),
        ] {
            world.join(name, tags, user);
        }
        world.apply(policy);
        world
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // Outputs.

    /// Carries out all outputs, and checks what always holds.
    pub(crate) fn drain(&mut self) {
        loop {
            let mut appends = Vec::new();
            while let Some(output) = self.controller.poll_output() {
                match output {
                    Output::Append { ticket, records } => appends.push((ticket, records)),
                    other => self.carry_out(other),
                }
            }
            self.queue.extend(appends);
            if self.hold {
                break;
            }
            match self.queue.pop_front() {
                Some((ticket, records)) => self.append(ticket, records),
                None => break,
            }
        }
        assert_eq!(self.controller.state(), &self.replayed);
    }

    fn append(&mut self, ticket: u64, records: Vec<EncodedRecord>) {
        let result = if self.refuse {
            Err("no space left on device".to_owned())
        } else {
            self.write(records)
        };
        self.controller.handle_appended(ticket, result, self.now);
    }

    /// As a journal does: what does not follow its head is refused.
    fn write(&mut self, records: Vec<EncodedRecord>) -> Result<(), String> {
        for record in records {
            let (generation, hash) = self
                .journal
                .last()
                .map_or((Generation::default(), GENESIS), |last| {
                    (last.generation, last.hash)
                });
            let decoded = record
                .follow(generation, &hash)
                .map_err(|error| error.to_string())?;
            self.replayed.apply(&decoded, record.hash);
            self.journal.push(record);
        }
        Ok(())
    }

    /// Answers a held append out of turn, as a full queue does.
    pub(crate) fn refuse_at(&mut self, at: usize) {
        let (ticket, _) = self.queue.remove(at).expect("a held append");
        let result = Err("the queue is full".to_owned());
        self.controller.handle_appended(ticket, result, self.now);
        self.drain();
    }

    /// Lets one held append through.
    pub(crate) fn release(&mut self) {
        if let Some((ticket, records)) = self.queue.pop_front() {
            self.append(ticket, records);
        }
        self.drain();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Append { .. } => {}
            Output::Tables(writes) => write_rows(&mut self.tables, writes),
            Output::Soft(writes) => write_rows(&mut self.soft, writes),
            Output::Checkpoint(checkpoint) => self.checkpoints.push(checkpoint),
            Output::Send { session, message } => self.deliver(session, message),
            Output::Close { session, refusal } => {
                if let Some(client) = self.by_session(session) {
                    client.session = None;
                    client.closed = Some(refusal);
                } else {
                    self.closed_strangers += 1;
                }
            }
            Output::Reply { request, result } => {
                assert!(self.replies.insert(request, result).is_none(), "one reply");
            }
        }
    }

    fn by_session(&mut self, session: SessionId) -> Option<&mut Client> {
        self.clients
            .values_mut()
            .find(|client| client.session == Some(session))
    }

    fn deliver(&mut self, session: SessionId, message: ControllerMessage) {
        message.to_frame().expect("fits a frame");
        if let ControllerMessage::Map(update) = &message
            && !update.more
        {
            let mut clients = self.clients.iter();
            let name = clients.find(|(_, client)| client.session == Some(session));
            self.updated.extend(name.map(|(name, _)| *name));
        }
        if let Some(client) = self.by_session(session) {
            client.take(message);
        }
    }

    /// A replay gives the state that is in force, and the tables are that state.
    pub(crate) fn check(&self) {
        let replayed = replay(&self.journal);
        assert_eq!(self.controller.state(), &replayed);
        if !self.journal.is_empty() {
            let rows: BTreeMap<_, _> = replayed.to_tables().into_iter().collect();
            assert_eq!(self.tables, rows);
            assert_eq!(State::from_tables(&self.tables).unwrap(), replayed);
        }
    }

    // Time.

    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now.mono.saturating_add(duration);
        let mut steps = 0;
        while let Some(due) = self.controller.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.after(due.since(self.now.mono));
            self.controller.handle_timeout(self.now);
            self.drain();
            steps += 1;
            assert!(steps < 100_000, "timers that never rest");
        }
        self.now = self.now.after(end.since(self.now.mono));
    }

    // Commands.

    pub(crate) fn ask(&mut self, command: Command) -> Result<Reply, CommandError> {
        let request = self.start(command, None);
        self.replies.remove(&request).expect("an answer")
    }

    pub(crate) fn start(&mut self, command: Command, wait_ms: Option<u64>) -> RequestId {
        let request = RequestId(self.number());
        let asked = Request { command, wait_ms };
        self.controller
            .handle_command(request, &admin(), asked, self.now);
        self.drain();
        request
    }

    pub(crate) fn commit(&mut self, command: Command) -> Committed {
        match self.ask(command) {
            Ok(Reply::Committed(committed)) => committed,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn apply(&mut self, text: &str) -> Committed {
        self.commit(Command::PolicyApply {
            text: text.into(),
            if_generation: None,
        })
    }

    pub(crate) fn revoke(&mut self, device: &str) -> Committed {
        self.commit(Command::DeviceRevoke {
            device: device.into(),
            reason: None,
        })
    }

    pub(crate) fn devices(&mut self) -> Vec<DeviceView> {
        match self.ask(Command::DeviceList) {
            Ok(Reply::Devices { devices }) => devices,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn invite_with(&mut self, command: Command) -> Invite {
        match self.ask(command) {
            Ok(Reply::Invite { invite, .. }) => invite.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn invite(&mut self, tags: &[&str], user: Option<&str>, uses: u32) -> Invite {
        self.invite_with(Command::InviteCreate {
            tags: tags.iter().map(|name| tag(name)).collect(),
            user: user.map(|user| UserName::new(user).unwrap()),
            uses,
            expires_secs: 3600,
            ephemeral: false,
            approve: false,
        })
    }

    /// Stops the controller and starts another on what is on disk.
    pub(crate) fn restart(&mut self) {
        for client in self.clients.values_mut() {
            client.session = None;
        }
        self.queue.clear();
        let state = State::from_tables(&self.tables).unwrap();
        let soft = SoftState::from_rows(&self.soft);
        self.controller = controller(state, soft, self.now);
        self.drain();
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.journal.iter().map(|r| r.decode().unwrap()).collect()
    }

    /// How many records have this action.
    pub(crate) fn count(&self, action: &str) -> usize {
        let records = self.records();
        records.iter().filter(|r| r.audit.action == action).count()
    }
}

pub(crate) fn replay(journal: &[EncodedRecord]) -> State {
    let mut state = State::empty();
    for record in journal {
        let decoded = record.follow(state.generation(), &state.head()).unwrap();
        state.apply(&decoded, record.hash);
    }
    state
}

fn write_rows(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
}

pub(crate) fn encrypted(value: bool) -> Vec<Fact> {
    vec![Fact::new(
        "disk_encrypted",
        &FactValue::Bool(value),
        "test",
        0,
    )]
}

pub(crate) const WEB_TO_DB: &str = r#"version = 1
[tags."tag:web"]
[tags."tag:db"]
[tags."tag:other"]
[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]
"#;

pub(crate) const LAPTOP_TOO: &str = r#"version = 1
[tags."tag:web"]
[tags."tag:db"]
[tags."tag:other"]
[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]
[[allow]]
id = "alice-to-web"
from = ["alice@example.com"]
to = ["tag:web"]
ports = ["tcp:22"]
"#;

pub(crate) const POSTURE: &str = r#"version = 1
[tags."tag:web"]
[tags."tag:db"]
[tags."tag:other"]
[posture.workstation]
disk_encrypted = true
max_age = "60s"
[[allow]]
id = "alice-to-web"
from = ["alice@example.com"]
to = ["tag:web"]
ports = ["tcp:22"]
posture = ["workstation"]
[[allow]]
id = "alice-to-db"
from = ["alice@example.com"]
to = ["tag:db"]
ports = ["tcp:5432"]
"#;
