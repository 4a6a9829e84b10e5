//! Standard error for the log, without waiting for who reads it.
//!
//! A pipe that nobody empties, or a journal that hangs, would hold up whoever logs: the task that has to cut a device off,
//! say. So a line is written only as far as it goes in at once; what does not is lost and counted, and told of before the next line
//! that goes in. A pipe holds some hundred lines, and the socket that systemd makes for the journal some thousand.
//!
//! Two waits are left. A file is written as ever: the kernel knows of no way not to wait for a disk there. And a pipe that cannot be
//! opened again, as one of another user's cannot, is asked before each write whether it takes any; whoever else writes into it may be
//! faster.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of one write to what cannot be opened again: as many as go into a pipe in one piece once it says that it takes any
/// (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;
/// How long the end of the log may be waited for, when the program ends.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Takes whole lines. Never waits for a reader, and never fails. Copies write to the same.
#[derive(Clone, Debug)]
pub(crate) struct LogOutput(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    to: Target,
    json: bool,
    state: Mutex<State>,
}

/// Where it goes, by how one does not wait there.
#[derive(Debug)]
enum Target {
    /// A pipe or a terminal, opened once more: whether one waits belongs to what was opened, which others have a part in.
    Opened(File),
    /// A socket, which is asked not to wait each time.
    Socket(OwnedFd),
    /// A file, or what could not be opened again, which is asked whether it takes any.
    Other(OwnedFd),
    /// There is none.
    Nowhere,
}

#[derive(Debug, Default)]
struct State {
    /// The end of a line whose beginning has been written.
    rest: Vec<u8>,
    /// Lines that were not written since one was.
    lost: u64,
}

impl Target {
    fn of(fd: BorrowedFd<'_>) -> Self {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let (Ok(same), Ok(kind)) = (fd.try_clone_to_owned(), std::fs::metadata(&path)) else {
            return Self::Nowhere;
        };
        let kind = kind.file_type();
        if kind.is_socket() {
            return Self::Socket(same);
        }
        if kind.is_fifo() || kind.is_char_device() {
            let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let mut options = OpenOptions::new();
            if let Ok(opened) = options.write(true).custom_flags(flags.bits()).open(&path) {
                return Self::Opened(opened);
            }
        }
        Self::Other(same)
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Opened(file) => nix::unistd::write(file, bytes),
            Self::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(socket.as_raw_fd(), bytes, flags)
            }
            Self::Other(other) if takes_any(other.as_fd(), PollTimeout::ZERO)? => {
                nix::unistd::write(other, bytes.get(..PIECE).unwrap_or(bytes))
            }
            Self::Other(_) => Err(Errno::EAGAIN),
            Self::Nowhere => Err(Errno::EBADF),
        }
    }

    /// Waits until it takes some, for a while.
    fn wait(&self, timeout: Duration) {
        let to = match self {
            Self::Opened(file) => file.as_fd(),
            Self::Socket(fd) | Self::Other(fd) => fd.as_fd(),
            Self::Nowhere => return,
        };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        // What it says is seen when it is written to.
        let _ = takes_any(to, timeout);
    }
}

fn takes_any(to: BorrowedFd<'_>, timeout: PollTimeout) -> nix::Result<bool> {
    let mut ready = [PollFd::new(to, PollFlags::POLLOUT)];
    poll(&mut ready, timeout).map(|ready| ready > 0)
}

impl LogOutput {
    /// Writes to standard error; with `json`, what it has to say itself is JSON as well.
    pub(crate) fn standard_error(json: bool) -> Self {
        Self::new(Target::of(io::stderr().as_fd()), json)
    }

    fn new(to: Target, json: bool) -> Self {
        Self(Arc::new(Shared {
            to,
            json,
            state: Mutex::default(),
        }))
    }

    fn line(&self, line: &[u8]) {
        let Shared { to, json, state } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.go_on(to, *json);
        if state.is_behind() {
            state.lost = state.lost.saturating_add(1);
            return;
        }
        let rest = written(to, line);
        if rest.len() == line.len() {
            // Nothing of it is out, so nobody misses the rest.
            state.lost = 1;
        } else {
            state.rest = rest.to_vec();
        }
    }

    /// Says what is left to say, if that takes no longer than a moment. For the end of the program.
    pub(crate) fn finish(&self) {
        let Shared { to, json, state } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.go_on(to, *json);
        if state.is_behind() {
            to.wait(LAST_WORDS);
            state.go_on(to, *json);
        }
    }
}

impl State {
    /// Writes what comes before any other line: the rest of one, and how many are missing.
    fn go_on(&mut self, to: &Target, json: bool) {
        self.rest = written(to, &self.rest).to_vec();
        if self.rest.is_empty() && self.lost > 0 {
            let notice = told(self.lost, json);
            let rest = written(to, notice.as_bytes());
            if rest.len() < notice.len() {
                (self.rest, self.lost) = (rest.to_vec(), 0);
            }
        }
    }

