//! Security updates that are known and not installed, where the distribution tells.
//!
//! On Debian and its kin: the package lists of security archives that apt has fetched are held against
//! what dpkg has installed. Lists that are missing or older than a week tell nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use gatereeve_shared::posture::fact::{FactValue, names};
use gatereeve_shared::time::UnixMillis;

use super::super::{CollectedFact, Host};

const STATUS: &str = "/var/lib/dpkg/status";
const LISTS: &str = "/var/lib/apt/lists";
/// apt's periodic job refreshes the lists daily.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);

/// The fact `pending_security_updates`.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let value = count(host).map_or_else(FactValue::Unknown, FactValue::Int);
    CollectedFact::new(
        names::PENDING_SECURITY_UPDATES,
        value,
        format!("{LISTS} and {STATUS}"),
    )
}

fn count(host: &dyn Host) -> Result<i64, String> {
    let status = host.read(STATUS).map_err(|_| {
        "the package manager is not dpkg; only dpkg and apt are understood".to_owned()
    })?;
    let installed: BTreeMap<(&str, &str), &str> = paragraphs(&status)
        .filter(|package| {
            package
                .get("Status")
                .is_some_and(|status| status.ends_with(" installed"))
        })
        .filter_map(|package| Some((key(&package)?, *package.get("Version")?)))
        .collect();
    let mut newest: BTreeMap<(String, String), String> = BTreeMap::new();
    for list in security_lists(host)? {
        for package in paragraphs(&list) {
            let (Some(key), Some(version)) = (key(&package), package.get("Version")) else {
                continue;
            };
            let Some(current) = installed.get(&key) else {
                continue;
            };
            if compare(current, version) == Ordering::Less {
                newest.insert((key.0.to_owned(), key.1.to_owned()), (*version).to_owned());
            }
        }
    }
    i64::try_from(newest.len()).map_err(|error| error.to_string())
}

fn key<'a>(package: &BTreeMap<&'a str, &'a str>) -> Option<(&'a str, &'a str)> {
    Some((package.get("Package")?, package.get("Architecture")?))
}

/// The fetched lists of security archives, if they are fresh.
fn security_lists(host: &dyn Host) -> Result<Vec<String>, String> {
    let entries =
        std::fs::read_dir(host.path(LISTS)).map_err(|error| format!("{LISTS}: {error}"))?;
    let mut lists = Vec::new();
    let mut compressed = false;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains("security") {
            continue;
        }
        compressed |= name.ends_with("_Packages.lz4");
        if !name.ends_with("_Packages") {
            continue;
        }
        let modified = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(UnixMillis(0), |since| UnixMillis(0).saturating_add(since));
        let age = host.now().since(modified);
        if age > MAX_AGE {
            return Err(format!(
                "the package lists are {} days old; run apt-get update",
                age.as_secs() / 86_400
            ));
        }
        lists.push(std::fs::read_to_string(entry.path()).map_err(|error| error.to_string())?);
    }
    match (lists.is_empty(), compressed) {
        (false, _) => Ok(lists),
        (true, true) => Err("the package lists are compressed, and not read".into()),
        (true, false) => {
            Err("there is no package list of a security archive; run apt-get update".into())
        }
    }
}

/// The paragraphs of a control file (deb822(5)); continuation lines carry nothing needed here.
fn paragraphs(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect()
    })
}

/// The order of package versions, as deb-version(7) defines it.
fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = epoch(left);
    let (right_epoch, right) = epoch(right);
    let (left_upstream, left_revision) = left.rsplit_once('-').unwrap_or((left, ""));
    let (right_upstream, right_revision) = right.rsplit_once('-').unwrap_or((right, ""));
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

fn epoch(version: &str) -> (u64, &str) {
    version
        .split_once(':')
        .and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest)))
        .unwrap_or((0, version))
}

/// Alternating runs of non-digits and digits; letters sort before other characters, and `~` before
/// everything, the end included.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_run(left, false);
        let (right_text, right_rest) = split_run(right, false);
        let weights = |text: &str| text.chars().map(weight).chain([0]).collect::<Vec<_>>();
        let by_text = weights(left_text).cmp(&weights(right_text));
        if by_text != Ordering::Equal {
            return by_text;
        }
        let (left_digits, left_rest) = split_run(left_rest, true);
        let (right_digits, right_rest) = split_run(right_rest, true);
        let number = |digits: &str| {
            let digits = digits.trim_start_matches('0');
            (digits.len(), digits.to_owned())
        };
        let by_number = number(left_digits).cmp(&number(right_digits));
        if by_number != Ordering::Equal {
            return by_number;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn split_run(text: &str, digits: bool) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

fn weight(c: char) -> i64 {
    match c {
        '~' => -1,
        c if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        c => i64::from(u32::from(c)) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        // In rising order; each pair was checked with `dpkg --compare-versions`.
        let rising = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0-1+deb12u2",
            "1.0-1+deb12u10",
            "1.0a-1",
            "1.0+x-1",
            "1.1-1",
            "1.10-1",
            "1:0.1-1",
        ];
        for (i, left) in rising.iter().enumerate() {
            for (j, right) in rising.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left} and {right}");
            }
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
    }

    fn machine() -> Fixture {
        Fixture::new().file(
            STATUS,
            "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.11-1~deb12u1\n\n\
             Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\n\
             Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1.0\n",
        )
    }

    const LIST: &str = "/var/lib/apt/lists/deb_dists_bookworm-security_main_binary-amd64_Packages";

    #[test]
    fn older_installed_packages_are_counted() {
        let current = machine().file(
            LIST,
            "Package: openssl\nArchitecture: amd64\nVersion: 3.0.11-1~deb12u1\n",
        );
        assert_eq!(collect(&current).value, FactValue::Int(0));
        let behind = machine().file(
            LIST,
            "Package: openssl\nArchitecture: amd64\nVersion: 3.0.11-1~deb12u2\nDescription: x\n Version: 9\n\n\
             Package: gone\nArchitecture: amd64\nVersion: 2.0\n\nPackage: other\nArchitecture: amd64\nVersion: 1\n",
        );
        assert_eq!(collect(&behind).value, FactValue::Int(1));
    }

    #[test]
    fn missing_and_old_lists_tell_nothing() {
        assert!(matches!(collect(&machine()).value, FactValue::Unknown(_)));
        let mut old = machine().file(LIST, "");
        old.now = old.now.saturating_add(Duration::from_hours(8 * 24));
        assert!(matches!(collect(&old).value, FactValue::Unknown(why) if why.contains("days old")));
    }
}
