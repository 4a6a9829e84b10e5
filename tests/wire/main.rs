//! The control protocol's bytes, frozen, and its decoders under hostile input.

mod golden;
mod hostile;
mod samples;
