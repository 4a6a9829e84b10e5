//! Need to know: what a device is told of others.

use std::time::Duration;

use gatereeve_controller_core::command::Command;
use gatereeve_shared::text;
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate};
use gatereeve_shared::wire::controller::ControllerMessage;

use crate::clients::Client;
use crate::harness::{LAPTOP_TOO, WEB_TO_DB, World, tag};

/// Whether anything a client was sent speaks of another: name, ID, key, address or endpoint.
fn mentions(inbox: &[ControllerMessage], world: &World, other: &str) -> bool {
    let device = &world.controller.state().devices()[&world.id(other)];
    let wg = device.keys.current.wg_key;
    let words = [
        device.id.0.to_vec(),
        device.identity.as_bytes().to_vec(),
        wg.0.to_vec(),
        device.addresses.v4.octets().to_vec(),
        device.addresses.v6.octets().to_vec(),
        // As bincode writes a string: its length, then its bytes.
        [&[u8::try_from(other.len()).unwrap()][..], other.as_bytes()].concat(),
    ];
    let frames: Vec<Vec<u8>> = inbox.iter().map(|m| m.to_frame().unwrap()).collect();
    let in_bytes = words.iter().any(|word| {
        frames
            .iter()
            .any(|frame| frame.windows(word.len()).any(|window| window == word))
    });
    let shown = format!("{inbox:?}");
    let ip = world.address(other).ip().to_string();
    in_bytes || shown.contains(&text::base64(&wg.0)) || shown.contains(&format!("{ip}:"))
}

fn inbox(client: &Client) -> Vec<ControllerMessage> {
    // The hello tells a device its own address.
    let mut inbox = client.inbox.clone();
    inbox.retain(|message| !matches!(message, ControllerMessage::Hello(_)));
    inbox
}

#[test]
fn an_unrelated_device_learns_nothing_of_others() {
    let mut world = World::standard(LAPTOP_TOO);
    // Everything that makes the controller talk.
    for name in ["web", "db", "laptop", "other"] {
        world.reconnect(name);
    }
    world.say(
        "web",
        ClientMessage::Endpoints(EndpointUpdate {
            listen_port: 7,
            endpoints: vec!["198.51.100.1:7".parse().unwrap()],
        }),
    );
    world.pass(Duration::from_secs(1000));
    world.commit(Command::DeviceTag {
        device: "web".into(),
        add: vec![tag("extra")],
        remove: vec![],
    });
    world.revoke("laptop");
    let told = inbox(&world.clients["other"]);
    assert!(!told.is_empty());
    for stranger in ["web", "db", "laptop"] {
        assert!(!mentions(&told, &world, stranger), "{stranger}");
    }
    assert!(!format!("{told:?}").contains("198.51.100.1"));
    // The controls: those who may know do.
    assert!(mentions(&inbox(&world.clients["db"]), &world, "web"));
    assert!(mentions(&inbox(&world.clients["web"]), &world, "laptop"));
    assert!(format!("{:?}", inbox(&world.clients["db"])).contains("198.51.100.1"));
    // And those at two ends of a chain do not know each other.
    assert!(!mentions(&inbox(&world.clients["db"]), &world, "laptop"));
}

#[test]
fn a_rule_goes_one_way_and_tells_who_comes() {
    let world = World::standard(LAPTOP_TOO);
    let laptop = world.clients["laptop"].map.clone().unwrap();
    let web = &laptop.peers[&world.id("web")];
    assert!(web.ingress.is_empty());
    assert_eq!(web.egress[0].rule.as_str(), "alice-to-web");
    assert!(web.tags.is_empty(), "the source need not know its roles");
    let web = world.clients["web"].map.clone().unwrap();
    let laptop = &web.peers[&world.id("laptop")];
    assert!(laptop.egress.is_empty());
    assert_eq!(laptop.user.as_ref().unwrap().as_str(), "alice@example.com");
    assert_eq!(web.peers[&world.id("db")].ingress.len(), 0);
}