    fn is_behind(&self) -> bool {
        !self.rest.is_empty() || self.lost > 0
    }
}

/// What a reader is told in the place of lines.
fn told(lost: u64, json: bool) -> String {
    let said = "lines are missing from this log, as nobody took them";
    if json {
        format!("{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{said}\",\"lines\":{lost}}}}}\n")
    } else {
        format!(" WARN {said} lines={lost}\n")
    }
}

/// Writes as much as goes in at once; what is left.
fn written<'a>(to: &Target, bytes: &'a [u8]) -> &'a [u8] {
    let mut rest = bytes;
    while !rest.is_empty() {
        match to.write(rest) {
            Err(Errno::EINTR) => {}
            // Full; or broken for now, or for good: then nobody reads what is counted.
            Err(_) | Ok(0) => break,
            Ok(len) => rest = rest.get(len..).unwrap_or_default(),
        }
    }
    rest
}

/// One line, as the formatter makes it.
pub(crate) struct Line<'a>(&'a LogOutput);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    const LINES: usize = 3_000;

    /// Short ones, and every seventh longer than goes into a pipe in one piece.
    fn line(number: usize) -> String {
        let length = if number % 7 == 6 {
            10_000 + number
        } else {
            number % 300
        };
        format!("{number} {}\n", "x".repeat(length))
    }

    /// Writes many lines that nobody reads, has some read, writes on, and has all read.
    fn overrun(to: Target, mut from: impl io::Read) -> String {
        let (sender, done) = mpsc::channel();
        std::thread::spawn(move || {
            let output = LogOutput::new(to, false);
            for number in 0..LINES {
                output.line(line(number).as_bytes());
            }
            output.finish();
            // The test may have given up.
            drop(sender.send(output));
        });
        let output = done
            .recv_timeout(Duration::from_secs(60))
            .expect("it waits for a reader");
        let mut some = vec![0; 1 << 16];
        let mut text = Vec::new();
        // Less than what is under way, so that this does not wait.
        for _ in 0..2 {
            let len = from.read(&mut some).unwrap();
            text.extend_from_slice(&some[..len]);
            output.line(b"one of the last\n");
        }
        output.finish();
        drop(output);
        from.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// What came is whole and in order, and everything else is said to be missing.
    fn check(text: &str) {
        let (mut came, mut missing, mut next) = (0, 0, 0);
        for line_there in text.lines() {
            if let Some((_, lines)) = line_there.split_once("lines=") {
                missing += lines.parse::<usize>().unwrap();
                continue;
            }
            came += 1;
            if line_there == "one of the last" {
                continue;
            }
            let number = line_there.split(' ').next().unwrap().parse().unwrap();
            assert!(number >= next, "{number}");
            assert_eq!(format!("{line_there}\n"), line(number));
            next = number + 1;
        }
        assert_eq!(came + missing, LINES + 2);
        assert!(came > 5 && missing > 100, "{came} {missing}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (from, to) = io::pipe().unwrap();
        let target = Target::of(to.as_fd());
        assert!(matches!(target, Target::Opened(_)), "{target:?}");
        drop(to);
        check(&overrun(target, from));
    }

    #[test]
    fn nor_does_one_that_cannot_be_opened_again() {
        let (from, to) = io::pipe().unwrap();
        check(&overrun(Target::Other(to.into()), from));
    }

    #[test]
    fn nor_does_a_socket_as_the_journal_has_it() {
        let (from, to) = UnixStream::pair().unwrap();
        let target = Target::of(to.as_fd());
        assert!(matches!(target, Target::Socket(_)), "{target:?}");
        drop(to);
        check(&overrun(target, from));
    }

    #[test]
    fn a_file_has_it_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = LogOutput::new(Target::of(file.as_file().as_fd()), false);
        for number in 0..LINES {
            output.line(line(number).as_bytes());
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text == (0..LINES).map(line).collect::<String>());
    }

    #[test]
    fn lines_that_are_read_all_come() {
        let (mut from, to) = io::pipe().unwrap();
        let output = LogOutput::new(Target::of(to.as_fd()), false);
        drop(to);
        for number in 0..5 {
            output.line(line(number).as_bytes());
        }
        output.finish();
        drop(output);
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        assert_eq!(text, (0..5).map(line).collect::<String>());
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (from, to) = io::pipe().unwrap();
        let output = LogOutput::new(Target::of(to.as_fd()), false);
        drop(from);
        output.line(b"nobody\n");
        output.finish();
        LogOutput::new(Target::Nowhere, false).line(b"nowhere\n");
    }

    #[test]
    fn json_stays_json() {
        let value: serde_json::Value = serde_json::from_str(&told(3, true)).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["fields"]["lines"], 3);
    }
}
