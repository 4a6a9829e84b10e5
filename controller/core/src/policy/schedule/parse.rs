//! `Mon-Fri 08:00-19:00, Sat 10:00-14:00 Europe/Berlin`.

use std::sync::Mutex;

use jiff::tz::TimeZoneDatabase;

use super::{Schedule, Window};
use crate::policy::suggest;

/// Windows of one schedule.
const WINDOWS: usize = 32;
/// Bytes of one schedule.
const BYTES: usize = 1_024;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Why a text is no schedule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScheduleError {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

fn error<T>(message: impl Into<String>, help: Option<&str>) -> Result<T, ScheduleError> {
    Err(ScheduleError {
        message: message.into(),
        help: help.map(str::to_owned),
    })
}

const FORM: &str = "write it like `Mon-Fri 08:00-19:00 Europe/Berlin`";

impl Schedule {
    /// Reads windows, separated by commas, and the time zone behind them. Days may be left out
    /// (every day) and listed (`Mon,Wed 08:00-10:00 UTC`).
    pub(crate) fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > BYTES {
            return error(format!("a schedule has at most {BYTES} characters"), None);
        }
        let Some((windows, zone)) = text.trim().rsplit_once(char::is_whitespace) else {
            return error(format!("`{text}` is no schedule"), Some(FORM));
        };
        if is_hours(zone) {
            return error(
                "the schedule names no time zone",
                Some("add one behind it, such as `UTC` or `Europe/Berlin`"),
            );
        }
        let database = TimeZoneDatabase::bundled();
        let Ok(zone) = database.get(zone) else {
            let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
            let help = suggest::nearest(zone, names.iter().map(String::as_str)).map_or_else(
                || "zones have names such as `UTC` or `Europe/Berlin`".into(),
                |name| format!("did you mean `{name}`?"),
            );
            return Err(ScheduleError {
                message: format!("there is no time zone `{zone}`"),
                help: Some(help),
            });
        };
        let mut parsed = Vec::new();
        let mut days = None;
        for part in windows.split(',') {
            let mut words = part.split_whitespace().peekable();
            if let Some(word) = words.next_if(|word| !is_hours(word)) {
                let listed = days.get_or_insert([false; 7]);
                add_days(word, listed)?;
            }
            match (words.next(), words.next()) {
                (None, _) if days.is_some() => {} // the hours follow behind the next comma
                (Some(hours), None) => {
                    let (opens, closes) = parse_hours(hours)?;
                    parsed.push(Window {
                        days: days.take().unwrap_or([true; 7]),
                        opens,
                        closes,
                    });
                }
                (None, _) | (Some(_), Some(_)) => {
                    return error(format!("`{}` is no window", part.trim()), Some(FORM));
                }
            }
        }
        if days.is_some() || parsed.is_empty() {
            return error("the schedule names days without hours", Some(FORM));
        }
        if parsed.len() > WINDOWS {
            return error(format!("a schedule has at most {WINDOWS} windows"), None);
        }
        Ok(Self {
            text: text.trim().to_owned(),
            zone,
            windows: parsed,
            memo: Mutex::new(None),
        })
    }
}

fn is_hours(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// `Mon` or `Mon-Fri`; a range may run over the end of the week.
fn add_days(word: &str, days: &mut [bool; 7]) -> Result<(), ScheduleError> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (day(first)?, day(last)?);
    let mut at = first;
    loop {
        if let Some(day) = days.get_mut(at) {
            *day = true;
        }
        if at == last {
            return Ok(());
        }
        at = (at + 1) % 7;
    }
}

fn day(word: &str) -> Result<usize, ScheduleError> {
    let lower = word.to_ascii_lowercase();
    DAYS.iter().position(|name| *name == lower).map_or_else(
        || {
            error(
                format!("`{word}` is no day of the week"),
                Some("days are Mon, Tue, Wed, Thu, Fri, Sat and Sun"),
            )
        },
        Ok,
    )
}

fn parse_hours(word: &str) -> Result<(u16, u16), ScheduleError> {
    let Some((opens, closes)) = word.split_once('-') else {
        return error(format!("`{word}` is no time from-to"), Some(FORM));
    };
    let (opens, closes) = (time_of_day(opens)?, time_of_day(closes)?);
    if opens == 1440 {
        return error(
            "a window cannot open at 24:00",
            Some("write 00:00 of the next day"),
        );
    }
    if opens == closes {
        return error(
            "the window closes when it opens",
            Some("write 00:00-24:00 for a whole day"),
        );
    }
    Ok((opens, closes))
}

/// Minutes after midnight.
fn time_of_day(word: &str) -> Result<u16, ScheduleError> {
    let number = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let parts = word.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute) = (number(hour)?, number(minute)?);
        let valid = (hour < 24 && minute < 60) || (hour == 24 && minute == 0);
        valid.then_some(hour * 60 + minute)
    });
    parts.map_or_else(
        || {
            error(
                format!("`{word}` is no time of day"),
                Some("times take the form 08:00, from 00:00 to 24:00"),
            )
        },
        Ok,
    )
}
