//! The number of a state directory's format, in a file of its own: the first thing that is read, so
//! that a program never touches what a newer one has written.
//!
//! A directory without the file is of format 0, which release 0.1.0 wrote.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{atomic_file, state_file};

/// The file's name.
pub const FILE: &str = "format";
/// What stands between the program's name and the number.
const WORDS: &str = " state format ";
/// Longest file that is looked at, in bytes.
const LIMIT: usize = 128;

/// Whose state it is, and the newest format that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFormat {
    /// The program.
    pub program: &'static str,
    /// The format that this version writes.
    pub current: u32,
}

/// Why a state directory is left alone.
#[derive(Debug, Error)]
pub enum FormatError {
    /// A newer version wrote it.
    #[error(
        "{} is of state format {found}, and this version knows formats up to {known}: a newer version wrote \
         it, and nothing was changed. Run that version again, or restore a backup that this version made",
        dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// It is another program's.
    #[error(
        "{} says that the directory is not the state of {program}, and nothing was changed; name another \
         directory with --state-dir. It says: {text:?}",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Who asks.
        program: &'static str,
        /// What is in it.
        text: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StateFormat {
    /// The format of the state in `dir`; 0 where nothing says another.
    ///
    /// # Errors
    /// [`FormatError`]. Nothing is changed.
    pub fn read(&self, dir: &Path) -> Result<u32, FormatError> {
        let path = dir.join(FILE);
        let bytes = match read_file(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(FormatError::Io { path, source }),
        };
        let found = self.parse(&bytes).ok_or_else(|| {
            let shown = bytes.get(..bytes.len().min(LIMIT)).unwrap_or_default();
            FormatError::Other {
                path,
                program: self.program,
                text: String::from_utf8_lossy(shown).trim_end().to_owned(),
            }
        })?;
        self.check(dir, found)?;
        Ok(found)
    }

    /// Refuses a format that is newer than this version.
    ///
    /// # Errors
    /// [`FormatError::Newer`].
    pub fn check(&self, dir: &Path, found: u32) -> Result<(), FormatError> {
        if found > self.current {
            return Err(FormatError::Newer {
                dir: dir.to_owned(),
                found,
                known: self.current,
            });
        }
        Ok(())
    }

    /// Says, durably and at once, that the state in `dir` is of this format.
    ///
    /// # Errors
    /// What the file system says; the file is as before then.
    pub fn write(&self, dir: &Path, format: u32) -> io::Result<()> {
        let text = format!("{}{WORDS}{format}\n", self.program);
        atomic_file::write(&dir.join(FILE), text.as_bytes(), 0o600)
    }

    fn parse(&self, bytes: &[u8]) -> Option<u32> {
        let text = std::str::from_utf8(bytes.get(..bytes.len().min(LIMIT))?).ok()?;
        let number = text
            .strip_prefix(self.program)?
            .strip_prefix(WORDS)?
            .strip_suffix('\n')?;
        number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| number.parse().ok())?
    }
}

/// The file's beginning.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = state_file::open(path)?;
    file.take(LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: StateFormat = StateFormat {
        program: "gatereeve-test",
        current: 3,
    };

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        FORMAT.write(dir.path(), 1).unwrap();
        assert_eq!(FORMAT.read(dir.path()).unwrap(), 1, "the control");
        let secret = dir.path().join("secret");
        std::fs::rename(&path, &secret).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        let refused = FORMAT.read(dir.path()).unwrap_err();
        assert!(matches!(refused, FormatError::Io { .. }), "{refused}");
    }

    #[test]
    fn a_format_reads_back_and_none_is_0() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FORMAT.read(dir.path()).unwrap(), 0);
        for format in [1, 3] {
            FORMAT.write(dir.path(), format).unwrap();
            assert_eq!(FORMAT.read(dir.path()).unwrap(), format);
        }
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, "gatereeve-test state format 3\n");
    }

    #[test]
    fn newer_and_other_formats_are_refused_and_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let long = "9".repeat(4000);
        for (text, newer) in [
            ("gatereeve-test state format 4\n", true),
            ("gatereeve-test state format 4294967295\n", true),
            ("gatereeve-test state format 4294967296\n", false),
            ("gatereeve-test state format +1\n", false),
            ("gatereeve-test state format \n", false),
            ("gatereeve-test state format 1", false),
            ("gatereeve state format 1\n", false),
            ("", false),
            (&long, false),
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = FORMAT.read(dir.path()).unwrap_err();
            assert_eq!(
                matches!(refused, FormatError::Newer { .. }),
                newer,
                "{text}"
            );
            assert!(
                refused.to_string().contains("nothing was changed"),
                "{refused}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
