//! Which implementation keys are made for.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::Implementation;
#[cfg(target_arch = "x86_64")]
use crate::avx512::Avx512;

/// Nobody has asked yet.
const UNKNOWN: u8 = 0;
const AWS_LC: u8 = 1;
#[cfg(target_arch = "x86_64")]
const AVX512: u8 = 2;

/// A switch and nothing else: no memory is ordered by it.
static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Has keys that are made from now on use AWS-LC, whatever the processor has. Keys that are there stay as they are.
pub fn use_aws_lc() {
    CHOICE.store(AWS_LC, Ordering::Relaxed);
}

/// What keys are made for. Whoever asks first waits for the trial, a tenth of a millisecond.
#[must_use]
pub fn implementation() -> Implementation {
    #[cfg(target_arch = "x86_64")]
    if avx512().is_some() {
        return Implementation::Avx512;
    }
    Implementation::AwsLc
}

/// The processor's instructions, where keys are to use them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn avx512() -> Option<Avx512> {
    if CHOICE.load(Ordering::Relaxed) == UNKNOWN {
        let passed = Avx512::detect().is_some_and(|avx512| crate::trial::passes(&avx512));
        let choice = if passed { AVX512 } else { AWS_LC };
        // Who has switched it off meanwhile is not overruled.
        let _ = CHOICE.compare_exchange(UNKNOWN, choice, Ordering::Relaxed, Ordering::Relaxed);
    }
    match CHOICE.load(Ordering::Relaxed) {
        AVX512 => Avx512::detect(),
        _ => None,
    }
}
