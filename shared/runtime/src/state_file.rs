//! Reading a service's state as somebody else, mostly root: for `doctor`, `bug-report`, `backup` and their like.
//!
//! What the service's user may write, it may also replace: by a link to what only root can read, by a pipe that
//! nobody writes to, by a file without an end. So no link is followed below the state directory, nothing but a
//! regular file is read, and of that no more than belongs there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Opens the file at `path`, which lies in the state directory itself.
///
/// # Errors
/// What the file system says; also for a link, and for what is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    regular(file)
}

/// Opens the file at `path`, which lies in a folder of the state directory; that may be no link either.
///
/// # Errors
/// As [`open`].
pub fn open_in_folder(path: &Path) -> io::Result<File> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = open_folder(folder)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(&folder, name, flags, Mode::empty())?;
    regular(File::from(file))
}

/// Opens a folder of the state directory.
///
/// # Errors
/// What the file system says; also for a link, and for what is no folder.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// What is in the file at `path`, which lies in the state directory itself and has at most `limit` bytes.
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] where it has more.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, limit)
}

/// The same, as text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] where it is no text.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// What is in an open file of at most `limit` bytes.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::FileTooLarge`] where it has more.
pub fn read_opened(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    type Open = fn(&Path) -> io::Result<File>;

    #[test]
    fn no_link_is_followed_no_pipe_waited_for_and_no_device_read() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "root:secret").unwrap();
        let folder = root.path().join("state");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("file");
        for open in [open as Open, open_in_folder as Open] {
            std::fs::write(&path, "state").unwrap();
            let bytes = read_opened(open(&path).unwrap(), 5).unwrap();
            assert_eq!(bytes, b"state", "the control");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);

            symlink(&secret, &path).unwrap();
            assert!(open(&path).is_err());
            std::fs::remove_file(&path).unwrap();
            mkfifo(&path, Mode::S_IRUSR).unwrap();
            assert!(open(&path).is_err());
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
            assert!(open(&path).is_err());
            std::fs::remove_dir(&path).unwrap();
            assert!(open(Path::new("/dev/zero")).is_err());
        }
    }

    #[test]
    fn a_folder_of_the_state_is_no_link_and_the_state_directory_may_be() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("1.log"), "x").unwrap();
        assert!(
            open_in_folder(&elsewhere.join("1.log")).is_ok(),
            "the control"
        );
        let link = root.path().join("journal");
        symlink(&elsewhere, &link).unwrap();
        assert!(open_in_folder(&link.join("1.log")).is_err());
        assert!(open(&link.join("1.log")).is_ok());
    }

    #[test]
    fn a_file_has_no_more_than_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_to_string(&path, 5).unwrap(), "12345");
        let refused = read(&path, 4).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).unwrap();
        let refused = read_to_string(&path, 5).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
