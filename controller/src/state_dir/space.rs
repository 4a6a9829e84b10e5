//! The room that the state takes, and what is left of it.

use std::io;

use gatereeve_controller_core::command::DiskUse;
use gatereeve_shared::text::bytes;

use super::StateDir;
use crate::journal::scan::segments;

/// With less than this the status warns. Days of records of a large network fit into it.
const LOW: u64 = 512 << 20;

/// Measures.
///
/// # Errors
/// Where the journal's folder or its file system cannot be read.
pub fn measure(dir: &StateDir) -> io::Result<DiskUse> {
    let path = dir.journal();
    let system = nix::sys::statvfs::statvfs(&path)?;
    let mut journal = 0u64;
    for segment in segments(&path).map_err(io::Error::other)? {
        journal = journal.saturating_add(std::fs::metadata(&segment.path)?.len());
    }
    Ok(DiskUse {
        journal,
        free: system
            .blocks_available()
            .saturating_mul(system.fragment_size()),
    })
}

/// What an administrator should know of it, if anything.
#[must_use]
pub fn warning(disk: DiskUse) -> Option<String> {
    (disk.free < LOW).then(|| {
        format!(
            "only {} are left where the state is (the journal takes {}); a full disk refuses every \
             change, so make room",
            bytes(disk.free),
            bytes(disk.journal)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_warned_of_and_much_is_not() {
        let of = |free| DiskUse { journal: 1, free };
        assert_eq!(warning(of(LOW)), None);
        let text = warning(of(100 << 20)).unwrap();
        assert!(text.contains("only 100.0 MiB are left"), "{text}");
    }

    #[test]
    fn segments_are_measured() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        assert!(measure(&dir).is_err(), "no journal, no answer");
        std::fs::create_dir(dir.journal()).unwrap();
        for (first, length) in [(1, 100), (2, 50)] {
            let path = crate::journal::scan::segment_path(&dir.journal(), first);
            std::fs::write(path, vec![0; length]).unwrap();
        }
        std::fs::write(dir.journal().join("other"), [0; 7]).unwrap();
        let disk = measure(&dir).unwrap();
        assert_eq!(disk.journal, 150);
        assert!(disk.free > 0);
    }
}
