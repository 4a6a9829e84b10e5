//! An upgrade's rehearsal: what differs between two states is found, and what does not is not.

use std::collections::BTreeMap;

use gatereeve_controller_core::rehearse::{Compiled, differences};
use gatereeve_controller_core::state::State;
use gatereeve_shared::wire::map::OverlayPrefixes;

use crate::harness::{LAPTOP_TOO, WEB_TO_DB, World};

/// What every device would be told otherwise, by its name.
fn compared(world: &World, before: &State, after: &State) -> BTreeMap<String, Vec<String>> {
    let prefixes = OverlayPrefixes {
        v4: "100.64.0.0/10".parse().unwrap(),
        v6: "fd00::/48".parse().unwrap(),
    };
    let now = world.now.unix;
    let old = Compiled::new(before, "test", prefixes).unwrap();
    let new = Compiled::new(after, "test", prefixes).unwrap();
    before
        .devices()
        .iter()
        .map(|(id, device)| {
            let lines = differences(old.map(id, now).as_ref(), new.map(id, now).as_ref());
            (device.name.to_string(), lines)
        })
        .filter(|(_, lines)| !lines.is_empty())
        .collect()
}

#[test]
fn what_a_device_gains_or_loses_is_told_of_it_and_of_nobody_else() {
    let mut world = World::standard(WEB_TO_DB);
    let before = world.controller.state().clone();
    assert_eq!(compared(&world, &before, &before), BTreeMap::new());
    world.apply(LAPTOP_TOO);
    let after = world.controller.state().clone();
    let gained = compared(&world, &before, &after);
    assert!(
        gained["laptop"]
            .iter()
            .any(|line| line.starts_with("gains the peer")),
        "{gained:?}"
    );
    assert!(!gained.contains_key("other"), "{gained:?}");
    let lost = compared(&world, &after, &before);
    assert!(
        lost["laptop"]
            .iter()
            .any(|line| line.starts_with("loses the peer")),
        "{lost:?}"
    );
}
