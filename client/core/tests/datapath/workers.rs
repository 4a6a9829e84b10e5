//! Many threads on one data path: once a table is enforced, nothing passes by an older one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gatereeve_client_core::datapath::{Batch, Outbox};
use gatereeve_client_core::packet::samples;

use crate::world::{World, v4};

#[test]
fn nothing_passes_after_enforcement() {
    let mut world = World::pair(&["udp:53"]);
    let packet = samples::udp((v4(0), 9), (v4(1), 53), b"x");
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1, "control");

    let node = Arc::new(world.nodes.remove(0));
    let (stop, sent, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (node, packet, now) = (Arc::clone(&node), packet.clone(), world.now);
            let (stop, sent, rounds) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&rounds));
            std::thread::spawn(move || {
                let mark = node.path.worker();
                let (mut batch, mut out) = (Batch::new(8, 2048), Outbox::new());
                while !stop.load(Ordering::SeqCst) {
                    mark.begin();
                    while batch.push(&packet, None) {}
                    node.path.outbound(&mut batch, now, &mut out);
                    let count = u64::try_from(out.transmits().count()).unwrap();
                    sent.fetch_add(count, Ordering::SeqCst);
                    out.clear();
                    mark.done();
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let wait_for = |more: u64| {
        let until = rounds.load(Ordering::SeqCst) + more;
        while rounds.load(Ordering::SeqCst) < until {
            std::thread::yield_now();
        }
    };
    wait_for(100);
    assert!(sent.load(Ordering::SeqCst) > 0, "control");

    let mut spec = node.spec.clone();
    for round in 0..20 {
        // Taken away and given back, the peer kept or removed.
        let kept = spec.peers.clone();
        spec.serial += 1;
        if round % 2 == 0 {
            spec.peers.clear();
        } else {
            spec.peers[0].egress.clear();
        }
        node.path.publish(spec.clone(), world.now);
        while node.path.enforced() < spec.serial {
            std::thread::yield_now();
        }
        let at_enforcement = sent.load(Ordering::SeqCst);
        wait_for(30);
        assert_eq!(sent.load(Ordering::SeqCst), at_enforcement, "round {round}");
        spec.serial += 1;
        spec.peers = kept;
        node.path.publish(spec.clone(), world.now);
        wait_for(5);
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().unwrap();
    }
}
