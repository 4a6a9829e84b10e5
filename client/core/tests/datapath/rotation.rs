//! WireGuard keys change under traffic, and nothing is lost.

use std::time::Duration;

use gatereeve_client_core::datapath::{DataPathEvent, LocalKey};
use gatereeve_client_core::packet::samples;

use crate::world::{World, device, secret, v4};

fn exchange(world: &mut World, rounds: usize) -> (usize, usize) {
    for _ in 0..rounds {
        world.send(0, &samples::udp((v4(0), 9), (v4(1), 53), b"query"));
        world.send(1, &samples::udp((v4(1), 53), (v4(0), 9), b"answer"));
        world.pass(Duration::from_secs(1));
    }
    (world.received(0).len(), world.received(1).len())
}

#[test]
fn a_new_key_takes_over_without_a_lost_packet() {
    for rotating in [0, 1] {
        let other = 1 - rotating;
        let mut world = World::pair(&["udp:53"]);
        assert_eq!(exchange(&mut world, 5), (5, 5));

        // The device has made its next key; its peer does not know it yet.
        world.nodes[rotating].spec.local_keys.push(LocalKey {
            counter: 2,
            secret: secret(rotating, 2),
        });
        world.publish(rotating);
        assert_eq!(exchange(&mut world, 20), (20, 20));
        // Mono it does.
        world
            .peer(other, rotating)
            .keys
            .push((2, secret(rotating, 2).public()));
        world.publish(other);
        world.nodes[0].events.clear();
        world.nodes[1].events.clear();
        assert_eq!(exchange(&mut world, 140), (140, 140));
        let in_use = DataPathEvent::KeyInUse {
            device: device(other),
            local_counter: 2,
            remote_counter: 1,
        };
        assert!(world.nodes[rotating].events.contains(&in_use));

        // The old one goes, at either end.
        world.nodes[rotating].spec.local_keys.remove(0);
        world.publish(rotating);
        assert_eq!(exchange(&mut world, 5), (5, 5));
        world.peer(other, rotating).keys.remove(0);
        world.publish(other);
        assert_eq!(exchange(&mut world, 200), (200, 200));
    }
}

#[test]
fn a_cold_start_in_the_middle_of_a_rotation_finds_the_key_that_works() {
    let mut world = World::pair(&["udp:53"]);
    world.nodes[0].spec.local_keys.push(LocalKey {
        counter: 2,
        secret: secret(0, 2),
    });
    world.publish(0);
    assert_eq!(exchange(&mut world, 10), (10, 10));
}

#[test]
fn a_changed_key_without_overlap_ends_the_old_session() {
    let mut world = World::pair(&["udp:53"]);
    assert_eq!(exchange(&mut world, 2), (2, 2));
    world.nodes[0].spec.local_keys = vec![LocalKey {
        counter: 3,
        secret: secret(0, 3),
    }];
    world.publish(0);
    world.send(0, &samples::udp((v4(0), 9), (v4(1), 53), b"query"));
    assert!(
        world.received(1).is_empty(),
        "the peer knows only the old key"
    );
    world.peer(1, 0).keys = vec![(3, secret(0, 3).public())];
    world.publish(1);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.received(1).len(), 1, "what waited arrives");
}
