//! A controller with its journal, its tables and its clients, all in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
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
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, TagName, UserName};
use gatereeve_shared::invite::Invite;
use gatereeve_shared::posture::fact::{Fact, FactValue, PostureReport};
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::client::{
    Attach, ClientHello, ClientMessage, EndpointUpdate, Enroll, KeyUpdate,
};
use gatereeve_shared::wire::controller::{
    ControllerMessage, EnrollReply, Refusal, RefusalCode, Standing,
};
use gatereeve_shared::wire::map::{PeerEntry, SelfEntry};

/// What a client holds.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) generation: Generation,
    pub(crate) this: SelfEntry,
    pub(crate) peers: BTreeMap<DeviceId, PeerEntry>,
}

/// A client that does what it is told, and nothing by itself but confirm.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) key: IdentityKey,
    pub(crate) session: Option<SessionId>,
    pub(crate) keys: KeyUpdate,
    pub(crate) map: Option<Map>,
    pub(crate) standing: Option<Standing>,
    pub(crate) enrolled: Option<EnrollReply>,
    pub(crate) posture: Vec<CheckOutcome>,
    pub(crate) refused: Vec<Refusal>,
    pub(crate) closed: Option<Option<Refusal>>,
    /// Everything it was sent in this session.
    pub(crate) inbox: Vec<ControllerMessage>,
    /// Whether it confirms what it enforces.
    pub(crate) confirms: bool,
    pub(crate) report: u64,
}

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

    fn number(&mut self) -> u64 {
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

    // Clients.

    pub(crate) fn client(&mut self, name: &'static str) -> &mut Client {
        self.clients.get_mut(name).expect("a client of this name")
    }

    pub(crate) fn id(&self, name: &str) -> DeviceId {
        self.clients[name].key.public().device_id()
    }

    /// A client with keys of its own, not connected.
    pub(crate) fn add(&mut self, name: &'static str) {
        let n = u8::try_from(self.clients.len() + 1).unwrap();
        let key = IdentityKey::from_seed(&[n; 32]);
        let binding = self.binding(&key, n, 1);
        self.clients.insert(
            name,
            Client {
                key,
                session: None,
                keys: KeyUpdate {
                    current: binding,
                    next: None,
                },
                map: None,
                standing: None,
                enrolled: None,
                posture: Vec::new(),
                refused: Vec::new(),
                closed: None,
                inbox: Vec::new(),
                confirms: true,
                report: 0,
            },
        );
    }

    pub(crate) fn binding(&self, key: &IdentityKey, wg: u8, counter: u64) -> KeyBinding {
        let wg_key = WgSecret::from_bytes([wg; 32]).public();
        KeyBinding::sign(key, &self.network, wg_key, counter)
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let n = self.clients[name].key.public().as_bytes()[0];
        SocketAddr::from(([192, 0, 2, n.max(1)], 40_000))
    }

    /// Connects and says hello.
    pub(crate) fn connect(&mut self, name: &'static str) {
        let from = self.address(name);
        self.connect_from(name, from);
    }

    pub(crate) fn connect_from(&mut self, name: &'static str, from: SocketAddr) {
        self.disconnect(name);
        let session = SessionId(self.number());
        let client = self.client(name);
        client.session = Some(session);
        client.closed = None;
        client.inbox.clear();
        client.refused.clear();
        let key = client.key.public();
        self.controller.handle_opened(session, key, from, self.now);
        self.drain();
        self.say(
            name,
            ClientMessage::Hello(ClientHello {
                min_minor: 1,
                max_minor: 1,
            }),
        );
    }

    pub(crate) fn disconnect(&mut self, name: &'static str) {
        if let Some(session) = self.client(name).session.take() {
            self.controller.handle_closed(session, self.now);
            self.drain();
        }
    }

    pub(crate) fn say(&mut self, name: &'static str, message: ClientMessage) {
        if let Some(session) = self.client(name).session {
            self.controller.handle_message(session, message, self.now);
            self.drain();
            self.confirm();
        }
    }

    /// Clients confirm what they enforce.
    pub(crate) fn confirm(&mut self) {
        let acks: Vec<_> = self
            .clients
            .values()
            .filter(|client| client.confirms)
            .filter(|client| {
                let mut inbox = client.inbox.iter();
                inbox.any(|message| matches!(message, ControllerMessage::Map(_)))
            })
            .filter_map(|client| Some((client.session?, client.map.as_ref()?.generation)))
            .collect();
        for (session, generation) in acks {
            self.controller
                .handle_message(session, ClientMessage::Ack(generation), self.now);
        }
        self.drain();
    }

    pub(crate) fn enroll(&mut self, name: &'static str, invite: Option<&Invite>) -> EnrollReply {
        let binding = self.client(name).keys.current.clone();
        let enroll = Enroll {
            invite: invite.map(|invite| (invite.id, invite.secret.clone())),
            name: name.into(),
            binding,
        };
        self.client(name).enrolled = None;
        self.say(name, ClientMessage::Enroll(enroll));
        self.client(name).enrolled.clone().expect("an answer")
    }

    pub(crate) fn attach(&mut self, name: &'static str) {
        let have = self.client(name).map.as_ref().map(|map| map.generation);
        self.attach_with(name, have, vec![]);
    }

    pub(crate) fn attach_with(
        &mut self,
        name: &'static str,
        have: Option<Generation>,
        facts: Vec<Fact>,
    ) {
        let endpoint = SocketAddr::new(self.address(name).ip(), 51820);
        let client = self.client(name);
        client.report = 1;
        let attach = Attach {
            keys: client.keys.clone(),
            endpoints: EndpointUpdate {
                listen_port: 51820,
                endpoints: vec![endpoint],
            },
            have,
            report: PostureReport { counter: 1, facts },
            software: "test".into(),
        };
        self.say(name, ClientMessage::Attach(attach));
    }

    /// Makes a client that has joined by an invite and holds its map.
    pub(crate) fn join(&mut self, name: &'static str, tags: &[&str], user: Option<&str>) {
        self.add(name);
        let invite = self.invite(tags, user, 1);
        self.connect(name);
        let reply = self.enroll(name, Some(&invite));
        assert_eq!(reply, EnrollReply::Done(Standing::Approved), "{name}");
        self.attach(name);
        assert!(self.client(name).map.is_some());
    }

    pub(crate) fn reconnect(&mut self, name: &'static str) {
        self.connect(name);
        self.attach(name);
    }

    pub(crate) fn report(&mut self, name: &'static str, facts: Vec<Fact>) {
        let client = self.client(name);
        client.report += 1;
        let report = PostureReport {
            counter: client.report,
            facts,
        };
        self.say(name, ClientMessage::Report(report));
    }

    /// The names in a client's map.
    pub(crate) fn peers(&self, name: &str) -> Vec<String> {
        let map = self.clients[name].map.as_ref().expect("a map");
        let mut names: Vec<_> = map.peers.values().map(|p| p.name.to_string()).collect();
        names.sort();
        names
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

impl Client {
    fn take(&mut self, message: ControllerMessage) {
        match &message {
            ControllerMessage::Hello(hello) => self.standing = Some(hello.standing),
            ControllerMessage::Standing(standing) => self.standing = Some(*standing),
            ControllerMessage::Enrolled(reply) => self.enrolled = Some(reply.clone()),
            ControllerMessage::Posture(outcomes) => self.posture.clone_from(outcomes),
            ControllerMessage::Refused(refusal) => self.refused.push(refusal.clone()),
            ControllerMessage::Map(update) => {
                if update.from.is_none() {
                    // Parts of a whole map: the tests' maps come in one.
                    let this = update.this.clone().expect("a whole map has the device");
                    self.map = Some(Map {
                        generation: update.to,
                        this,
                        peers: BTreeMap::new(),
                    });
                }
                let map = self.map.as_mut().expect("a delta follows a map");
                if let Some(from) = update.from {
                    assert_eq!(map.generation, from, "a delta from what is held");
                    assert!(from < update.to, "a delta leads on");
                }
                if let Some(this) = &update.this {
                    map.this = this.clone();
                }
                map.peers.retain(|peer, _| !update.removed.contains(peer));
                for peer in &update.upserted {
                    map.peers.insert(peer.device, peer.clone());
                }
                map.generation = update.to;
            }
            ControllerMessage::Renew(renewal) => {
                let map = self.map.as_mut().expect("a renewal of a map");
                assert_eq!(map.generation, renewal.generation);
                for peer in &renewal.peers {
                    let entry = map.peers.get_mut(&peer.device).expect("of a peer held");
                    for (rules, ends) in [
                        (&mut entry.ingress, &peer.ingress),
                        (&mut entry.egress, &peer.egress),
                    ] {
                        for (rule, end) in ends {
                            let held = rules.iter_mut().find(|held| held.rule == *rule);
                            let held = held.expect("of a rule held");
                            held.lease = held.lease.renewed(*end);
                        }
                    }
                }
            }
            ControllerMessage::Endpoints(peers) => {
                let map = self.map.as_mut().expect("endpoints of peers");
                for peer in peers {
                    let entry = map.peers.get_mut(&peer.device);
                    entry.expect("only of peers held").endpoints = peer.endpoints.clone();
                }
            }
            ControllerMessage::Why(_) | ControllerMessage::Pong(_) => {}
        }
        self.inbox.push(message);
    }

    pub(crate) fn refusal(&self) -> Option<RefusalCode> {
        self.refused.last().map(|refusal| refusal.code)
    }

    pub(crate) fn closed_with(&self) -> Option<RefusalCode> {
        Some(self.closed.as_ref()?.as_ref()?.code)
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
