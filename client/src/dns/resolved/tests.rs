//! A resolved of its own making behind a socket, which notes what it is told; and what is read of the host's files.

#![expect(
    clippy::disallowed_types,
    reason = "the hash tables are those of zbus's attribute"
)]

use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use zbus::{Guid, ObjectPath, interface};

use super::*;

const INDEX: i32 = 7;
/// Told, and nobody else has our domain.
const NOBODY: Option<Vec<String>> = Some(Vec::new());

/// What it was told, in order, and what it has.
#[derive(Debug, Default)]
struct Knowledge {
    calls: Vec<&'static str>,
    servers: Vec<Server>,
    domains: Vec<(String, bool)>,
    /// Domains of other interfaces.
    others: Vec<(i32, String, bool)>,
    is_default: bool,
    /// Modes, in the order of [`OFF`].
    modes: [String; 4],
    /// Times that the interface is not known yet.
    late: u32,
    forbids: bool,
    /// Whether it is of the time before DNS over TLS.
    is_old: bool,
}

type Shared = Arc<Mutex<Knowledge>>;

struct Bus {
    has_resolved: bool,
}

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> String {
        ":1.1".into()
    }

    fn name_has_owner(&self, name: &str) -> bool {
        self.has_resolved && name == NAME
    }
}

struct Manager(Shared);

impl Manager {
    fn told(&self, call: &'static str, change: impl FnOnce(&mut Knowledge)) -> fdo::Result<()> {
        let mut knowledge = self.0.lock().unwrap();
        if knowledge.forbids {
            return Err(fdo::Error::InteractiveAuthorizationRequired("no".into()));
        }
        knowledge.calls.push(call);
        change(&mut knowledge);
        Ok(())
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.resolve1")]
enum NotYet {
    #[zbus(error)]
    ZBus(Error),
    NoSuchLink(String),
}

#[interface(name = "org.freedesktop.resolve1.Manager")]
impl Manager {
    fn get_link(&self, index: i32) -> std::result::Result<OwnedObjectPath, NotYet> {
        let mut knowledge = self.0.lock().unwrap();
        if index != INDEX || knowledge.late > 0 {
            knowledge.late = knowledge.late.saturating_sub(1);
            return Err(NotYet::NoSuchLink("not yet".into()));
        }
        Ok(ObjectPath::try_from("/link/_7")?.into())
    }

    #[zbus(property)]
    fn domains(&self) -> Vec<(i32, String, bool)> {
        let knowledge = self.0.lock().unwrap();
        let own = knowledge.domains.iter();
        let own = own.map(|(domain, only)| (INDEX, domain.clone(), *only));
        own.chain(knowledge.others.iter().cloned()).collect()
    }

    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, _index: i32, servers: Vec<Server>) -> fdo::Result<()> {
        self.told("DNS", |knowledge| knowledge.servers = servers)
    }

    fn set_link_domains(&self, _index: i32, domains: Vec<(String, bool)>) -> fdo::Result<()> {
        self.told("Domains", |knowledge| knowledge.domains = domains)
    }

    fn set_link_default_route(&self, _index: i32, is_default: bool) -> fdo::Result<()> {
        self.told("DefaultRoute", |knowledge| {
            knowledge.is_default = is_default;
        })
    }

    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, _index: i32, mode: String) -> fdo::Result<()> {
        self.told("LLMNR", |knowledge| knowledge.modes[0] = mode)
    }

    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_mdns(&self, _index: i32, mode: String) -> fdo::Result<()> {
        self.told("MulticastDNS", |knowledge| knowledge.modes[1] = mode)
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_tls(&self, _index: i32, mode: String) -> fdo::Result<()> {
        if self.0.lock().unwrap().is_old {
            return Err(fdo::Error::UnknownMethod("which?".into()));
        }
        self.told("DNSOverTLS", |knowledge| knowledge.modes[2] = mode)
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, _index: i32, mode: String) -> fdo::Result<()> {
        self.told("DNSSEC", |knowledge| knowledge.modes[3] = mode)
    }
}

struct LinkObject(Shared);

#[interface(name = "org.freedesktop.resolve1.Link")]
impl LinkObject {
    #[zbus(property, name = "DNS")]
    fn dns(&self) -> Vec<Server> {
        self.0.lock().unwrap().servers.clone()
    }

