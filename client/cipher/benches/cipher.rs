//! Seal and open, beside AWS-LC: `cargo bench -p gatereeve-cipher`.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark without keys has nothing to measure"
)]

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gatereeve_cipher::{Key, implementation};

const SIZES: [usize; 9] = [0, 64, 128, 192, 256, 512, 1024, 1420, 8920];
const KEY: [u8; 32] = [7; 32];

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    let (key, library) = keys();
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut data = vec![1; size];
        group.bench_function(
            BenchmarkId::new(format!("{:?}", implementation()), size),
            |bencher| {
                bencher.iter(|| key.seal(black_box(&[0; 12]), &[], &mut data).unwrap());
            },
        );
        group.bench_function(BenchmarkId::new("AWS-LC", size), |bencher| {
            bencher.iter(|| {
                let nonce = Nonce::assume_unique_for_key(black_box([0; 12]));
                library
                    .seal_in_place_separate_tag(nonce, Aad::empty(), &mut data)
                    .unwrap()
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    let (key, library) = keys();
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut sealed = vec![1; size];
        let tag = key.seal(&[0; 12], &[], &mut sealed).unwrap();
        sealed.extend(tag);
        group.bench_function(
            BenchmarkId::new(format!("{:?}", implementation()), size),
            |bencher| {
                bencher.iter_batched_ref(
                    || sealed.clone(),
                    |sealed| key.open(black_box(&[0; 12]), &[], sealed).unwrap().len(),
                    BatchSize::SmallInput,
                );
            },
        );
        group.bench_function(BenchmarkId::new("AWS-LC", size), |bencher| {
            bencher.iter_batched_ref(
                || sealed.clone(),
                |sealed| {
                    let nonce = Nonce::assume_unique_for_key(black_box([0; 12]));
                    library
                        .open_in_place(nonce, Aad::empty(), sealed)
                        .unwrap()
                        .len()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn keys() -> (Key, LessSafeKey) {
    let library = UnboundKey::new(&CHACHA20_POLY1305, &KEY).unwrap();
    (Key::new(&KEY), LessSafeKey::new(library))
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
