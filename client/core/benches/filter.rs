//! The judgement of a packet.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use gatereeve_client_core::datapath::Direction;
use gatereeve_client_core::filter::{FilterState, FlowBudget, PeerFilter};
use gatereeve_client_core::keyed::HashKey;
use gatereeve_client_core::packet::IpPacket;
use gatereeve_shared::generation::Generation;

use crate::scene::{NOW, everything, packet};

/// Benchmarks.
pub(crate) fn judgements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    let filter = PeerFilter::new(&everything(), &everything(), 1, Generation::default());
    let bytes = packet(1, 2, 1, 1420);
    group.bench_function("parse", |bencher| {
        bencher.iter(|| IpPacket::parse(black_box(&bytes)).unwrap());
    });
    let parsed = IpPacket::parse(&bytes).unwrap();
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    group.bench_function("established", |bencher| {
        bencher.iter(|| {
            let parsed = black_box(&parsed);
            filter
                .judge(&mut state, parsed, Direction::Outbound, NOW)
                .unwrap()
        });
    });
    let budget = FlowBudget::default();
    group.bench_function("new", |bencher| {
        bencher.iter_batched_ref(
            || FilterState::new(budget.clone(), HashKey::new([5; 16])),
            |state| {
                filter
                    .judge(state, black_box(&parsed), Direction::Outbound, NOW)
                    .unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
