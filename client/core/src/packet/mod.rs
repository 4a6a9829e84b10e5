//! Inner packets. Bytes from outside are hostile, and nothing else in the crate parses them: every
//! access is checked, every sum too.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod answer;
pub(crate) mod checksum;
pub mod flow;
pub(crate) mod fragment;
pub mod ip;
pub(crate) mod join;
pub(crate) mod mss;
pub mod offload;
pub mod segment;

pub use flow::FlowKey;
pub use ip::{Fragment, IpPacket, Quoted, Transport};

/// Bytes of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn put(out: &mut [u8], at: usize, field: &[u8]) -> Option<()> {
    out.get_mut(at..at.checked_add(field.len())?)?
        .copy_from_slice(field);
    Some(())
}

#[doc(hidden)]
pub mod samples;

#[cfg(test)]
mod tests;
