//! What packets say of congestion, outside.

use gatereeve_client_core::packet::offload::Ecn;

use crate::wire::{HUB, ONE, Wire, lone, marked, stream};

/// Routers mark only what says that its ends understand it, and nobody but the sender of the inner packet knows (RFC 6040).
#[test]
fn what_a_packet_says_of_congestion_is_said_outside() {
    let mut wire = Wire::of_three();
    for is_v4 in [true, false] {
        let packets = [
            lone(HUB, ONE, is_v4, (1_000, 2)),
            stream(HUB, ONE, is_v4, (1_000, 443)),
        ];
        for packet in packets {
            // The first long packet has the path looked at, which says nothing of congestion.
            wire.push(0, &packet);
            wire.outbound(0);
            wire.settle();
            for bits in 0..4 {
                wire.push(0, &marked(&packet, bits));
                let runs = wire.runs_of(0);
                assert_eq!(
                    runs,
                    [(Ecn::new(bits), packet.count)],
                    "{bits}, IPv4: {is_v4}"
                );
            }
        }
    }
}

/// A run has one outer header for all that is in it.
#[test]
fn packets_that_say_different_things_of_congestion_do_not_share_a_run() {
    let mut wire = Wire::of_three();
    for is_v4 in [true, false] {
        let one = lone(HUB, ONE, is_v4, (1_000, 2));
        let many = stream(HUB, ONE, is_v4, (1_000, 443));
        for packet in [one, many] {
            wire.push(0, &packet);
            wire.outbound(0);
            wire.settle();
            let sent: [u8; 12] = [0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 3, 2];
            for bits in sent {
                wire.push(0, &marked(&packet, bits));
            }
            let runs = wire.runs_of(0);
            let expected = [
                (0, 2),
                (1, 2),
                (2, 2),
                (3, 2),
                (0, 1),
                (1, 1),
                (3, 1),
                (2, 1),
            ];
            // What says the same goes together: the control.
            let expected = expected.map(|(bits, packets)| (Ecn::new(bits), packets * packet.count));
            assert_eq!(runs, expected, "IPv4: {is_v4}");
        }
    }
}
