//! "May I reach this?": asked of the controller, answered from the map where it is silent.

use gatereeve_client_core::api::WhyView;
use gatereeve_client_core::output::Output;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::wire::client::{ClientMessage, WhyRequest};
use gatereeve_shared::wire::controller::{ControllerMessage, Standing, WhyReply};

use crate::support::*;

fn ask(world: &mut World, peer: &str, port: u16) {
    ask_of(world, peer, Protocol::Tcp, port);
}

fn ask_of(world: &mut World, peer: &str, protocol: Protocol, port: u16) {
    let peer = peer.to_owned();
    world.call(|engine, now| engine.handle_why(7, peer, protocol, port, now));
}

fn question(world: &World) -> Option<WhyRequest> {
    world.sent().find_map(|message| match message {
        ClientMessage::Why(request) => Some(request.clone()),
        _ => None,
    })
}

fn answers(outputs: impl IntoIterator<Item = Output>) -> Vec<WhyView> {
    outputs
        .into_iter()
        .filter_map(|output| match output {
            Output::WhyAnswer { request: 7, view } => Some(view),
            _ => None,
        })
        .collect()
}

#[test]
fn the_controller_answers_while_it_is_there() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    ask(&mut world, "peer-2", 22);
    let request = question(&world).unwrap();
    assert_eq!((request.peer.as_str(), request.port), ("peer-2", 22));
    let reply = |request| WhyReply {
        request,
        allowed: false,
        rule: None,
        until: None,
        missing: vec!["posture\u{1b}".into()],
    };
    world.say(ControllerMessage::Why(reply(request.request + 1)));
    assert!(answers(world.out.drain(..)).is_empty());
    world.say(ControllerMessage::Why(reply(request.request)));
    let view = answers(world.out.drain(..)).remove(0);
    assert_eq!(view.answered_by, "controller");
    assert_eq!(view.missing, ["posture\u{fffd}"]);
    world.say(ControllerMessage::Why(reply(request.request)));
    assert!(answers(world.out.drain(..)).is_empty(), "once");
}

#[test]
fn offline_the_map_answers_and_tells_no_more_than_it_has() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.lost();
    let v4 = addresses(2).v4.to_string();
    let v6 = addresses(2).v6.to_string();
    let device = id(2).to_string();
    for name in ["peer-2", &v4, &v6, &device] {
        ask(&mut world, name, 22);
        let view = answers(world.out.drain(..)).remove(0);
        assert!(view.allowed, "{name}");
        assert_eq!(view.until, Some(at(60)));
        assert_eq!(view.answered_by, "map");
    }
    ask(&mut world, "peer-2", 23);
    let denied = answers(world.out.drain(..)).remove(0);
    ask(&mut world, "nobody", 23);
    let unknown = answers(world.out.drain(..)).remove(0);
    assert!(!denied.allowed && !unknown.allowed);
    assert_eq!(denied.missing, unknown.missing);
    world.run(60 * SECOND, false);
    ask(&mut world, "peer-2", 22);
    assert!(!answers(world.out.drain(..)).remove(0).allowed);
}

#[test]
fn without_a_port_every_rule_of_the_peer_is_named() {
    let mut held = peer(2, at(60));
    held.egress.push(rule("longer", at(90)));
    let mut world = World::synced(vec![held]);
    ask_of(&mut world, "peer-2", Protocol::Any, 0);
    let request = question(&world).unwrap();
    world.say(ControllerMessage::Why(WhyReply {
        request: request.request,
        allowed: true,
        rule: Some("longer".parse().unwrap()),
        until: Some(at(90)),
        missing: vec![],
    }));
    let online = answers(world.out.drain(..)).remove(0);
    world.lost();
    ask_of(&mut world, "peer-2", Protocol::Any, 0);
    let offline = answers(world.out.drain(..)).remove(0);
    for view in [online, offline] {
        let through: Vec<_> = view.through.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(through, ["ssh", "longer"]);
        assert_eq!(view.through[0].ports, ["tcp:22".parse().unwrap()]);
        assert!(view.allowed && view.until == Some(at(90)));
        assert_eq!(view.rule.unwrap().as_str(), "longer");
    }
    ask_of(&mut world, "peer-2", Protocol::Udp, 22);
    assert!(!answers(world.out.drain(..)).remove(0).allowed);
    world.run(60 * SECOND, false);
    ask_of(&mut world, "peer-2", Protocol::Any, 0);
    assert_eq!(answers(world.out.drain(..)).remove(0).through.len(), 1);
}

#[test]
fn a_silent_controller_is_not_waited_for() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    ask(&mut world, "peer-2", 22);
    let log = world.run(3 * SECOND, false);
    let views = answers(log.into_iter().map(|(_, output)| output));
    assert_eq!(views.len(), 1);
    assert!(views[0].allowed && views[0].answered_by == "map");
    ask(&mut world, "peer-2", 22);
    world.lost();
    assert_eq!(answers(world.out.drain(..)).len(), 1);
}

#[test]
fn questions_are_bounded() {
    let mut world = World::synced(vec![]);
    let mut asked = 0;
    for _ in 0..200 {
        ask(&mut world, "x", 1);
        asked += usize::from(question(&world).is_some());
    }
    // Anybody on the host may ask: the controller's patience with this device is not theirs to use up.
    assert_eq!(asked, 16);
    world.run(SECOND, false);
    ask(&mut world, "x", 1);
    assert!(question(&world).is_some(), "in time it is asked again");
    let mut world = World::synced(vec![]);
    ask(&mut world, &"x".repeat(5000), 1);
    assert!(question(&world).is_none());
    assert_eq!(answers(world.out.drain(..)).len(), 1);
    world.lost();
    world.connected(Standing::Approved);
    ask(&mut world, "x", 1);
    assert!(question(&world).is_some());
}
