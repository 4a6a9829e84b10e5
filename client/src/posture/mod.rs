//! Posture collectors: what this machine can say about itself.
//!
//! Collecting is apart from the network daemon: `gatereeve collect-posture` runs as a process of its own,
//! without a network and without the daemon's keys. Under systemd it is a unit of its own
//! (`gatereeve-posture.socket`, [`connection`]); elsewhere the daemon's helper starts it ([`process`]). It reads
//! files, says what it found as JSON and exits. The daemon gives it a deadline, takes a bounded answer and
//! believes nothing of it but facts. The firewall alone is read by the daemon ([`nftables`]).
//!
//! Every collector takes a [`Host`]: a root directory to read below. Tests give it fixtures. What cannot be
//! determined is [`FactValue::Unknown`] with the reason, never good.

pub mod connection;
pub mod linux;
pub mod nftables;
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
    /// The process that it is about, so that its end can be noticed without looking again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
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
            pid: None,
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

/// The machine, as collectors see it: files below a root.
pub trait Host {
    /// The directory that stands for `/`.
    fn root(&self) -> &Path;
    /// The time, to tell how old something is.
    fn now(&self) -> UnixMillis;
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

/// Collects every fact but the firewall's. The order is fixed; no id comes twice. `confine` is called as soon
/// as the process may be confined: a confined one may not look at others.
#[must_use]
pub fn collect(
    host: &dyn Host,
    request: &CollectRequest,
    confine: impl FnOnce(),
) -> Vec<CollectedFact> {
    let mut facts = linux::processes::collect(host, &request.watched);
    confine();
    facts.extend(linux::os::collect(host));
    facts.push(linux::kernel::collect(host));
    facts.push(linux::updates::collect(host));
    facts.push(linux::disk::collect(host));
    facts.push(linux::secure_boot::collect(host));
    facts.push(linux::screen_lock::collect(host));
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
        let facts = collect(&fixture, &request, || {});
        assert!(facts.len() >= 7);
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
