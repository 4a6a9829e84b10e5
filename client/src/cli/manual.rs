//! The manual and the completions of this command line, for packages and for people.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use gatereeve_manual::{Manual, Shell, completions};

use super::output::Printer;
use super::{Cli, Failure};

/// Under the help of `completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  gatereeve completions bash > /usr/share/bash-completion/completions/gatereeve
  gatereeve completions zsh > /usr/share/zsh/vendor-completions/_gatereeve
  gatereeve completions fish > ~/.config/fish/completions/gatereeve.fish

The OS packages bring them along.";

const MANUAL: Manual<'static> = Manual {
    files: &[
        (
            "/etc/gatereeve/client.toml",
            "Settings; every one has a default.",
        ),
        (
            "/etc/gatereeve/facts.d/",
            "JSON files with facts of the administrator's own; owned by root, and writable by root alone.",
        ),
        (
            "/var/lib/gatereeve/",
            "Identity, keys and the last map; mode 0700.",
        ),
        ("/run/gatereeve/gatereeve.sock", "The daemon's socket."),
    ],
    see_also: &["gatereeve-controller(8)", "systemctl(1)", "wg(8)"],
};

pub(super) fn print_completions(shell: Shell, printer: &mut Printer) -> Result<u8, Failure> {
    printer
        .text(&completions(Cli::command(), shell))
        .map(|()| 0)
}

pub(super) fn write_pages(directory: &Path) -> Result<u8, Failure> {
    MANUAL
        .write(Cli::command(), directory)
        .map(|_| 0)
        .with_context(|| format!("cannot write the man pages to {}", directory.display()))
        .map_err(|error| Failure::failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_shows_is_in_the_manual_and_completed() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let top = std::fs::read_to_string(directory.path().join("gatereeve.8")).unwrap();
        let top = top.replace('\\', "");
        let scripts =
            [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| completions(Cli::command(), shell));
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let page = directory.path().join(format!("gatereeve-{name}.8"));
            assert_eq!(page.exists(), !command.is_hide_set(), "{name}");
            if command.is_hide_set() {
                continue;
            }
            assert!(top.contains(&format!("gatereeve-{name}(8)")), "{name}");
            for script in &scripts {
                assert!(script.contains(name), "{name}");
            }
        }
    }
}
