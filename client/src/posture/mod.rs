//! Posture collectors: what this machine can say about itself.
//!
//! Collecting is apart from the network daemon: `gatereeve collect-posture` runs as a process of its
//! own ([`process`]), prints facts as JSON and exits. It opens no socket to any network; on Linux it
//! leaves the host's network namespace as soon as the firewall is read. The daemon gives it a deadline,
//! takes a bounded answer and kills what does not return.
//!
//! Every collector takes a [`Host`]: a root directory to read below and a way to run the few programs
//! that are the only source of a fact. Tests give it fixtures. What cannot be determined is
//! [`FactValue::Unknown`] with the reason, never good.

pub mod linux;
pub mod process;
pub mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use gatereeve_shared::limits;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::time::UnixMillis;

/// What to collect, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectRequest {
    /// `/`, or a fixture.
    pub root: PathBuf,
    /// Holds `facts.d`.
    pub config_dir: PathBuf,
    /// Executables whose running the policy asks for.
    pub watched: Vec<String>,
}

/// One fact, as the collector prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedFact {
    /// Which; see [`gatereeve_shared::posture::fact::names`].
    pub id: String,
    /// The value.
    pub value: FactValue,
    /// Where it was read.
    pub source: String,
}

impl CollectedFact {
    /// A fact, its texts cut to what a report may carry.
    #[must_use]
    pub fn new(id: impl Into<String>, value: FactValue, source: impl Into<String>) -> Self {
        let value = match value {
            FactValue::Text(text) => FactValue::Text(cut(text)),
            FactValue::Unknown(why) => FactValue::Unknown(cut(why)),
            other @ (FactValue::Bool(_) | FactValue::Int(_)) => other,
        };
        Self {
            id: id.into(),
            value,
            source: cut(source.into()),
        }
    }
}

fn cut(text: String) -> String {
    if text.len() <= limits::TEXT {
        return text;
    }
    text.char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= limits::TEXT)
        .map(|(_, c)| c)
        .collect()
}

/// The machine, as collectors see it.
pub trait Host {
    /// The directory that stands for `/`.
    fn root(&self) -> &Path;
    /// The time, to tell how old something is.
    fn now(&self) -> UnixMillis;
    /// Standard output of a program at one of a few absolute paths, run without a shell and with an
    /// empty environment.
    ///
    /// # Errors
    /// Why there is no output, in words.
    fn run(&self, paths: &[&str], arguments: &[&str]) -> Result<String, RunError>;

    /// `path`, which is absolute, below the root.
    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// A small text file; `Err` says why it cannot be read.
    ///
    /// # Errors
    /// The operating system's reason, with the path.
    fn read(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.path(path)).map_err(|error| format!("{path}: {error}"))
    }
}

/// Why a program gave no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// It is at none of the paths.
    Absent,
    /// It failed, and how.
    Failed(String),
}

/// Collects every fact. The order is fixed; no id comes twice.
#[must_use]
pub fn collect(host: &dyn Host, request: &CollectRequest) -> Vec<CollectedFact> {
    let mut facts = Vec::new();
    // First, because it alone needs the host's network namespace.
    facts.push(linux::firewall::collect(host));
    linux::leave_network();
    facts.extend(linux::os::collect(host));
    facts.push(linux::kernel::collect(host));
    facts.push(linux::updates::collect(host));
    facts.push(linux::disk::collect(host));
    facts.push(linux::secure_boot::collect(host));
    facts.push(linux::screen_lock::collect(host));
    facts.extend(linux::processes::collect(host, &request.watched));
    facts.extend(linux::facts_d::collect(&request.config_dir));
    let mut seen = BTreeSet::new();
    facts.retain(|fact| seen.insert(fact.id.clone()));
    facts.truncate(limits::FACTS);
    facts
}

#[cfg(test)]
mod tests {
    use super::linux::fixture::Fixture;
    use super::*;

    #[test]
    fn an_empty_machine_is_unknown_in_everything_and_good_in_nothing() {
        let fixture = Fixture::new();
        let request = CollectRequest {
            root: fixture.root().to_owned(),
            config_dir: fixture.path("/etc/gatereeve"),
            watched: Vec::new(),
        };
        let facts = collect(&fixture, &request);
        assert!(facts.len() >= 8);
        for fact in facts {
            assert!(matches!(fact.value, FactValue::Unknown(_)), "{fact:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let fact = CollectedFact::new("x", FactValue::Text("é".repeat(300)), "s");
        let FactValue::Text(text) = fact.value else {
            panic!("text expected")
        };
        assert_eq!(text, "é".repeat(127));
    }
}
