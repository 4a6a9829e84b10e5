//! A machine made of files, for the collectors' tests.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gatereeve_shared::time::UnixMillis;
use tempfile::TempDir;

use super::super::Host;

pub(crate) struct Fixture {
    root: TempDir,
    pub(crate) now: UnixMillis,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
            now: gatereeve_runtime::clock::Clock::now().unix,
        }
    }

    /// A file with its directories.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// A directory.
    pub(crate) fn dir(self, path: &str) -> Self {
        std::fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    /// A symbolic link; `target` is taken as it is.
    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        let path: PathBuf = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }
}

impl Host for Fixture {
    fn root(&self) -> &Path {
        self.root.path()
    }

    fn now(&self) -> UnixMillis {
        self.now
    }
}
