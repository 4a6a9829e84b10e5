//! Look-ups by how much there is to look through.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion};
use gatereeve_client_core::bench_support::Routes;
use gatereeve_client_core::datapath::Direction;
use gatereeve_client_core::filter::{FilterState, FlowBudget, PeerFilter};
use gatereeve_client_core::keyed::HashKey;
use gatereeve_client_core::packet::IpPacket;
use gatereeve_shared::generation::Generation;

use crate::scene::{NOW, addresses, everything, packet};

/// Whose is an address?
pub(crate) fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for peers in [1_u16, 100, 1_000] {
        let mut routes = Routes::new(HashKey::new([5; 16]));
        for (peer, number) in (0..peers).enumerate() {
            routes.insert(IpAddr::V4(addresses(number).v4), peer);
            routes.insert(IpAddr::V6(addresses(number).v6), peer);
        }
        for (family, v6) in [("v4", false), ("v6", true)] {
            let mut numbers = (0..peers).cycle();
            group.bench_function(BenchmarkId::new(family, peers), |bencher| {
                bencher.iter(|| {
                    let owned = addresses(numbers.next().unwrap_or_default());
                    let address = if v6 { owned.v6.into() } else { owned.v4.into() };
                    routes.owner(black_box(address)).unwrap()
                });
            });
        }
    }
    group.finish();
}

/// The judgement of a packet whose flow is one of many, each in its turn.
pub(crate) fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow");
    let filter = PeerFilter::new(&everything(), &everything(), 1, Generation::default());
    for flows in [1_u16, 1_000, 16_000] {
        let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
        let packets: Vec<_> = (0..flows)
            // In no order that a tree or a cache could like.
            .map(|flow| IpPacket::parse(&packet(1, 2, flow.wrapping_mul(40_503), 100)).unwrap())
            .collect();
        let mut judge = |packet| {
            filter
                .judge(&mut state, packet, Direction::Outbound, NOW)
                .unwrap()
        };
        packets.iter().for_each(|packet| drop(judge(packet)));
        let mut turns = packets.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(flows), |bencher| {
            bencher.iter(|| judge(black_box(turns.next().unwrap_or(&packets[0]))));
        });
        assert_eq!(state.flows(), usize::from(flows));
    }
    group.finish();
}
