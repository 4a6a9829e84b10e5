//! Seal and open: through the adapter, and the bare `Tunn` beside it.

use std::hint::black_box;
use std::net::SocketAddr;

use boringtun::noise::{Tunn, TunnResult};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gatereeve_client_core::wg::contract::permit;
use gatereeve_client_core::wg::{NoiseTunnels, Opened, Tunnel, TunnelFactory as _};

use crate::scene::{NOW, endpoint, packet, secret};

const SIZES: [usize; 3] = [1420, 576, 64];

/// Benchmarks.
pub(crate) fn seal_and_open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for size in SIZES {
        let inner = packet(1, 2, 1, size);
        let mut out = [0; 2048];
        group.throughput(Throughput::Bytes(size as u64));
        let (mut one, _) = adapters();
        let permit = permit(&inner);
        group.bench_function(BenchmarkId::new("adapter", size), |bencher| {
            bencher.iter(|| {
                one.encapsulate(&permit, black_box(&inner), NOW, &mut out)
                    .unwrap()
            });
        });
        let (mut one, _) = tunns();
        group.bench_function(BenchmarkId::new("tunn", size), |bencher| {
            bencher.iter(|| written(one.encapsulate(black_box(&inner), &mut out)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("open");
    for size in SIZES {
        let inner = packet(1, 2, 1, size);
        let mut out = [0; 2048];
        group.throughput(Throughput::Bytes(size as u64));
        let (mut one, mut other) = adapters();
        let permit = permit(&inner);
        group.bench_function(BenchmarkId::new("adapter", size), |bencher| {
            let seal = || {
                let mut datagram = vec![0; 2048];
                let len = one
                    .encapsulate(&permit, &inner, NOW, &mut datagram)
                    .unwrap();
                datagram.truncate(len);
                datagram
            };
            bencher.iter_batched_ref(
                seal,
                |datagram| other.decapsulate(from(), datagram, NOW, &mut out).unwrap(),
                BatchSize::SmallInput,
            );
        });
        let (mut one, mut other) = tunns();
        group.bench_function(BenchmarkId::new("tunn", size), |bencher| {
            let seal = || {
                let mut datagram = vec![0; 2048];
                let len = written(one.encapsulate(&inner, &mut datagram));
                datagram.truncate(len);
                datagram
            };
            bencher.iter_batched_ref(
                seal,
                |datagram| {
                    let opened = other.decapsulate(Some(from().ip()), datagram, &mut out);
                    assert!(matches!(opened, TunnResult::WriteToTunnelV4(..)));
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn from() -> SocketAddr {
    endpoint(1)
}

/// Two ends of a tunnel with a session.
fn adapters() -> (Box<dyn Tunnel>, Box<dyn Tunnel>) {
    let (a, b) = (secret(1), secret(2));
    let mut one = NoiseTunnels.create(&a, &b.public(), 1, NOW).unwrap();
    let mut other = NoiseTunnels.create(&b, &a.public(), 2, NOW).unwrap();
    let (mut there, mut back) = ([0; 256], [0; 256]);
    let len = one.initiate(NOW, &mut there).unwrap();
    let opened = other.decapsulate(from(), &mut there[..len], NOW, &mut back);
    let Ok(Opened::Response { len }) = opened else {
        unreachable!("an initiation");
    };
    let opened = one.decapsulate(from(), &mut back[..len], NOW, &mut there);
    let Ok(Opened::Established { len }) = opened else {
        unreachable!("a response");
    };
    other
        .decapsulate(from(), &mut there[..len], NOW, &mut back)
        .unwrap();
    (one, other)
}

/// The same without the adapter.
fn tunns() -> (Tunn, Tunn) {
    let (a, b) = (secret(1), secret(2));
    let tunn = |own: &gatereeve_shared::identity::wg_key::WgSecret, theirs, index| {
        Tunn::new(own.as_dalek().clone(), theirs, None, None, index, None)
    };
    let mut one = tunn(&a, b.public().to_dalek(), 1);
    let mut other = tunn(&b, a.public().to_dalek(), 2);
    let (mut there, mut back) = ([0; 256], [0; 256]);
    let len = written(one.format_handshake_initiation(&mut there, false));
    let len = written(other.decapsulate(None, &there[..len], &mut back));
    let len = written(one.decapsulate(None, &back[..len], &mut there));
    let done = other.decapsulate(None, &there[..len], &mut back);
    assert!(matches!(done, TunnResult::Done));
    (one, other)
}

fn written(result: TunnResult<'_>) -> usize {
    let TunnResult::WriteToNetwork(message) = result else {
        unreachable!("nothing to send");
    };
    message.len()
}
