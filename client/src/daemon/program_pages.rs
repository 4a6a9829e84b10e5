//! What of the program itself is resident without being used.
//!
//! The dynamic linker reads half a megabyte of relocations, and a start much besides, which nobody looks at again.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Where the kernel lists what a process has mapped, with the program first.
const MAPS: &str = "/proc/self/maps";

/// Where the program's tables are mapped: relocations, constants, and what unwinding takes.
#[derive(Debug)]
pub(super) struct Tables(Range<usize>);

impl Tables {
    /// `None` where the kernel does not say where they are. A confined process is not told.
    pub(super) fn find() -> Option<Self> {
        let maps = std::fs::read_to_string(MAPS).ok()?;
        maps.lines().next().and_then(tables).map(Self)
    }

    /// Lets go of them. What is used comes back, from the page cache, when it is.
    pub(super) fn let_go(&self) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(self.0.start);
        let Some(start) = NonNull::new(start) else {
            return;
        };
        #[expect(
            unsafe_code,
            reason = "no safe crate advises about the program's own pages"
        )]
        // SAFETY: nothing was ever written to this mapping, whose pages are the file's: they read the same when they come back.
        let gone = unsafe { madvise(start, self.0.len(), MmapAdvise::MADV_DONTNEED) };
        if let Err(errno) = gone {
            tracing::debug!(%errno, "the program's tables stay resident");
        }
    }
}

/// Where a line of [`MAPS`] says that the beginning of a file is mapped to be read only, which was never written to: the linker
/// writes to segments behind it.
fn tables(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let [rights, offset, _device, inode] = [(); 4].map(|()| fields.next());
    let is_file = inode?.parse::<u64>().is_ok_and(|inode| inode > 0);
    if rights? != "r--p" || usize::from_str_radix(offset?, 16) != Ok(0) || !is_file {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mapping_is_tables_where_it_is_a_file_from_its_beginning_to_be_read() {
        let line = |rights: &str, offset: &str, inode: u32| {
            format!(
                "55d0c8a00000-55d0c8cdd000 {rights} {offset} fe:01 {inode}     /usr/bin/gatereeve"
            )
        };
        let found = |rights, offset, inode| tables(&line(rights, offset, inode));
        let expected = 0x55d0_c8a0_0000..0x55d0_c8cd_d000;
        assert_eq!(found("r--p", "00000000", 7), Some(expected));
        // What the linker has written to is read-only, too, but no beginning; code, what is written, and no file.
        assert_eq!(found("r--p", "00b8e000", 7), None);
        assert_eq!(found("r-xp", "00000000", 7), None);
        assert_eq!(found("rw-p", "00000000", 7), None);
        assert_eq!(found("r--p", "00000000", 0), None);
        for broken in [
            "",
            "55d0c8a00000",
            "55d0-zz r--p 00000000 fe:01 7",
            "a-b r--p 0 fe:01",
        ] {
            assert_eq!(tables(broken), None, "{broken}");
        }
    }

    #[test]
    fn tables_are_gone_until_they_are_used() {
        // A constant that this process alone has mapped.
        let tables = Tables::find().unwrap();
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let rss = smaps.lines().find_map(|line| line.strip_prefix("Rss:"));
            let kib = rss.and_then(|text| text.split_whitespace().next());
            kib.unwrap().parse::<usize>().unwrap()
        };
        let bytes = || {
            let start = std::ptr::with_exposed_provenance::<u8>(tables.0.start);
            #[expect(unsafe_code, reason = "the mapping is no object of the language's")]
            // SAFETY: it is mapped to be read, wholly, as long as the process lives.
            let bytes = unsafe { std::slice::from_raw_parts(start, tables.0.len()) };
            bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()
        };
        let before = (bytes(), resident());
        tables.let_go();
        let after = resident();
        assert!(after < before.1, "{after} of {before:?} KiB");
        assert_eq!(bytes(), before.0, "they come back as they were");
    }
}
