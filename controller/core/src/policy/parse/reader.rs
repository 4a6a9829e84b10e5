//! Typed access to TOML values. Each function reports what is not as expected, and returns nothing.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use gatereeve_shared::time::UnixMillis;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::policy::duration;
use crate::policy::problem::Problems;

/// A value and its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table whose keys are all known.
#[derive(Debug)]
pub(super) struct Fields<'a, 't> {
    table: &'a DeTable<'t>,
    span: Range<usize>,
}

impl<'a, 't> Fields<'a, 't> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'t>> {
        self.table
            .iter()
            .find_map(|(name, value)| (name.get_ref() == key).then_some(value))
    }

    /// The place of a key, or of the table where it lacks the key.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.table
            .iter()
            .find_map(|(name, _)| (name.get_ref() == key).then(|| name.span()))
            .unwrap_or_else(|| self.span.clone())
    }

    /// The place of the table.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key that must be there.
    pub(super) fn require(
        &self,
        problems: &mut Problems<'_>,
        key: &str,
        what: &str,
        example: &str,
    ) -> Option<&'a Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            problems.error(
                self.span(),
                format!("{what} has no `{key}`"),
                Some(format!("add `{key} = {example}`")),
            );
        }
        value
    }
}

/// A table's fields; keys that are not known are errors.
pub(super) fn fields_of<'a, 't>(
    problems: &mut Problems<'_>,
    table: &'a DeTable<'t>,
    span: Range<usize>,
    what: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Fields<'a, 't> {
    let known: Vec<&str> = known.into_iter().collect();
    for (key, _) in table {
        if !known.contains(&key.get_ref().as_ref()) {
            problems.unknown(
                key.span(),
                format!("{what} has no key `{}`", short(key.get_ref())),
                key.get_ref(),
                known.iter().copied(),
                Some(format!("its keys are: {}", known.join(", "))),
            );
        }
    }
    Fields { table, span }
}

/// A value that is a table, with its fields.
pub(super) fn fields<'a, 't>(
    problems: &mut Problems<'_>,
    value: &'a Value<'t>,
    what: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<Fields<'a, 't>> {
    let table = table(problems, value)?;
    Some(fields_of(problems, table, value.span(), what, known))
}

/// Outside text in a message: bounded, on one line.
pub(super) fn short(text: &str) -> String {
    let text: String = text.chars().take(80).collect();
    gatereeve_shared::text::printable(&text)
}

fn mismatch(problems: &mut Problems<'_>, value: &Value<'_>, wanted: &str) {
    let kind = value.get_ref().type_str();
    problems.error(
        value.span(),
        format!("{wanted} is expected here, and this is of type {kind}"),
        None,
    );
}

/// A table.
pub(super) fn table<'a, 't>(
    problems: &mut Problems<'_>,
    value: &'a Value<'t>,
) -> Option<&'a DeTable<'t>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        mismatch(problems, value, "a table");
    }
    table
}

/// The tables of `[[name]]`.
pub(super) fn tables<'a, 't>(
    problems: &mut Problems<'_>,
    value: Option<&'a Value<'t>>,
    name: &str,
) -> Vec<&'a Value<'t>> {
    let Some(value) = value else {
        return Vec::new();
    };
    let Some(array) = value.get_ref().as_array() else {
        problems.error(
            value.span(),
            format!("each entry takes a section of its own: `[[{name}]]`"),
            Some("write double brackets".into()),
        );
        return Vec::new();
    };
    array.iter().collect()
}

/// A text.
pub(super) fn string<'a>(problems: &mut Problems<'_>, value: &'a Value<'_>) -> Option<&'a str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        mismatch(problems, value, "a string");
    }
    text
}

/// One text or a list of texts, each with its place.
pub(super) fn strings<'a>(
    problems: &mut Problems<'_>,
    value: &'a Value<'_>,
) -> Vec<(&'a str, Range<usize>)> {
    let Some(array) = value.get_ref().as_array() else {
        if let Some(text) = value.get_ref().as_str() {
            return vec![(text, value.span())];
        }
        mismatch(problems, value, "a list of strings");
        return Vec::new();
    };
    array
        .iter()
        .filter_map(|entry| Some((string(problems, entry)?, entry.span())))
        .collect()
}

/// As [`strings`], and an empty list is an error.
pub(super) fn some_strings<'a>(
    problems: &mut Problems<'_>,
    value: &'a Value<'_>,
    key: &str,
) -> Vec<(&'a str, Range<usize>)> {
    if value
        .get_ref()
        .as_array()
        .is_some_and(|array| array.is_empty())
    {
        problems.error(value.span(), format!("`{key}` is empty"), None);
    }
    strings(problems, value)
}

/// A list whose entries `read` accepts, without repetitions.
pub(super) fn list<T: Ord + Clone>(
    problems: &mut Problems<'_>,
    value: Option<&Value<'_>>,
    key: &str,
    mut read: impl FnMut(&mut Problems<'_>, &str, Range<usize>) -> Option<T>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    if let Some(value) = value {
        for (text, span) in some_strings(problems, value, key) {
            if let Some(entry) = read(problems, text, span)
                && seen.insert(entry.clone())
            {
                entries.push(entry);
            }
        }
    }
    entries
}

/// A whole number.
pub(super) fn integer(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<i64> {
    let number = value
        .get_ref()
        .as_integer()
        .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
    if number.is_none() {
        mismatch(problems, value, "a whole number of at most 64 bits");
    }
    number
}

/// A duration between the given ones.
pub(super) fn duration(
    problems: &mut Problems<'_>,
    value: &Value<'_>,
    at_least: Duration,
    at_most: Duration,
) -> Option<Duration> {
    let text = string(problems, value)?;
    let Some(duration) = duration::parse(text) else {
        problems.error(
            value.span(),
            format!("`{}` is no duration", short(text)),
            Some("write it like \"90s\", \"15m\", \"1h30m\" or \"7d\"".into()),
        );
        return None;
    };
    if duration < at_least || duration > at_most {
        problems.error(
            value.span(),
            format!(
                "`{}` is out of range: from {} to {} is possible",
                short(text),
                duration::show(at_least),
                duration::show(at_most)
            ),
            None,
        );
        return None;
    }
    Some(duration)
}

/// A moment: a date and time with its offset from UTC.
pub(super) fn moment(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<UnixMillis> {
    let Some(datetime) = value.get_ref().as_datetime() else {
        mismatch(
            problems,
            value,
            "a date and time, such as 2027-06-30T00:00:00Z,",
        );
        return None;
    };
    if datetime.offset.is_none() {
        problems.error(
            value.span(),
            "this is a different moment in every time zone",
            Some("write date, time and offset: 2027-06-30T00:00:00Z or …+02:00".into()),
        );
        return None;
    }
    let moment = datetime
        .to_string()
        .parse::<jiff::Timestamp>()
        .ok()
        .and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    if moment.is_none() {
        problems.error(value.span(), "there is no such moment since 1970", None);
    }
    moment.map(UnixMillis)
}
