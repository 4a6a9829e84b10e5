//! Logging: text or JSON on standard error, filtered by `GATEREEVE_LOG`, and by another filter while
//! the program runs where somebody asks for one. The last warnings are kept for a bug report.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::clock::Clock;
use crate::log_output::LogOutput;

/// The environment variable that holds the filter, in the syntax of `tracing_subscriber::filter::Targets`: levels,
/// and levels of modules. What filters by spans and fields as well has a regular-expression engine in it, which a
/// program that is always there can do without.
pub const FILTER_VARIABLE: &str = "GATEREEVE_LOG";

/// What is logged without a filter, behind the level. Of what boringtun reports the data path logs what matters.
const QUIET: &str = "quinn=warn,quinn_proto=warn,rustls=warn,boringtun=off";
/// The level without a filter.
const DEFAULT_LEVEL: &str = "info";
/// What stands for the filter that the program was started with.
pub const CONFIGURED: &str = "configured";
/// Longest filter that may be set while the program runs, in bytes.
const FILTER: usize = 1024;
/// Warnings that are kept, and characters of each.
const WARNINGS: usize = 100;
const WARNING: usize = 400;

/// What switches the filter, once logging has started.
static SWITCH: OnceLock<Switch> = OnceLock::new();

struct Switch {
    handle: reload::Handle<Targets, Registry>,
    configured: String,
    current: Mutex<String>,
}

/// The filter that is in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogFilter {
    /// In force now.
    pub filter: String,
    /// In force after a restart.
    pub configured: String,
}

/// Why the filter stays as it is.
#[derive(Debug, Error)]
pub enum FilterError {
    /// Nobody has called [`init`], or something else logs in this process.
    #[error("this process does not log by a filter of its own, so there is none to switch")]
    NotStarted,
    /// It is no filter.
    #[error(
        "{text:?} is no log filter: {why}. Write a level (error, warn, info, debug, trace, off), or \
         directives such as info,gatereeve_controller::quic=debug"
    )]
    Invalid {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Logging, until the program ends: what is under way then is waited for, a tenth of a second at most.
#[derive(Debug)]
#[must_use = "dropped when logging is over"]
pub struct Logging(LogOutput);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts logging to standard error, as JSON lines or as text. Where a subscriber exists already
/// (tests, a second program in the process) it stays. Nobody who logs waits for who reads it.
pub fn init(json: bool) -> Logging {
    let (configured, filter, wrong) =
        from_environment(std::env::var(FILTER_VARIABLE).ok().as_deref());
    let (filter, handle) = reload::Layer::new(filter);
    let writer = LogOutput::standard_error(json);
    let logging = Logging(writer.clone());
    let output = tracing_subscriber::fmt::layer().with_writer(writer);
    let output: Box<dyn Layer<_> + Send + Sync> = if json {
        Box::new(output.json())
    } else {
        // Colour codes have no place in a journal or a file.
        Box::new(output.with_ansi(false))
    };
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .with(Recent);
    if registry.try_init().is_ok() {
        let switch = Switch {
            handle,
            current: Mutex::new(configured.clone()),
            configured,
        };
        drop(SWITCH.set(switch));
    }
    if let Some(wrong) = wrong {
        tracing::warn!("{FILTER_VARIABLE}: {wrong}; the filter is {DEFAULT_LEVEL}");
    }
    logging
}

/// The filter to start with: the setting, or where it is none, the default and what is wrong.
fn from_environment(setting: Option<&str>) -> (String, Targets, Option<FilterError>) {
    let wanted = expanded(setting);
    match parsed(&wanted) {
        Ok(filter) => (wanted, filter, None),
        Err(error) => {
            let default = expanded(None);
            let filter = parsed(&default).unwrap_or_default();
            (default, filter, Some(error))
        }
    }
}

/// `text` as a filter, whole.
fn parsed(text: &str) -> Result<Targets, FilterError> {
    if text.contains('[') {
        return Err(invalid(text, "spans and fields cannot be filtered by"));
    }
    // The parser takes a space for a part of a module's name, and nothing at all for a level.
    let directives = text.split(',').map(str::trim);
    let directives: Vec<_> = directives.filter(|part| !part.is_empty()).collect();
    let directives = directives.join(",");
    directives
        .parse()
        .map_err(|error: tracing_subscriber::filter::ParseError| invalid(text, &error.to_string()))
}

/// The filter in force.
///
/// # Errors
/// [`FilterError::NotStarted`].
pub fn filter() -> Result<LogFilter, FilterError> {
    let switch = SWITCH.get().ok_or(FilterError::NotStarted)?;
    let current = switch.current.lock();
    Ok(LogFilter {
        filter: current.unwrap_or_else(PoisonError::into_inner).clone(),
        configured: switch.configured.clone(),
    })
}

/// Switches the filter until the next switch or restart. [`CONFIGURED`] goes back.
///
/// # Errors
/// [`FilterError`]; the filter is as before then.
pub fn set_filter(text: &str) -> Result<LogFilter, FilterError> {
    let switch = SWITCH.get().ok_or(FilterError::NotStarted)?;
    let wanted = if text.trim() == CONFIGURED {
        switch.configured.clone()
    } else {
        checked(text)?
    };
    let filter = parsed(&wanted)?;
    let mut current = switch
        .current
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    switch
        .handle
        .reload(filter)
        .map_err(|error| invalid(text, &error.to_string()))?;
    let before = std::mem::replace(&mut *current, wanted.clone());
    drop(current);
    // A warning, so that it is seen under any filter: what is missing from a log has a reason.
    tracing::warn!(%before, now = %wanted, "the log filter was switched");
    filter_of(switch, wanted)
}

fn filter_of(switch: &Switch, filter: String) -> Result<LogFilter, FilterError> {
    Ok(LogFilter {
        filter,
        configured: switch.configured.clone(),
    })
}

/// A filter that somebody asks for while the program runs, whole; more strictly read than one from
/// the environment, as there is somebody to tell.
fn checked(text: &str) -> Result<String, FilterError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(invalid(text, "it is empty"));
    }
    if trimmed.len() > FILTER {
        return Err(invalid("…", &format!("it is longer than {FILTER} bytes")));
    }
    if trimmed.parse::<Level>().is_ok() || trimmed == "off" {
        return Ok(format!("{trimmed},{QUIET}"));
    }
    // A bare word is a module to the parser: a level that is misspelt would silence everything.
    let is_word = |part: &str| !part.contains(['=', ':', '[']) && part.parse::<Level>().is_err();
    if let Some(word) = trimmed
        .split(',')
        .map(str::trim)
        .find(|part| is_word(part) && *part != "off")
    {
        return Err(invalid(text, &format!("{word:?} is no level")));
    }
    Ok(expanded(Some(trimmed)))
}

