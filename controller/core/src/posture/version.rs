//! Versions of operating systems and kernels: numbers with dots, and whatever a vendor adds.
//!
//! `12`, `22.04`, `10.0.19045`, `6.18.0-5-amd64`: the leading numbers count, the rest does not. A
//! requirement is compared as far as it goes, so that `12.7` is within `<= 12` and `= 12`, and is
//! not `> 12`. Numbers that a version lacks are zero.

use std::cmp::Ordering;
use std::fmt;

/// Comparisons joined by "and", such as `>= 6.1, < 7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionReq(Vec<(Comparator, Vec<u64>)>);

/// One way to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

/// Longest first, so that `>=` is not read as `>`.
const COMPARATORS: [(&str, Comparator); 5] = [
    (">=", Comparator::AtLeast),
    ("<=", Comparator::AtMost),
    (">", Comparator::Above),
    ("<", Comparator::Below),
    ("=", Comparator::Equal),
];

impl Comparator {
    /// Splits a leading comparator off.
    pub(crate) fn split(text: &str) -> Option<(Self, &str)> {
        let text = text.trim();
        COMPARATORS
            .iter()
            .find_map(|(sign, comparator)| Some((*comparator, text.strip_prefix(sign)?.trim())))
    }

    /// Whether `found` compares like this to what is wanted.
    pub(crate) fn accepts(self, found_to_wanted: Ordering) -> bool {
        match self {
            Self::AtLeast => found_to_wanted.is_ge(),
            Self::AtMost => found_to_wanted.is_le(),
            Self::Above => found_to_wanted.is_gt(),
            Self::Below => found_to_wanted.is_lt(),
            Self::Equal => found_to_wanted.is_eq(),
        }
    }
}

impl fmt::Display for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = COMPARATORS
            .iter()
            .find_map(|(sign, comparator)| (comparator == self).then_some(*sign));
        f.write_str(sign.unwrap_or_default())
    }
}

impl VersionReq {
    /// Reads `>= 22.04` or several of the kind with commas between; `None` if it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = text.split(',').map(|part| {
            let (comparator, version) = Comparator::split(part)?;
            let plain = !version.is_empty()
                && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                && version.split('.').all(|number| !number.is_empty());
            plain.then_some((comparator, numbers(version)?))
        });
        parts.collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether a reported version meets it; `None` where the text is no version.
    pub(crate) fn accepts(&self, version: &str) -> Option<bool> {
        let found = numbers(version)?;
        Some(self.0.iter().all(|(comparator, wanted)| {
            let found = found.iter().chain(std::iter::repeat(&0)).take(wanted.len());
            comparator.accepts(found.cmp(wanted.iter()))
        }))
    }
}

impl fmt::Display for VersionReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (comparator, version)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let numbers: Vec<String> = version.iter().map(u64::to_string).collect();
            write!(f, "{comma}{comparator} {}", numbers.join("."))?;
        }
        Ok(())
    }
}

/// The leading numbers; `None` where there is none, or one too large to be meant.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let mut found = Vec::new();
    for part in text.trim().split('.').take(16) {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() {
            break;
        }
        found.push(digits.parse().ok()?);
        if digits.len() < part.len() {
            break;
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(requirement: &str, version: &str) -> Option<bool> {
        VersionReq::parse(requirement).unwrap().accepts(version)
    }

    #[test]
    fn versions_compare_by_number() {
        for (requirement, version, expected) in [
            (">= 12", "12", true),
            (">= 12", "12.7", true),
            (">= 12", "9", false),
            (">= 12", "11.99", false),
            (">= 22.04", "22.04", true),
            (">= 22.04", "22.10", true),
            (">= 22.04", "20.04", false),
            (">= 10.0.19045", "10.0.19045", true),
            (">= 10.0.19045", "10.0.19044", false),
            (">= 10.0.19045", "10.0.9999", false),
            (">= 6.1", "6.18.0-5-amd64", true),
            (">= 6.18.1", "6.18.0-5-amd64", false),
            (">= 6.1", "6", false),
            (">= 6.1", "5.19.0", false),
            ("= 12", "12.7", true),
            ("<= 12", "12.7", true),
            ("> 12", "12.7", false),
            ("> 12", "13", true),
            ("< 7", "6.99", true),
            (">= 6.1, < 7", "6.18", true),
            (">= 6.1, < 7", "7.0", false),
        ] {
            assert_eq!(
                accepts(requirement, version),
                Some(expected),
                "{version} {requirement}"
            );
        }
    }

    #[test]
    fn what_is_no_version_is_not_accepted() {
        for version in ["", "sid", "v12", "-1", "99999999999999999999999"] {
            assert_eq!(accepts(">= 0", version), None, "{version:?}");
        }
        assert_eq!(accepts(">= 0", "0"), Some(true));
    }

    #[test]
    fn malformed_requirements_are_refused() {
        for text in ["", "12", ">=", ">= x", ">= 12.", ">= 22H2", "~> 3", ">= 1,"] {
            assert!(VersionReq::parse(text).is_none(), "{text:?}");
        }
        assert_eq!(
            VersionReq::parse(">=6.1 ,< 7").unwrap().to_string(),
            ">= 6.1, < 7"
        );
    }
}
