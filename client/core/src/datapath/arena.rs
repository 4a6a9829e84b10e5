//! Memory that is written to from the beginning again and again.

use std::ops::Range;

/// Byte strings of any length, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

impl Arena {
    /// Room for up to `len` more.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used.saturating_add(len);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).unwrap_or_default()
    }

    /// Keeps the first `len` bytes of the room.
    pub(super) fn commit(&mut self, len: usize) -> Range<usize> {
        let start = self.used;
        self.used = start.saturating_add(len).min(self.bytes.len());
        start..self.used
    }

    /// All of the memory, to be indexed with what [`Self::commit`] gave.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn get(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Forgets them, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}
