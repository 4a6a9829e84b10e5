use clap::{Arg, Command};

use super::*;

fn program() -> Command {
    Command::new("gate")
        .version("7.8.9")
        .about("Keeps a gate")
        .after_help(
            "Examples:\n  gate open now      opens it\n  gate shut\n\nKeep the key.\nIt is the only one.\n\n\
             Exit status: 0 done,\n1 failed.",
        )
        .subcommand(
            Command::new("open")
                .about("Open it")
                .after_help("Example: gate open --wide")
                .arg(Arg::new("wide").long("wide").help(".dots at the start"))
                .subcommand(Command::new("now").about("At once")),
        )
        .subcommand(Command::new("secret").hide(true))
}

fn written() -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let manual = Manual {
        files: &[("/etc/gate.toml", "settings")],
        see_also: &["wall(8)"],
    };
    let mut names: Vec<String> = manual
        .write(program(), directory.path())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    (directory, names)
}

#[test]
fn every_command_that_shows_has_a_page() {
    let (directory, names) = written();
    assert_eq!(names, ["gate-open-now.8", "gate-open.8", "gate.8"]);
    let on_disk = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(on_disk, 3);
}

#[test]
fn pages_lead_to_each_other() {
    let (directory, _) = written();
    let page = |name: &str| {
        std::fs::read_to_string(directory.path().join(name))
            .unwrap()
            .replace('\\', "")
    };
    let top = page("gate.8");
    assert!(top.starts_with(".ie") || top.contains(".TH GATE 8"));
    assert!(top.contains("gate-open(8), wall(8)"), "{top}");
    assert!(top.contains("/etc/gate.toml"));
    assert!(!top.contains("secret"));
    assert!(page("gate-open.8").contains("SEE ALSO\"\ngate(8)\n"));
    assert!(page("gate-open-now.8").contains("gate-open(8)"));
}

#[test]
fn notes_keep_examples_as_they_are_typed() {
    let text = notes::render(program().get_after_help().unwrap().to_string().as_str());
    let plain = text.replace('\\', "");
    assert!(
        plain.contains(
            ".SH EXAMPLES\n.nf\ngate open now      opens it\ngate shut\n.fi\n.SH NOTES\nKeep the key.\n"
        ),
        "{plain}"
    );
    assert!(
        plain.contains(".SH \"EXIT STATUS\"\n0 done,\n1 failed.\n"),
        "{plain}"
    );
    let inline = notes::render("Example: gate open --wide").replace('\\', "");
    assert!(inline.contains(".nf\ngate open --wide\n.fi"), "{inline}");
}

#[test]
fn completions_name_commands_and_flags() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = completions(program(), shell);
        for word in ["open", "wide", "now"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
