//! Standard error for the log, without waiting for who reads it.
//!
//! A pipe that nobody empties, or a journal that hangs, would hold up whoever logs: the task that has to cut a device off,
//! say. So a line is written only as far as it goes in at once, and what does not is lost, counted, and told of as soon as there
//! is room again. A pipe holds some hundred lines, and the socket that systemd makes for the journal some thousand.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of one write: as many as go into a pipe, or a socket, in one piece once it says that it takes any (`PIPE_BUF`,
/// pipe(7); a stream socket of Unix says so while three quarters are free).
const PIECE: usize = 4096;

/// Takes whole lines. Never waits, and never fails.
#[derive(Debug)]
pub(crate) struct LogOutput<W> {
    to: W,
    json: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The end of a line whose beginning has been written.
    rest: Vec<u8>,
    /// Lines that were not written since one was.
    lost: u64,
}

impl<W: AsFd> LogOutput<W> {
    /// Writes to `to`; with `json`, what it has to say itself is JSON as well.
    pub(crate) fn new(to: W, json: bool) -> Self {
        Self {
            to,
            json,
            state: Mutex::default(),
        }
    }

    fn line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { rest, lost } = &mut *state;
        let before = std::mem::take(rest);
        *rest = written(self.to.as_fd(), before);
        if !rest.is_empty() {
            *lost = lost.saturating_add(1);
            return;
        }
        let mut text = Vec::new();
        if *lost > 0 {
            text = told(*lost, self.json).into_bytes();
        }
        text.extend_from_slice(line);
        let len = text.len();
        *rest = written(self.to.as_fd(), text);
        if rest.len() == len {
            // Nothing of it is out, so nobody misses the rest.
            rest.clear();
            *lost = lost.saturating_add(1);
        } else {
            *lost = 0;
        }
    }
}

/// What a reader is told in the place of lines.
fn told(lost: u64, json: bool) -> String {
    let said = format!("{lost} lines of this log are missing: nobody took them");
    if json {
        format!("{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{said}\"}}}}\n")
    } else {
        format!(" WARN {said}\n")
    }
}

/// Writes as much as goes in at once; what is left.
fn written(to: BorrowedFd<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let mut ready = [PollFd::new(to, PollFlags::POLLOUT)];
        match poll(&mut ready, PollTimeout::ZERO) {
            Err(Errno::EINTR) => continue,
            Ok(0) => break,
            // Where it is closed or broken, the write says so.
            Ok(_) | Err(_) => {}
        }
        match nix::unistd::write(to, rest.get(..PIECE).unwrap_or(rest)) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) | Ok(0) => break,
            // Nobody will ever read it.
            Err(_) => return Vec::new(),
            Ok(len) => done = done.saturating_add(len),
        }
    }
    bytes.drain(..done.min(bytes.len()));
    bytes
}

/// One line, as the formatter makes it.
pub(crate) struct Line<'a, W>(&'a LogOutput<W>);

impl<W: AsFd> io::Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: AsFd + 'a> MakeWriter<'a> for LogOutput<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LINES: usize = 20_000;

    fn line(number: usize) -> String {
        format!("{number} {}\n", "x".repeat(number % 300))
    }

    /// Writes many lines that nobody reads, reads what is there, and writes one more; all that came.
    fn overrun<W>(to: W, mut from: impl io::Read) -> String
    where
        W: AsFd + Send + 'static,
    {
        let (sender, done) = mpsc::channel();
        std::thread::spawn(move || {
            let output = LogOutput::new(to, false);
            for number in 0..LINES {
                output.line(line(number).as_bytes());
            }
            // The test may have given up.
            drop(sender.send(output));
        });
        let output = done
            .recv_timeout(Duration::from_secs(60))
            .expect("it waits for a reader");
        let mut first = vec![0; 1 << 16];
        let mut text = Vec::new();
        // Less than what is under way, so that this does not wait.
        let len = from.read(&mut first).unwrap();
        text.extend_from_slice(&first[..len]);
        output.line(b"the last one\n");
        drop(output);
        from.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn check(text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        let told = lines
            .iter()
            .position(|line| line.contains("are missing"))
            .unwrap();
        let lost: usize = lines[told]
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(lines[told + 1..], ["the last one"]);
        // What came is whole, in order, and all but what is said to be missing.
        for (number, came) in lines[..told].iter().enumerate() {
            assert_eq!(format!("{came}\n"), line(number));
        }
        assert_eq!(told + lost, LINES);
        assert!(told > 50 && lost > 100, "{told} {lost}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (from, to) = io::pipe().unwrap();
        check(&overrun(to, from));
    }

    #[test]
    fn nor_does_a_socket_as_the_journal_has_it() {
        let (from, to) = UnixStream::pair().unwrap();
        check(&overrun(to, from));
    }

    #[test]
    fn lines_that_are_read_all_come() {
        let (mut from, to) = io::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).map(|_| text)
        });
        let output = LogOutput::new(to, false);
        let long = "y".repeat(30_000);
        for number in 0..300 {
            output.line(line(number).as_bytes());
            // The reader has a turn.
            std::thread::sleep(Duration::from_millis(1));
        }
        output.line(long.as_bytes());
        drop(output);
        let expected: String = (0..300).map(line).chain([long]).collect();
        assert_eq!(reader.join().unwrap().unwrap(), expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (from, to) = io::pipe().unwrap();
        drop(from);
        let output = LogOutput::new(to, false);
        output.line(b"nobody\n");
        assert!(output.state.lock().unwrap().rest.is_empty());
    }

    #[test]
    fn json_stays_json() {
        let told = told(3, true);
        let value: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(value["level"], "WARN");
        assert!(
            value["fields"]["message"]
                .as_str()
                .unwrap()
                .starts_with("3 lines")
        );
    }
}
