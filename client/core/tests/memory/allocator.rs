//! The system's allocator, with counts of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

// Of each thread its own: tests run side by side, and what the others ask for is no part of what is counted.
thread_local! {
    /// Bytes. Far from zero, for a thread may give back what another one took.
    static TAKEN: Cell<usize> = const { Cell::new(usize::MAX / 2) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The system's, with a count of what is taken and not given back, and of the calls.
struct Counting;

/// One call: so many bytes are taken, and so many are given back.
fn called(taken: usize, given_back: usize) {
    TAKEN.set(TAKEN.get().wrapping_add(taken).wrapping_sub(given_back));
    CALLS.set(CALLS.get().wrapping_add(1));
}

#[expect(
    unsafe_code,
    reason = "counts, and leaves the work to the system's allocator"
)]
// SAFETY: all functions do what the system's do, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        called(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        called(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        called(size, layout.size());
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        called(0, layout.size());
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Bytes that this thread has taken and not given back.
pub(crate) fn taken() -> usize {
    TAKEN.get()
}

/// How often this thread has called the allocator, be it to give something back.
pub(crate) fn calls() -> usize {
    CALLS.get()
}