    #[zbus(property)]
    fn domains(&self) -> Vec<(String, bool)> {
        // In an order of its own.
        self.0
            .lock()
            .unwrap()
            .domains
            .iter()
            .rev()
            .cloned()
            .collect()
    }

    #[zbus(property)]
    fn default_route(&self) -> bool {
        self.0.lock().unwrap().is_default
    }

    #[zbus(property, name = "LLMNR")]
    fn llmnr(&self) -> String {
        self.0.lock().unwrap().modes[0].clone()
    }

    #[zbus(property, name = "MulticastDNS")]
    fn mdns(&self) -> String {
        self.0.lock().unwrap().modes[1].clone()
    }

    #[zbus(property, name = "DNSOverTLS")]
    fn tls(&self) -> fdo::Result<String> {
        let knowledge = self.0.lock().unwrap();
        if knowledge.is_old {
            return Err(fdo::Error::UnknownProperty("which?".into()));
        }
        Ok(knowledge.modes[2].clone())
    }

    #[zbus(property, name = "DNSSEC")]
    fn dnssec(&self) -> String {
        self.0.lock().unwrap().modes[3].clone()
    }
}

/// A bus that is spoken to at an address, until it is dropped.
struct Running {
    address: String,
    shared: Shared,
    _directory: tempfile::TempDir,
    _stop: DropGuard,
}

impl Running {
    fn start(has_resolved: bool, knowledge: Knowledge) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let shared: Shared = Arc::new(Mutex::new(knowledge));
        let stop = CancellationToken::new();
        let (held, stopped) = (Arc::clone(&shared), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the guard")]
        tokio::spawn(async move {
            let mut connections = Vec::new();
            loop {
                let stream = tokio::select! {
                    stream = listener.accept() => stream.unwrap().0,
                    () = stopped.cancelled() => return,
                };
                let connection = Builder::unix_stream(stream.into_std().unwrap())
                    .server(Guid::generate())
                    .p2p()
                    .serve_at("/org/freedesktop/DBus", Bus { has_resolved })
                    .serve_at(PATH, Manager(Arc::clone(&held)))
                    .serve_at("/link/_7", LinkObject(Arc::clone(&held)))
                    .build();
                connections.push(connection.await.unwrap());
            }
        });
        Self {
            address: format!("unix:path={}", path.display()),
            shared,
            _directory: directory,
            _stop: stop.drop_guard(),
        }
    }

    async fn tell(&self, link: &Link) -> Result<Option<Vec<String>>> {
        tell_bus(&self.address, INDEX, link).await
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.shared.lock().unwrap().calls)
    }
}

fn fresh() -> Knowledge {
    Knowledge {
        is_default: true,
        modes: ["yes", "yes", "no", "allow-downgrade"].map(str::to_owned),
        ..Knowledge::default()
    }
}

fn link() -> Link {
    Link {
        interface: "gatereeve0".into(),
        servers: vec!["100.64.0.0".parse().unwrap(), "fd00::".parse().unwrap()],
        domain: "acme.internal".into(),
        search: false,
        reverse: vec!["64.100.in-addr.arpa".into()],
    }
}

#[tokio::test]
async fn it_is_told_once_and_again_what_it_forgot() {
    let bus = Running::start(true, fresh());
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    // No name of others is asked for at us at any time between, and what was off already is not switched off.
    let calls = [
        "DefaultRoute",
        "LLMNR",
        "MulticastDNS",
        "DNSSEC",
        "Domains",
        "DNS",
    ];
    assert_eq!(bus.calls(), calls);
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    assert!(bus.calls().is_empty(), "it knew");
    let least = ["DefaultRoute", "Domains", "DNS"];
    for forget in [
        |knowledge: &mut Knowledge| knowledge.servers.clear(),
        |knowledge: &mut Knowledge| knowledge.domains.clear(),
        |knowledge: &mut Knowledge| knowledge.is_default = true,
    ] {
        forget(&mut bus.shared.lock().unwrap());
        assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
        assert_eq!(bus.calls(), least);
    }
    bus.shared.lock().unwrap().modes[1] = "resolve".into();
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    assert_eq!(
        bus.calls(),
        ["DefaultRoute", "MulticastDNS", "Domains", "DNS"]
    );
    let search = Link {
        search: true,
        ..link()
    };
    assert_eq!(bus.tell(&search).await.unwrap(), NOBODY);
    assert_eq!(bus.calls(), least);
}

