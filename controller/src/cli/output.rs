//! Printing: for people, or one JSON object for machines. The only place that writes to the streams.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use gatereeve_controller_core::policy;
use gatereeve_runtime::exit::ExitStatus;
use serde::Serialize;

use super::failure::Failure;

/// Where output goes.
pub struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_is_terminal: bool,
    err_is_terminal: bool,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

impl Streams {
    /// Standard output and standard error.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Other places, none of them a terminal.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            err,
            out_is_terminal: false,
            err_is_terminal: false,
        }
    }

    /// Help, version, or what is wrong with the arguments.
    pub(super) fn usage(&mut self, error: &clap::Error) -> ExitStatus {
        let (stream, is_terminal, status) = if error.use_stderr() {
            (&mut self.err, self.err_is_terminal, ExitStatus::USAGE)
        } else {
            (&mut self.out, self.out_is_terminal, ExitStatus::DONE)
        };
        let text = error.render();
        let text = if is_terminal && colours_wanted() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        drop(stream.write_all(text.as_bytes()));
        status
    }
}

/// Whether the environment lets us use colours (<https://no-color.org>).
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a command's answer.
#[derive(Debug)]
pub struct Printer<'a> {
    streams: &'a mut Streams,
    json: bool,
}

impl<'a> Printer<'a> {
    /// A printer to `streams`.
    pub fn new(streams: &'a mut Streams, json: bool) -> Self {
        Self { streams, json }
    }

    /// Whether machines read it.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One answer: the object, or a text for people.
    ///
    /// # Errors
    /// The object cannot be written as JSON. That nobody reads any more is no error.
    pub fn answer(
        &mut self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut output = if self.json {
            to_json(object)?
        } else if self.streams.out_is_terminal {
            harmless(&text())
        } else {
            text()
        };
        if !output.ends_with('\n') {
            output.push('\n');
        }
        drop(self.streams.out.write_all(output.as_bytes()));
        drop(self.streams.out.flush());
        Ok(())
    }

    /// One of many answers, on a line of its own; false when nobody reads any more.
    ///
    /// # Errors
    /// See [`Self::answer`].
    pub fn line(
        &mut self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<bool, Failure> {
        let mut output = if self.json { to_json(object)? } else { text() };
        output.push('\n');
        Ok(self.streams.out.write_all(output.as_bytes()).is_ok())
    }

    /// Makes sure that all lines are out.
    pub fn flush(&mut self) {
        drop(self.streams.out.flush());
    }

    /// A remark beside the answer.
    pub fn note(&mut self, text: &str) {
        drop(writeln!(self.streams.err, "{text}"));
    }

    /// Problems in a policy file, with the lines they are about.
    pub fn problems(
        &mut self,
        problems: &[gatereeve_controller_core::command::PolicyProblem],
        text: &str,
        name: &str,
    ) {
        let color = self.streams.err_is_terminal && colours_wanted();
        let rendered = policy::render(problems, text, name, color);
        drop(writeln!(self.streams.err, "{}", rendered.trim_end()));
    }

    /// Why the command failed. Machines get it on standard error too, as an object.
    pub fn failure(&mut self, failure: &Failure) -> ExitStatus {
        if self.json {
            let object = serde_json::json!({
                "error": {
                    "exit_status": failure.status.0,
                    "message": failure.message,
                    "problems": failure.problems,
                }
            });
            drop(writeln!(self.streams.err, "{object}"));
            return failure.status;
        }
        if let (false, Some((name, text))) = (failure.problems.is_empty(), &failure.file) {
            self.problems(&failure.problems, text, name);
        }
        let bold = self.streams.err_is_terminal && colours_wanted();
        let label = if bold {
            "\u{1b}[1;31merror:\u{1b}[0m"
        } else {
            "error:"
        };
        drop(writeln!(self.streams.err, "{label} {}", failure.message));
        failure.status
    }
}

fn to_json(object: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(object)
        .map_err(|error| Failure::new(ExitStatus::FAILED, format!("cannot print JSON: {error}")))
}

/// The text without anything that a terminal would obey.
fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\n"), "a\\u{1b}[2Jb\tc\n");
    }
}
