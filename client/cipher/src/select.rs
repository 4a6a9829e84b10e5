//! Which implementation keys are made for.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::Implementation;
#[cfg(target_arch = "x86_64")]
use crate::avx512::Avx512;

/// What keys of this process are made for.
static CHOICE: Choice = Choice::new();

/// A switch and nothing else: no memory is ordered by it.
struct Choice(AtomicU8);

impl Choice {
    /// Nobody has asked yet.
    const UNKNOWN: u8 = 0;
    const AWS_LC: u8 = 1;
    #[cfg(any(test, target_arch = "x86_64"))]
    const AVX512: u8 = 2;

    const fn new() -> Self {
        Self(AtomicU8::new(Self::UNKNOWN))
    }

    /// For good: nothing goes back to what nobody has asked yet, from where AVX-512 is reached.
    fn use_aws_lc(&self) {
        self.0.store(Self::AWS_LC, Ordering::Relaxed);
    }

    /// Whether it is AVX-512. Who asks first has `passes` tried.
    #[cfg(any(test, target_arch = "x86_64"))]
    fn is_avx512(&self, passes: impl FnOnce() -> bool) -> bool {
        if self.0.load(Ordering::Relaxed) == Self::UNKNOWN {
            let choice = if passes() { Self::AVX512 } else { Self::AWS_LC };
            // Who has switched it off meanwhile is not overruled.
            let (order, unknown) = (Ordering::Relaxed, Self::UNKNOWN);
            let _ = self.0.compare_exchange(unknown, choice, order, order);
        }
        self.0.load(Ordering::Relaxed) == Self::AVX512
    }
}

/// Has keys that are made from now on use AWS-LC, whatever the processor has. Keys that are there stay as they are.
pub fn use_aws_lc() {
    CHOICE.use_aws_lc();
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
    let passes = || Avx512::detect().is_some_and(|avx512| crate::trial::passes(&avx512));
    let chosen = CHOICE.is_avx512(passes);
    Avx512::detect().filter(|_| chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_passes_is_used_and_tried_once() {
        let choice = Choice::new();
        assert!(choice.is_avx512(|| true));
        assert!(choice.is_avx512(|| unreachable!()));
    }

    #[test]
    fn who_fails_is_never_used_and_tried_once() {
        let choice = Choice::new();
        assert!(!choice.is_avx512(|| false));
        assert!(!choice.is_avx512(|| unreachable!()));
    }

    #[test]
    fn a_switch_is_not_overruled() {
        let before = Choice::new();
        before.use_aws_lc();
        assert!(!before.is_avx512(|| unreachable!()));
        let meanwhile = Choice::new();
        assert!(!meanwhile.is_avx512(|| {
            meanwhile.use_aws_lc();
            true
        }));
        let after = Choice::new();
        assert!(after.is_avx512(|| true));
        after.use_aws_lc();
        assert!(!after.is_avx512(|| unreachable!()));
    }
}
