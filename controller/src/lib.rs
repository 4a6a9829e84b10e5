//! placeholder

pub mod quic;
