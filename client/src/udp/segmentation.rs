//! Whether datagrams are sent many as one, learned from what the kernel answers.

use std::sync::atomic::{AtomicU32, Ordering};

/// Sends without segmentation before it is tried again: by then the route may lead over another
/// interface.
const REST: u32 = 100_000;

/// What is known of one socket.
#[derive(Debug)]
pub(super) struct Segmentation {
    supported: bool,
    /// Sends until it is tried again.
    rest: AtomicU32,
}

impl Segmentation {
    /// Of a kernel that has it, or that has not.
    pub(super) fn new(supported: bool) -> Self {
        Self {
            supported,
            rest: AtomicU32::new(0),
        }
    }

    pub(super) fn is_supported(&self) -> bool {
        self.supported
    }

    /// Whether it is in use.
    pub(super) fn is_on(&self) -> bool {
        self.supported && self.rest.load(Ordering::Relaxed) == 0
    }

    /// Whether to use it for this send.
    pub(super) fn wanted(&self) -> bool {
        if !self.supported {
            return false;
        }
        // Lost updates between threads make the rest a little longer.
        match self.rest.load(Ordering::Relaxed) {
            0 => true,
            left => {
                self.rest.store(left - 1, Ordering::Relaxed);
                false
            }
        }
    }

    /// A segmented send failed, and the same datagrams went out one by one. Whether that is news.
    pub(super) fn refused(&self) -> bool {
        self.rest.swap(REST, Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_and_tried_again_much_later() {
        let segmentation = Segmentation::new(true);
        assert!(segmentation.wanted() && segmentation.is_on());
        assert!(segmentation.refused());
        assert!(!segmentation.refused(), "it is said once");
        for _ in 0..REST {
            assert!(!segmentation.is_on());
            assert!(!segmentation.wanted());
        }
        assert!(segmentation.is_on() && segmentation.wanted());
    }

    #[test]
    fn what_the_kernel_does_not_have_is_never_tried() {
        let segmentation = Segmentation::new(false);
        assert!(!segmentation.is_on() && !segmentation.wanted());
        assert!(!segmentation.is_supported());
    }
}
