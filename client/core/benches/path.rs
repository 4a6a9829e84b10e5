//! The whole calls, 64 packets at a time, on a device with one peer and on one with 1,000.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gatereeve_client_core::datapath::{Batch, DataPath, Outbox};

use crate::scene::{NOW, Pair, endpoint, packet};

const BATCH: usize = 64;
/// Room for probes of the path beside them.
const PROBES: usize = 8;

/// Benchmarks.
pub(crate) fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (size, peers) in [(1420, 1), (1420, 1_000), (64, 1), (64, 1_000)] {
        let id = |name: &str| BenchmarkId::new(format!("{name}/{size}"), peers);
        let pair = Pair::new(peers);
        let inner = packet(Pair::ONE, Pair::OTHER, 1, size);
        let mut out = Outbox::new();
        let mut batch = Batch::new(BATCH, 2048);
        let mut send = || {
            while batch.push(&inner, None) {}
            out.clear();
            pair.one.outbound(&mut batch, NOW, &mut out);
            out.transmits().next().is_some()
        };
        assert!(send());
        group.bench_function(id("outbound"), |bencher| {
            bencher.iter(&mut send);
        });

        let pair = Pair::new(peers);
        let inner = packet(Pair::OTHER, Pair::ONE, 1, size);
        let mut receive = |batch: &mut Batch| {
            pair.one.inbound(batch, NOW, &mut out);
            let is_some = out.deliveries().next().is_some();
            out.give_back(batch);
            is_some
        };
        assert!(receive(&mut sealed(&pair.other, &inner)));
        group.bench_function(id("inbound"), |bencher| {
            bencher.iter_batched_ref(
                || sealed(&pair.other, &inner),
                &mut receive,
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The timers of a device with 1,000 peers, one of which has a session.
pub(crate) fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    let pair = Pair::new(1_000);
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

/// 64 datagrams from the other one, and perhaps its probes of the path.
fn sealed(other: &DataPath, inner: &[u8]) -> Batch {
    let mut batch = Batch::new(BATCH + PROBES, 2048);
    for _ in 0..BATCH {
        assert!(batch.push(inner, None));
    }
    let mut out = Outbox::new();
    other.outbound(&mut batch, NOW, &mut out);
    for (_, datagram) in out.transmits() {
        assert!(batch.push(datagram, Some(endpoint(Pair::OTHER))));
    }
    batch
}
