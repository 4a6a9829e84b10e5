//! A bug report: one text of named sections, each of them redacted, for people to read before they
//! send it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::Value;

use crate::clock::Clock;
use crate::redact::redact;
use crate::state_file;

/// What a value that was taken out reads as.
pub const REMOVED: &str = "[removed]";
/// Most bytes of a section.
const SECTION: usize = 256 * 1024;

/// The report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    sections: Vec<(String, String)>,
    /// Texts that are taken out wherever they are, with what stands for them.
    names: Vec<(String, String)>,
}

impl Report {
    /// A report of this program, with what there is to say about the machine.
    #[must_use]
    pub fn new(program: &str, version: &str) -> Self {
        let mut report = Self::default();
        report.add(
            "program",
            &format!("{program} {version}\nreported {}", Clock::unix()),
        );
        report.add("machine", &machine());
        report
    }

    /// Takes `name` out of every section, also of those that are there already: `stands_for` takes its
    /// place.
    pub fn hide(&mut self, name: &str, stands_for: &str) {
        if name.len() < 2 {
            return;
        }
        self.names.push((name.to_owned(), stands_for.to_owned()));
        // The longest first, so that no name is left over as part of another.
        self.names
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    /// Adds a section.
    pub fn add(&mut self, title: &str, text: &str) {
        let mut text = redact(text);
        if text.len() > SECTION {
            let cut = (0..=SECTION).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(cut.unwrap_or(0));
            text.push_str("\n[cut]");
        }
        self.sections.push((title.to_owned(), text));
    }

    /// Adds what a daemon answered, without the values of these keys, or why it did not answer.
    pub fn add_answer(&mut self, title: &str, answer: Result<Value, String>, secret: &[&str]) {
        match answer {
            Ok(mut value) => {
                prune(&mut value, secret);
                let text = serde_json::to_string_pretty(&value);
                self.add(title, &text.unwrap_or_default());
            }
            Err(why) => self.add(title, &format!("not known: {why}")),
        }
    }

    /// Adds a configuration file in TOML, without comments and without the values of these keys.
    pub fn add_configuration(&mut self, title: &str, path: &Path, secret: &[&str]) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.add(title, &configuration(&text, secret)),
            Err(error) => self.add(title, &format!("{}: {error}", path.display())),
        }
    }

    /// Adds names, modes, owners and sizes of the files below a directory; no content.
    pub fn add_listing(&mut self, title: &str, root: &Path) {
        let mut lines = Vec::new();
        let listed = File::open(root).and_then(|root| list(&root, Path::new(""), &mut lines));
        if let Err(error) = listed {
            lines.push(format!("{}: {error}", root.display()));
        }
        lines.sort();
        self.add(title, &lines.join("\n"));
    }

    /// The titles of the sections.
    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|(title, _)| title.as_str())
    }

    /// The whole text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (title, section) in &self.sections {
            let mut section = section.clone();
            for (name, stands_for) in &self.names {
                section = section.replace(name, stands_for);
            }
            text.push_str(&format!("== {title} ==\n{}\n\n", section.trim_end()));
        }
        text
    }

    /// Writes it to a file that must not exist yet, for its owner alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(self.to_text().as_bytes())
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/etc/os-release");
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown")
        .trim_matches('"')
        .to_owned();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default().to_owned();
    format!(
        "system   {system}\nkernel   {} {}\nmachine  {}\n{memory}\nlimits of this command\n{}",
        read("/proc/sys/kernel/ostype").trim(),
        read("/proc/sys/kernel/osrelease").trim(),
        std::env::consts::ARCH,
        read("/proc/self/limits"),
    )
}

