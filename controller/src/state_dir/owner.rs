//! Whose state it is.
//!
//! A service has a user of its own, and its state directory belongs to that user. When root makes the state
//! there, by `init` or `restore`, the service must be able to read it: root becomes that user first, and so
//! follows no link that the user may have put there, either.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Becomes the owner of the state directory `root` for good, where this is root and the directory is there
/// and another user's. Call it before there are threads.
///
/// # Errors
/// The kernel refuses.
pub fn become_owner(root: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(root) else {
        return Ok(());
    };
    let Some((uid, gid)) = owner_to_become(Uid::effective(), &metadata) else {
        return Ok(());
    };
    setgroups(&[])
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .with_context(|| {
            format!(
                "cannot become user {uid}, whose directory {} is; run this as that user",
                root.display()
            )
        })
}

fn owner_to_become(own: Uid, metadata: &Metadata) -> Option<(Uid, Gid)> {
    let owner = Uid::from_raw(metadata.uid());
    (own.is_root() && metadata.is_dir() && !owner.is_root())
        .then(|| (owner, Gid::from_raw(metadata.gid())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_another() {
        let directory = tempfile::tempdir().unwrap();
        let of = |path: &Path| std::fs::symlink_metadata(path).unwrap();
        let root = Uid::from_raw(0);
        let own = of(directory.path());
        let expected =
            (own.uid() != 0).then(|| (Uid::from_raw(own.uid()), Gid::from_raw(own.gid())));
        assert_eq!(owner_to_become(root, &own), expected);
        assert_eq!(owner_to_become(Uid::from_raw(4711), &own), None);
        if !Uid::effective().is_root() {
            return;
        }
        std::os::unix::fs::chown(directory.path(), Some(4711), Some(4712)).unwrap();
        let theirs = of(directory.path());
        let became = owner_to_become(root, &theirs);
        assert_eq!(became, Some((Uid::from_raw(4711), Gid::from_raw(4712))));
        assert_eq!(owner_to_become(Uid::from_raw(4711), &theirs), None);
        // A link is no directory: nobody is led elsewhere by it.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
        assert_eq!(owner_to_become(root, &of(&link)), None);
    }

    #[test]
    fn where_nothing_is_nothing_changes() {
        let before = Uid::effective();
        become_owner(Path::new("/nowhere/at/all")).unwrap();
        assert_eq!(Uid::effective(), before);
    }
}
