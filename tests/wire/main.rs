//! The control protocol's bytes, frozen, and its decoders under hostile input.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that cannot be set up has failed"
)]

mod golden;
mod hostile;
mod samples;
