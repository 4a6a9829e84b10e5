//! One packet when nothing of what handles it is in the cache any more: what a round trip on an idle tunnel waits for.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement as _, WallTime};
use gatereeve_client_core::datapath::{Batch, Outbox};

use crate::scene::{NOW, Pair, endpoint, packet};

/// More than the second-level cache of today's processors, and than their page tables' caches reach.
const EVICTED: usize = 16 * 1024 * 1024;

/// Benchmarks.
pub(crate) fn one_packet(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    let mut evicted = vec![0_u8; EVICTED];
    let pair = Pair::new(1);
    let inner = packet(Pair::ONE, Pair::OTHER, 1, 84);
    let (mut out, mut batch) = (Outbox::new(), Batch::new(64, 2048));
    for (is_inbound, is_cold) in [(false, true), (false, false), (true, true), (true, false)] {
        let name = match (is_inbound, is_cold) {
            (false, true) => "outbound",
            (false, false) => "outbound, warm",
            (true, true) => "inbound",
            (true, false) => "inbound, warm",
        };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut total = Duration::ZERO;
                for _ in 0..count {
                    // What came in last lies in the batch's buffers.
                    out.give_back(&mut batch);
                    assert!(batch.push(&inner, None));
                    if is_inbound {
                        pair.one.outbound(&mut batch, NOW, &mut out);
                        let (_, datagram) = out.transmits().next().expect("it is allowed");
                        assert!(batch.push(datagram, Some(endpoint(Pair::ONE))));
                        out.clear();
                    }
                    if is_cold {
                        evict(&mut evicted);
                    }
                    let start = WallTime.start();
                    if is_inbound {
                        pair.other.inbound(&mut batch, NOW, &mut out);
                    } else {
                        pair.one.outbound(&mut batch, NOW, &mut out);
                    }
                    total += WallTime.end(start);
                    assert!(!out.is_empty());
                }
                total
            });
        });
    }
    group.finish();
}

/// Uses a line of each 64 bytes, so that others have to go.
fn evict(bytes: &mut [u8]) {
    for line in bytes.chunks_mut(64) {
        line[0] = line[0].wrapping_add(1);
    }
    black_box(bytes);
}