fn invalid(text: &str, why: &str) -> FilterError {
    FilterError::Invalid {
        text: gatereeve_shared::text::printable(text),
        why: why.to_owned(),
    }
}

/// The whole filter for a setting.
fn expanded(setting: Option<&str>) -> String {
    match setting.map(str::trim) {
        None | Some("") => format!("{DEFAULT_LEVEL},{QUIET}"),
        Some(text) if text.contains("boringtun") => text.to_owned(),
        Some(text) => format!("boringtun=off,{text}"),
    }
}

/// The last warnings and errors that were logged, oldest first.
#[must_use]
pub fn recent_warnings() -> Vec<String> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().cloned().collect()
}

static KEPT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Keeps what [`recent_warnings`] returns.
struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut line = Line(format!(
            "{} {level} {}:",
            Clock::unix(),
            event.metadata().target()
        ));
        event.record(&mut line);
        let text: String = gatereeve_shared::text::printable(&line.0)
            .chars()
            .take(WARNING)
            .collect();
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= WARNINGS {
            kept.pop_front();
        }
        kept.push_back(text);
    }
}

/// An event on one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = match field.name() {
            "message" => format!(" {value:?}"),
            name => format!(" {name}={value:?}"),
        };
        self.0.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boringtun_stays_quiet_unless_asked_for() {
        assert!(expanded(None).contains("boringtun=off"));
        assert!(expanded(Some("debug")).contains("boringtun=off"));
        let asked = expanded(Some("info,boringtun=debug"));
        assert!(asked.contains("boringtun=debug") && !asked.contains("boringtun=off"));
    }

    #[test]
    fn a_wrong_setting_is_told_and_does_not_silence() {
        let (configured, filter, wrong) = from_environment(Some("info,gatereeve=loud"));
        assert_eq!(configured, expanded(None));
        assert!(filter.would_enable("gatereeve", &Level::INFO));
        assert!(matches!(wrong, Some(FilterError::Invalid { .. })));
        let (configured, filter, wrong) = from_environment(Some("warn,gatereeve=debug"));
        assert!(configured.ends_with("warn,gatereeve=debug") && wrong.is_none());
        assert!(filter.would_enable("gatereeve::daemon", &Level::DEBUG));
        assert!(!filter.would_enable("quinn", &Level::INFO));
        for spaced in ["gatereeve=debug, info", " info , gatereeve=debug,"] {
            let (_, filter, wrong) = from_environment(Some(spaced));
            assert!(wrong.is_none(), "{spaced}");
            assert!(filter.would_enable("gatereeve", &Level::DEBUG), "{spaced}");
            assert!(filter.would_enable("quinn", &Level::INFO), "{spaced}");
            assert!(!filter.would_enable("quinn", &Level::DEBUG), "{spaced}");
        }
    }

    #[test]
    fn a_filter_is_switched_and_a_wrong_one_changes_nothing() {
        assert!(matches!(filter(), Err(FilterError::NotStarted)));
        let _logging = init(false);
        let configured = filter().unwrap();
        assert_eq!(configured.filter, configured.configured);
        assert!(!tracing::enabled!(target: "gatereeve_runtime", Level::DEBUG));

        let debug = set_filter("debug").unwrap();
        assert_eq!(debug.filter, format!("debug,{QUIET}"));
        assert!(tracing::enabled!(target: "gatereeve_runtime", Level::DEBUG));
        assert!(!tracing::enabled!(target: "quinn", Level::DEBUG));

        let long = "a=debug,".repeat(200);
        for wrong in [
            "",
            " ",
            "debgu",
            "info,debgu",
            "gatereeve=loud",
            "a[b",
            &long,
        ] {
            let refused = set_filter(wrong).unwrap_err();
            assert!(matches!(refused, FilterError::Invalid { .. }), "{wrong}");
            assert_eq!(filter().unwrap(), debug, "{wrong}");
        }
        set_filter("off").unwrap();
        assert!(!tracing::enabled!(target: "gatereeve_runtime", Level::ERROR));
        set_filter("info,gatereeve_runtime::notify=trace").unwrap();
        assert!(tracing::enabled!(target: "gatereeve_runtime::notify", Level::TRACE));
        assert!(!tracing::enabled!(target: "gatereeve_runtime", Level::DEBUG));
        assert_eq!(set_filter(CONFIGURED).unwrap(), configured);

        for number in 0..WARNINGS + 5 {
            tracing::warn!(number, "a line\nof two");
        }
        tracing::info!("of no concern");
        let kept = recent_warnings();
        assert_eq!(kept.len(), WARNINGS);
        let last = kept.last().unwrap();
        assert!(
            last.contains("number=104") && !last.contains('\n'),
            "{last}"
        );
    }
}