/// Takes the values of these keys out, at any depth.
fn prune(value: &mut Value, secret: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                let is_empty = field.is_null() || field == &Value::Array(Vec::new());
                if secret.contains(&key.as_str()) && !is_empty {
                    *field = Value::String(REMOVED.to_owned());
                } else {
                    prune(field, secret);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| prune(value, secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The settings of a file, line by line: a comment may say anything.
fn configuration(text: &str, secret: &[&str]) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, _)) if secret.contains(&key.trim()) => {
                lines.push(format!("{} = {REMOVED}", key.trim()));
            }
            Some((key, value)) => {
                let value = value.split(" #").next().unwrap_or_default();
                lines.push(format!("{} = {}", key.trim(), value.trim()));
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// Files that are listed: a report is read by a person.
const MOST_FILES: usize = 1000;

/// By the open folder, so that nobody leads elsewhere by putting a link into its place meanwhile.
fn list(folder: &File, shown: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let entry = entry?;
        if lines.len() == MOST_FILES {
            lines.push(format!("and more than these {MOST_FILES}"));
        }
        if lines.len() > MOST_FILES {
            return Ok(());
        }
        let meta = entry.metadata()?;
        let shown = shown.join(entry.file_name());
        lines.push(format!(
            "{}  mode {:04o} user {} bytes {}",
            shown.display(),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.len()
        ));
        if meta.is_dir() {
            list(&state_file::open_folder(&entry.path())?, &shown, lines)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_comments_names_and_addresses_are_taken_out_and_the_rest_stays() {
        let mut report = Report::new("gatereeve-test", "1.2.3");
        report.hide("laptop", "[device 1]");
        report.hide("laptop-of-alice", "[device 2]");
        report.add_answer(
            "status",
            Ok(
                json!({"uptime_ms": 5, "a": [{"wg_key": "x", "peers": 3}], "wg_key": null,
                      "warnings": ["laptop-of-alice is at 192.0.2.1, laptop not"]}),
            ),
            &["wg_key"],
        );
        report.add_answer("nothing", Err("it does not run".to_owned()), &[]);
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.toml");
        std::fs::write(
            &config,
            "# the password is x\nlisten = 51840 # my port\noperator = \"alice\"\n",
        )
        .unwrap();
        report.add_configuration("configuration", &config, &["operator"]);
        report.add_listing("files", dir.path());
        let text = report.to_text();
        for gone in [
            "192.0.2.1",
            "alice",
            "laptop",
            "password",
            "my port",
            "\"x\"",
        ] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        for there in [
            "gatereeve-test 1.2.3",
            "kernel   Linux",
            "\"peers\": 3",
            "\"wg_key\": \"[removed]\"",
            "\"wg_key\": null",
            "[device 2] is at [address], [device 1] not",
            "not known: it does not run",
            "operator = [removed]",
            "listen = 51840",
            "c.toml  mode 0",
        ] {
            assert!(text.contains(there), "{there} not in {text}");
        }
        let path = dir.path().join("report.txt");
        report.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(report.save(&path).is_err(), "a file is never replaced");
        assert!(report.titles().eq([
            "program",
            "machine",
            "status",
            "nothing",
            "configuration",
            "files"
        ]));
    }

    #[test]
    fn a_listing_ends() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..1010 {
            std::fs::write(root.path().join(number.to_string()), b"").unwrap();
        }
        let mut lines = Vec::new();
        let folder = state_file::open_folder(root.path()).unwrap();
        list(&folder, Path::new("."), &mut lines).unwrap();
        assert_eq!(lines.len(), MOST_FILES + 1);
        assert!(lines.last().unwrap().starts_with("and more"));
    }

    #[test]
    fn a_listing_descends_into_folders_and_not_into_links() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        std::fs::create_dir_all(state.join("journal")).unwrap();
        std::fs::create_dir(root.path().join("elsewhere")).unwrap();
        std::fs::write(state.join("journal/1.log"), "x").unwrap();
        std::fs::write(root.path().join("elsewhere/secret"), "x").unwrap();
        std::os::unix::fs::symlink("../elsewhere", state.join("link")).unwrap();
        let mut report = Report::new("gatereeve-test", "1.2.3");
        report.add_listing("files", &state);
        let text = report.to_text();
        assert!(text.contains("journal/1.log  mode 0"), "{text}");
        assert!(text.contains("link  mode 0777"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
