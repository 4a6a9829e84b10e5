//! The Internet checksum.

/// The ones' complement sum of some bytes, in the machine's byte order, not yet folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 2^14 words of 32 bits are far from what 64 bits hold; wrapping keeps the loop a vector loop.
    let total = words.iter().fold(0_u64, |total, word| {
        total.wrapping_add(u64::from(u32::from_ne_bytes(*word)))
    });
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total.wrapping_add(u64::from(u32::from_ne_bytes(last)))
}

/// Sixteen bits of it, as they stand in a packet.
pub(crate) fn fold(sum: u64) -> [u8; 2] {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX).to_ne_bytes()
}

/// What goes into the field: the complement.
pub(crate) fn finish(sum: u64) -> [u8; 2] {
    fold(sum).map(|byte| !byte)
}

/// The sum of the pseudo-header of a packet of `protocol` with `length` bytes of transport.
pub(crate) fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    sum(addresses) + sum(&length) + sum(&[0, 0, 0, protocol])
}
