//! What a configured peer takes and what its packets take, as asked of the allocator; and beside it, over the same devices, what
//! the timers look at and what packets say of congestion outside.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod allocator;
mod congestion;
mod peers;
mod steady;
mod timers;
mod wire;
