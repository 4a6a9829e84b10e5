//! Facts that the machine's administrator provides: `facts.d/*.json`.
//!
//! Each file is one JSON object of names and values (true or false, whole number, text). A name
//! becomes the fact `custom.NAME`, so that it never shadows a collected one. The directory and every
//! file must belong to root and be writable by root alone; what is not is refused, and says so.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::CollectedFact;

const MAX_FILES: usize = 64;
const MAX_FILE: u64 = 16 * 1024;

/// One fact for each name in each file; a refused file is the unknown fact `custom.FILE`.
pub(in super::super) fn collect(config_dir: &Path) -> Vec<CollectedFact> {
    collect_owned_by(config_dir, 0)
}

fn collect_owned_by(config_dir: &Path, owner: u32) -> Vec<CollectedFact> {
    let directory = config_dir.join("facts.d");
    let Ok(metadata) = fs::symlink_metadata(&directory) else {
        return Vec::new();
    };
    let refused_directory = if metadata.is_dir() {
        refusal(&metadata, owner)
    } else {
        Some("it is no directory")
    };
    let mut facts: BTreeMap<String, (FactValue, String)> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(&directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .take(MAX_FILES)
    {
        let source = path.display().to_string();
        let values = match refused_directory {
            Some(why) => Err(format!("refused: {} {why}", directory.display())),
            None => read(path, owner),
        };
        let values = values.unwrap_or_else(|why| {
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .to_lowercase();
            let stem = if is_name(&stem) {
                stem
            } else {
                "unnamed".to_owned()
            };
            BTreeMap::from([(stem, FactValue::Unknown(why))])
        });
        for (name, value) in values {
            facts
                .entry(name)
                .and_modify(|(value, _)| *value = FactValue::Unknown("given by two files".into()))
                .or_insert((value, source.clone()));
        }
    }
    facts
        .into_iter()
        .map(|(name, (value, source))| {
            CollectedFact::new(format!("{}{name}", names::CUSTOM_PREFIX), value, source)
        })
        .collect()
}

fn read(path: &Path, owner: u32) -> Result<BTreeMap<String, FactValue>, String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("refused: it is no regular file".into());
    }
    if let Some(why) = refusal(&metadata, owner) {
        return Err(format!("refused: it {why}"));
    }
    if metadata.len() > MAX_FILE {
        return Err(format!("refused: it is larger than {MAX_FILE} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let object: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| format!("it is no JSON object: {error}"))?;
    object
        .into_iter()
        .map(|(name, value)| {
            if !is_name(&name) {
                return Err(format!("{name:?} is no name of a fact: a-z, 0-9 and _"));
            }
            let value = match value {
                Value::Bool(value) => FactValue::Bool(value),
                Value::String(value) => FactValue::Text(value),
                Value::Number(number) => number.as_i64().map_or_else(
                    || FactValue::Unknown("it is no whole number".into()),
                    FactValue::Int,
                ),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    FactValue::Unknown("a fact is true, false, a whole number or a text".into())
                }
            };
            Ok((name, value))
        })
        .collect()
}

fn refusal(metadata: &Metadata, owner: u32) -> Option<&'static str> {
    if metadata.uid() != owner {
        Some("does not belong to root")
    } else if metadata.mode() & 0o022 != 0 {
        Some("can be written by others than root")
    } else {
        None
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Facts(tempfile::TempDir);

    impl Facts {
        fn new() -> Self {
            let facts = Self(tempfile::TempDir::new().unwrap());
            fs::create_dir(facts.0.path().join("facts.d")).unwrap();
            facts.mode("", 0o755);
            facts
        }

        fn file(&self, name: &str, text: &str) {
            fs::write(self.0.path().join("facts.d").join(name), text).unwrap();
            self.mode(name, 0o644);
        }

        fn mode(&self, name: &str, mode: u32) {
            let path = self.0.path().join("facts.d").join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn values(&self, owner: u32) -> Vec<(String, FactValue)> {
            collect_owned_by(self.0.path(), owner)
                .into_iter()
                .map(|f| (f.id, f.value))
                .collect()
        }
    }

    fn me() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    #[test]
    fn every_kind_of_value_is_taken() {
        let facts = Facts::new();
        facts.file(
            "mdm.json",
            r#"{"mdm_enrolled": true, "ring": 2, "site": "berlin"}"#,
        );
        let expected = [
            ("custom.mdm_enrolled".to_owned(), FactValue::Bool(true)),
            ("custom.ring".to_owned(), FactValue::Int(2)),
            ("custom.site".to_owned(), FactValue::Text("berlin".into())),
        ];
        assert_eq!(facts.values(me()), expected);
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let facts = Facts::new();
        facts.file("mdm.json", r#"{"mdm_enrolled": true}"#);
        let good = facts.values(me());
        assert_eq!(good[0].1, FactValue::Bool(true));
        let refused = |facts: &Facts, owner: u32| {
            let values = facts.values(owner);
            assert_eq!(values.len(), 1);
            assert!(
                matches!(&values[0].1, FactValue::Unknown(why) if why.contains("refused")),
                "{values:?}"
            );
        };
        refused(&facts, me() + 1);
        facts.mode("mdm.json", 0o664);
        refused(&facts, me());
        facts.mode("mdm.json", 0o644);
        facts.mode("", 0o777);
        refused(&facts, me());
        facts.mode("", 0o755);
        fs::remove_file(facts.0.path().join("facts.d/mdm.json")).unwrap();
        fs::write(
            facts.0.path().join("elsewhere"),
            r#"{"mdm_enrolled": true}"#,
        )
        .unwrap();
        symlink("../elsewhere", facts.0.path().join("facts.d/mdm.json")).unwrap();
        refused(&facts, me());
    }

    #[test]
    fn malformed_files_are_unknown() {
        let facts = Facts::new();
        facts.file("a.json", "[1]");
        facts.file("b.json", r#"{"Bad Name": true}"#);
        facts.file("c.json", r#"{"half": 0.5}"#);
        facts.file("d.json", r#"{"twice": true}"#);
        facts.file("e.json", r#"{"twice": true}"#);
        facts.file("ignored.txt", r#"{"x": true}"#);
        let values = facts.values(me());
        assert_eq!(values.len(), 4);
        assert!(
            values
                .iter()
                .all(|(_, value)| matches!(value, FactValue::Unknown(_))),
            "{values:?}"
        );
    }
}
