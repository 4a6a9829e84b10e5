//! Man pages and shell completions of a program, made from its own tree of commands, so that they say
//! what the program says.
//!
//! * [`completions`]: the script of one shell.
//! * [`Manual`]: a page for the program and one for each command that shows in its help.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod notes;
mod pages;

pub use clap_complete::Shell;
pub use pages::Manual;

/// The completion script of `shell` for the program `command`.
#[must_use]
pub fn completions(mut command: clap::Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests;
