//! What a packet costs on the fast path, part by part: `cargo bench -p gatereeve-client-core`.
//!
//! Look at medians, and compare within one run only. A part: `cargo bench -p gatereeve-client-core -- flow`.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark whose scene cannot be set has nothing to measure"
)]

mod cold;
mod filter;
mod lookup;
mod path;
mod scene;
mod tunnel;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    tunnel::seal_and_open,
    filter::judgements,
    lookup::routes,
    lookup::flows,
    path::batches,
    path::timers,
    cold::one_packet,
);
criterion_main!(benches);
