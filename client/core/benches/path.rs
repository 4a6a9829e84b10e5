//! The whole calls, 64 packets at a time, on a device with 1,000 peers.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gatereeve_client_core::datapath::{Batch, DataPath, Outbox};

use crate::scene::{NOW, Pair, endpoint, packet};

const BATCH: usize = 64;

/// Benchmarks.
pub(crate) fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in [1420, 64] {
        let pair = Pair::new();
        let inner = packet(Pair::ONE, Pair::OTHER, 1, size);
        let mut out = Outbox::new();
        let mut batch = Batch::new(BATCH, 2048);
        group.bench_function(BenchmarkId::new("outbound", size), |bencher| {
            bencher.iter(|| {
                while batch.push(&inner, None) {}
                out.clear();
                pair.one.outbound(&mut batch, NOW, &mut out);
            });
        });
        assert_eq!(out.transmits().count(), BATCH);

        let pair = Pair::new();
        let inner = packet(Pair::OTHER, Pair::ONE, 1, size);
        group.bench_function(BenchmarkId::new("inbound", size), |bencher| {
            bencher.iter_batched_ref(
                || sealed(&pair.other, &inner),
                |batch| {
                    out.clear();
                    pair.one.inbound(batch, NOW, &mut out);
                },
                BatchSize::SmallInput,
            );
        });
        assert_eq!(out.deliveries().count(), BATCH);
    }
    group.finish();
}

/// The timers of a device with 1,000 peers, one of which has a session.
pub(crate) fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    let pair = Pair::new();
    let mut out = Outbox::new();
    for (name, looks_at_all) in [("active", false), ("all", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                if looks_at_all {
                    pair.one.wake_all();
                }
                pair.one.tick(NOW, &mut out);
            });
        });
    }
    assert!(out.is_empty());
    group.finish();
}

/// 64 datagrams from the other one.
fn sealed(other: &DataPath, inner: &[u8]) -> Batch {
    let mut batch = Batch::new(BATCH, 2048);
    while batch.push(inner, None) {}
    let mut out = Outbox::new();
    other.outbound(&mut batch, NOW, &mut out);
    for (_, datagram) in out.transmits() {
        assert!(batch.push(datagram, Some(endpoint(Pair::OTHER))));
    }
    batch
}
