//! Logging: text or JSON on standard error, filtered by `GATEREEVE_LOG`.

use tracing_subscriber::EnvFilter;

/// The environment variable that holds the filter, in the syntax of `tracing_subscriber::EnvFilter`.
pub const FILTER_VARIABLE: &str = "GATEREEVE_LOG";

/// What is logged without a filter. boringtun reports the ordinary end of an idle session as an
/// error: the data path logs what matters of it.
const DEFAULT_FILTER: &str = "info,quinn=warn,quinn_proto=warn,rustls=warn,boringtun=off";

/// Starts logging to standard error, as JSON lines or as text. Where a subscriber exists already
/// (tests, a second program in the process) it stays.
pub fn init(json: bool) {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if json {
        builder.json().try_init()
    } else {
        // Colour codes have no place in a journal or a file.
        builder.with_ansi(false).try_init()
    };
    drop(started);
}

/// The filter for this setting; an invalid one is reported by the filter itself and skipped.
fn filter(setting: Option<&str>) -> EnvFilter {
    match setting.map(str::trim) {
        None | Some("") => EnvFilter::new(DEFAULT_FILTER),
        Some(text) if text.contains("boringtun") => EnvFilter::new(text),
        Some(text) => EnvFilter::new(format!("boringtun=off,{text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boringtun_stays_quiet_unless_asked_for() {
        assert!(filter(None).to_string().contains("boringtun=off"));
        assert!(filter(Some("debug")).to_string().contains("boringtun=off"));
        let asked = filter(Some("info,boringtun=debug")).to_string();
        assert!(asked.contains("boringtun=debug") && !asked.contains("boringtun=off"));
    }
}
