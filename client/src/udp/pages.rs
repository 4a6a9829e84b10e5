//! Giving memory back to the kernel without giving up its addresses.

use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Bytes of a page, or of several: the largest that Linux has on the processors it runs on.
const PAGE: usize = 64 * 1024;

/// What is in `bytes` is not needed any more: whole pages of it read as zeros, and take no memory until they are
/// written to again.
pub(super) fn give_back(bytes: &mut [u8]) {
    let before = bytes.as_ptr().align_offset(PAGE);
    let Some(inner) = bytes.get_mut(before..) else {
        return;
    };
    let len = inner.len() / PAGE * PAGE;
    if len == 0 {
        return;
    }
    #[expect(unsafe_code, reason = "no safe crate advises about borrowed memory")]
    // SAFETY: the pages are wholly within `inner`, which is borrowed to be written to, and any bytes are bytes.
    let given = unsafe { madvise(NonNull::from(inner).cast(), len, MmapAdvise::MADV_DONTNEED) };
    if let Err(errno) = given {
        tracing::debug!(%errno, "memory of the receive buffers is not given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_emptied_and_what_is_beside_them_is_not() {
        let mut bytes = vec![7_u8; 4 * PAGE];
        let end = bytes.len() - 1;
        give_back(&mut bytes[1..end]);
        assert_eq!((bytes[0], bytes[end]), (7, 7));
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        assert!(zeros == 2 * PAGE || zeros == 3 * PAGE, "{zeros}");
        bytes.fill(9);
        assert!(bytes.iter().all(|byte| *byte == 9), "it is there again");
        give_back(&mut bytes[..10]);
        assert_eq!(bytes[0], 9, "less than a page");
    }
}
