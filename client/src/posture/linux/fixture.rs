//! A machine made of files, for the collectors' tests.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gatereeve_shared::time::UnixMillis;
use tempfile::TempDir;

use super::super::{Host, RunError};

pub(crate) struct Fixture {
    root: TempDir,
    pub(crate) now: UnixMillis,
    outputs: BTreeMap<String, Result<String, RunError>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
            now: gatereeve_runtime::clock::Clock::now().unix,
            outputs: BTreeMap::new(),
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

    /// What a program prints, by the last part of its path.
    pub(crate) fn prints(mut self, program: &str, output: &str) -> Self {
        self.outputs
            .insert(program.to_owned(), Ok(output.to_owned()));
        self
    }

    /// A program that fails.
    pub(crate) fn fails(mut self, program: &str, why: &str) -> Self {
        self.outputs
            .insert(program.to_owned(), Err(RunError::Failed(why.to_owned())));
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

    fn run(&self, paths: &[&str], _arguments: &[&str]) -> Result<String, RunError> {
        paths
            .iter()
            .filter_map(|path| path.rsplit('/').next())
            .find_map(|name| self.outputs.get(name).cloned())
            .unwrap_or(Err(RunError::Absent))
    }
}