#[test]
fn only_devices_concerned_are_sent_anything_and_losers_come_first() {
    let mut world = World::standard(LAPTOP_TOO);
    world.updated.clear();
    world.commit(Command::DeviceRename {
        device: "laptop".into(),
        name: "alices".parse().unwrap(),
    });
    world.updated.sort_unstable();
    assert_eq!(world.updated, ["laptop", "web"]);

    // web-to-db goes, other-to-db comes: db and web lose, other only gains.
    world.updated.clear();
    let next = WEB_TO_DB
        .replace("web-to-db", "other-to-db")
        .replace("from = [\"tag:web\"]", "from = [\"tag:other\"]");
    let committed = world.apply(&next);
    assert_eq!((committed.gained_pairs, committed.lost_pairs), (1, 2));
    assert_eq!(*world.updated.last().unwrap(), "other");
    assert_eq!(world.updated.len(), 4);
    assert_eq!(world.peers("db"), ["other"]);
    assert_eq!(world.peers("web"), Vec::<String>::new());
}

#[test]
fn a_session_resumes_from_what_it_holds() {
    let mut world = World::standard(LAPTOP_TOO);
    world.reconnect("db");
    let is_map = |m: &&ControllerMessage| matches!(m, ControllerMessage::Map(_));
    assert_eq!(world.client("db").inbox.iter().filter(is_map).count(), 0);
    world.disconnect("db");
    world.revoke("web");
    world.reconnect("db");
    let db = world.client("db");
    let updates: Vec<_> = db
        .inbox
        .iter()
        .filter_map(|message| match message {
            ControllerMessage::Map(update) => Some(update.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(updates.len(), 1);
    assert!(updates[0].from.is_some(), "a delta is enough");
    assert_eq!(updates[0].removed.len(), 1);
    // A controller that does not know what the device holds sends all.
    world.restart();
    world.reconnect("laptop");
    assert_eq!(world.peers("laptop"), Vec::<String>::new());
}

#[test]
fn leases_are_renewed_while_connected_and_run_out_when_not() {
    let policy = WEB_TO_DB.replace("version = 1", "version = 1\n[network]\nlease = \"10m\"");
    let mut world = World::standard(&policy);
    let end = |world: &World| {
        let map = world.clients["db"].map.as_ref().unwrap();
        map.peers[&world.id("web")].ingress[0].lease.end()
    };
    let first = end(&world);
    assert!(first <= world.now.unix.saturating_add(Duration::from_secs(600)));
    world.pass(Duration::from_secs(3600));
    assert!(end(&world) > world.now.unix.saturating_add(Duration::from_secs(300)));
    world.disconnect("db");
    let last = end(&world);
    world.pass(Duration::from_secs(3600));
    assert_eq!(end(&world), last);
}

#[test]
fn quarantine_takes_all_peers_and_keeps_the_session() {
    let mut world = World::standard(LAPTOP_TOO);
    let quarantine = |lift| Command::DeviceQuarantine {
        device: "web".into(),
        lift,
        reason: Some("odd traffic".into()),
    };
    world.commit(quarantine(false));
    assert!(world.client("web").session.is_some());
    assert_eq!(world.peers("web"), Vec::<String>::new());
    assert_eq!(world.peers("db"), Vec::<String>::new());
    world.commit(quarantine(true));
    assert_eq!(world.peers("web"), ["db", "laptop"]);
    assert_eq!(world.peers("db"), ["web"]);
}

#[test]
fn an_end_in_the_policy_takes_peers_when_it_comes() {
    let mut world = World::standard(WEB_TO_DB);
    let until = world.now.unix.saturating_add(Duration::from_secs(100));
    let policy = WEB_TO_DB.replace("[[allow]]", &format!("[[allow]]\nuntil = {until}"));
    world.apply(&policy);
    let map = world.clients["db"].map.as_ref().unwrap();
    assert_eq!(map.peers[&world.id("web")].ingress[0].lease.end(), until);
    world.pass(Duration::from_secs(99));
    assert_eq!(world.peers("db"), ["web"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.peers("db"), Vec::<String>::new());
    assert_eq!(world.peers("web"), Vec::<String>::new());
    assert_eq!(world.count("time.pass"), 1);
}
