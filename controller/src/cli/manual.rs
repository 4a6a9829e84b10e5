//! The manual and the completions of this command line, for packages and for people.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use gatereeve_manual::{Manual, Shell, completions};
use gatereeve_runtime::exit::ExitStatus;
use serde::Serialize;

use super::Cli;
use super::failure::Failure;
use super::output::Printer;

/// Under the help of `completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  gatereeve-controller completions bash > /usr/share/bash-completion/completions/gatereeve-controller
  gatereeve-controller completions zsh > /usr/share/zsh/vendor-completions/_gatereeve-controller
  gatereeve-controller completions fish > ~/.config/fish/completions/gatereeve-controller.fish

The OS packages bring them along.";

const MANUAL: Manual<'static> = Manual {
    files: &[
        (
            "/etc/gatereeve/controller.toml",
            "Settings; every one has a default.",
        ),
        (
            "/var/lib/gatereeve-controller/",
            "The network: its keys, journal and tables; mode 0700, of the user gatereeve-controller. Back it up.",
        ),
        (
            "/run/gatereeve-controller/admin.sock",
            "The admin socket: who may use it administrates.",
        ),
    ],
    see_also: &["gatereeve(8)", "systemctl(1)"],
};

/// What `completions --json` prints.
#[derive(Debug, Serialize)]
struct Script {
    kind: &'static str,
    shell: String,
    script: String,
}

pub(super) fn print_completions(
    shell: Shell,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let answer = Script {
        kind: "completions",
        shell: shell.to_string(),
        script: completions(Cli::command(), shell),
    };
    printer.answer(&answer, || answer.script.clone())?;
    Ok(ExitStatus::DONE)
}

pub(super) fn write_pages(directory: &Path) -> Result<ExitStatus, Failure> {
    MANUAL
        .write(Cli::command(), directory)
        .with_context(|| format!("cannot write the man pages to {}", directory.display()))?;
    Ok(ExitStatus::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands below `command` that show in its help, such as `policy-apply`.
    fn shown(command: &clap::Command, before: &str) -> Vec<String> {
        command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set())
            .flat_map(|sub| {
                let name = format!("{before}-{}", sub.get_name());
                let below = shown(sub, &name);
                std::iter::once(name).chain(below)
            })
            .collect()
    }

    #[test]
    fn every_command_that_shows_is_in_the_manual_and_completed() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let names = shown(&Cli::command(), "gatereeve-controller");
        assert!(names.contains(&"gatereeve-controller-policy-apply".to_owned()));
        for name in &names {
            let page = std::fs::read_to_string(directory.path().join(format!("{name}.8"))).unwrap();
            assert!(page.contains("NAME"), "{name}");
        }
        // One for each, and the program's own.
        let pages = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(pages, names.len() + 1);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(Cli::command(), shell);
            for name in &names {
                let word = name.rsplit('-').next().unwrap();
                assert!(script.contains(word), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn completions_print_the_script() {
        let out = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        #[derive(Clone)]
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut streams = super::super::output::Streams::to(
            Box::new(Shared(out.clone())),
            Box::new(std::io::sink()),
        );
        let arguments = ["gatereeve-controller", "completions", "bash"].map(Into::into);
        let status = super::super::main_with(arguments, &mut streams);
        assert_eq!(status, ExitStatus::DONE);
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        assert!(text.contains("complete -F"), "{text}");
    }
}
