//! The clients of a [`World`]: what each holds, and what it says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gatereeve_controller_core::output::SessionId;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::invite::Invite;
use gatereeve_shared::posture::fact::{Fact, PostureReport};
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::wire::client::{
    Attach, ClientHello, ClientMessage, EndpointUpdate, Enroll, KeyUpdate,
};
use gatereeve_shared::wire::controller::{
    ControllerMessage, EnrollReply, Refusal, RefusalCode, Standing,
};
use gatereeve_shared::wire::map::{PeerEntry, SelfEntry};

use crate::harness::World;

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

impl World {
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
}

impl Client {
    pub(crate) fn take(&mut self, message: ControllerMessage) {
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