#[tokio::test]
async fn who_else_is_asked_for_our_names_is_said() {
    let bus = Running::start(true, fresh());
    let domain = |name: &str| (1_000_000, name.to_owned(), false);
    bus.shared.lock().unwrap().others = ["example.com", "internal", "xacme.internal"]
        .map(domain)
        .to_vec();
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    bus.shared.lock().unwrap().others =
        ["ACME.internal.", "web.acme.internal"].map(domain).to_vec();
    let rivals = bus.tell(&link()).await.unwrap().unwrap();
    assert_eq!(rivals.len(), 2);
    assert!(
        rivals[1].ends_with("has the domain web.acme.internal"),
        "{rivals:?}"
    );
    // The loopback interface is 1 everywhere.
    let named = super::rivals(&[(1, "acme.internal".into(), true)], INDEX, "acme.internal");
    assert_eq!(named, ["lo has the domain acme.internal"]);
}

#[tokio::test]
async fn one_that_does_not_run_is_told_nothing() {
    let bus = Running::start(false, fresh());
    assert_eq!(bus.tell(&link()).await.unwrap(), None);
    assert!(bus.calls().is_empty());
}

#[tokio::test]
async fn what_is_forbidden_is_said_to_be() {
    let bus = Running::start(
        true,
        Knowledge {
            forbids: true,
            ..fresh()
        },
    );
    let error = bus.tell(&link()).await.unwrap_err();
    assert_eq!(forbidden(&error), Some("no"));
    // It is not all that can go wrong.
    let other = Error::FDO(Box::new(fdo::Error::NoReply("late".into())));
    assert_eq!(forbidden(&other), None);
}

#[tokio::test]
async fn an_old_one_and_a_slow_one_are_told_what_they_can_take() {
    let bus = Running::start(
        true,
        Knowledge {
            is_old: true,
            late: 2,
            ..fresh()
        },
    );
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    let calls = bus.calls();
    assert!(calls.ends_with(&["Domains", "DNS"]), "{calls:?}");
    assert!(!calls.contains(&"DNSOverTLS"));
    assert_eq!(bus.tell(&link()).await.unwrap(), NOBODY);
    assert!(bus.calls().is_empty(), "it knew");
}

#[test]
fn who_asks_resolved_is_seen() {
    let files = "passwd: files\nhosts:  files dns\n";
    assert!(asks_resolved(
        "nameserver 127.0.0.53\noptions edns0\n",
        files
    ));
    assert!(asks_resolved("# x\n nameserver\t127.0.0.54 \n", files));
    assert!(asks_resolved(
        "nameserver 192.0.2.1",
        "hosts: mymachines resolve [!UNAVAIL=return] files"
    ));
    assert!(!asks_resolved(
        "nameserver 192.0.2.1\n#nameserver 127.0.0.53",
        files
    ));
    assert!(!asks_resolved(
        "nameserver 192.0.2.1\nnameserver 127.0.0.53",
        "hosts: files dns [!UNAVAIL=return] resolve"
    ));
    assert!(!asks_resolved("", ""));
}

#[test]
fn only_our_own_domains_are_asked_for_here() {
    let link = Link {
        interface: "gatereeve0".into(),
        servers: vec!["100.64.0.0".parse().unwrap(), "fd00::".parse().unwrap()],
        domain: "acme.internal".into(),
        search: false,
        reverse: vec!["64.100.in-addr.arpa".into()],
    };
    let routed = |name: &str| (name.to_owned(), true);
    assert_eq!(
        domains_of(&link),
        [routed("acme.internal"), routed("64.100.in-addr.arpa")]
    );
    assert_eq!(servers_of(&link)[0], (2, vec![100, 64, 0, 0]));
    assert_eq!(servers_of(&link)[1].0, 10);
    let search = Link {
        search: true,
        ..link
    };
    assert_eq!(domains_of(&search)[0], ("acme.internal".to_owned(), false));
}
