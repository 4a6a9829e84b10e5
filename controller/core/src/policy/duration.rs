//! Durations: `90s`, `15m`, `1h30m`, `7d`.

use std::time::Duration;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads a duration: numbers, each with its unit, larger units first. `None` if it is malformed.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    let mut units = UNITS.iter();
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let so_far = number.unwrap_or_default();
            number = Some(so_far.checked_mul(10)?.checked_add(u64::from(digit))?);
        } else {
            // Units already used, and larger ones, are spent.
            let (_, length) = units.find(|(unit, _)| *unit == c)?;
            seconds = seconds.checked_add(number.take()?.checked_mul(*length)?)?;
        }
    }
    (number.is_none() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// The shortest form that [`parse`] reads back.
pub(crate) fn show(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    for (unit, length) in UNITS {
        if seconds >= length {
            text.push_str(&(seconds / length).to_string());
            text.push(unit);
            seconds %= length;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(show(Duration::from_secs(5400)), "1h30m");
        assert_eq!(show(Duration::from_secs(90)), "1m30s");
        assert_eq!(show(Duration::ZERO), "0s");
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in [
            "",
            "h",
            "15",
            "15 m",
            "1m1h",
            "1h1h",
            "-1h",
            "1.5h",
            "1w",
            "99999999999999999999d",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
