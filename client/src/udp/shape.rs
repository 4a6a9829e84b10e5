//! How many buffers to offer the kernel in one receive call.
//!
//! Where datagrams come coalesced, up to 64 KiB in a buffer, few buffers hold plenty, and more would push
//! each other out of the cache. Where they come one by one, each call should bring as many as it can.

/// Buffers while datagrams come coalesced, and at the beginning.
pub(super) const FEW: usize = 4;
/// Buffers while they come one by one and calls are filled: the most that one call of quinn-udp takes.
pub(super) const MANY: usize = quinn_udp::BATCH_SIZE;

/// Adapts to what the last calls brought.
#[derive(Debug)]
pub(super) struct Shape {
    offer: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { offer: FEW }
    }
}

impl Shape {
    /// Buffers to offer.
    pub(super) fn offer(&self) -> usize {
        self.offer
    }

    /// A call with `offered` buffers brought `filled` ones, of which some were `coalesced` or none.
    pub(super) fn note(&mut self, offered: usize, filled: usize, coalesced: bool) {
        if coalesced {
            self.offer = FEW;
        } else if filled >= offered {
            self.offer = self.offer.saturating_mul(2).min(MANY);
        } else if filled < self.offer / 4 {
            self.offer = (self.offer / 2).max(FEW);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes calls that bring `waiting` datagrams, as far as there is room.
    fn calls(shape: &mut Shape, count: usize, waiting: usize, coalesced: bool) {
        for _ in 0..count {
            let offered = shape.offer();
            shape.note(offered, waiting.min(offered), coalesced);
        }
    }

    #[test]
    fn single_datagrams_that_fill_calls_get_many_buffers() {
        let mut shape = Shape::default();
        assert_eq!(shape.offer(), FEW);
        calls(&mut shape, 10, 1000, false);
        assert_eq!(shape.offer(), MANY);
    }

    #[test]
    fn a_coalesced_buffer_brings_few_at_once() {
        let mut shape = Shape::default();
        calls(&mut shape, 10, 1000, false);
        calls(&mut shape, 1, 1000, true);
        assert_eq!(shape.offer(), FEW);
        calls(&mut shape, 10, 1000, true);
        assert_eq!(shape.offer(), FEW);
    }

    #[test]
    fn a_trickle_needs_few() {
        let mut shape = Shape::default();
        calls(&mut shape, 10, 1, false);
        assert_eq!(shape.offer(), FEW);
        calls(&mut shape, 10, 1000, false);
        calls(&mut shape, 10, 1, false);
        assert_eq!(shape.offer(), FEW);
        // Calls that are half filled stay as they are.
        calls(&mut shape, 10, 1000, false);
        calls(&mut shape, 10, MANY / 2, false);
        assert_eq!(shape.offer(), MANY);
    }

    #[test]
    fn a_batch_with_little_room_counts_as_filled() {
        let mut shape = Shape::default();
        shape.note(1, 1, false);
        assert_eq!(shape.offer(), 2 * FEW);
        calls(&mut shape, 100, 0, false);
        assert_eq!(shape.offer(), FEW);
    }
}
