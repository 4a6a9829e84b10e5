//! A test runner for suites that need more than a compiler: namespaces, TUN devices, other programs.
//!
//! What is missing is said and counted as skipped; `GATEREEVE_REQUIRE_NETNS=1` makes a skip a
//! failure. It takes the arguments that `cargo test` and nextest give to the standard runner.

use std::io::Write as _;
use std::process::ExitCode;

use crate::clock::Stopwatch;

/// One test: a name and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As printed and as filtered by.
    pub name: &'static str,
    /// The test.
    pub run: fn() -> anyhow::Result<()>,
}

/// Lists test functions as [`Case`]s under their own names.
#[macro_export]
macro_rules! cases {
    ($($(#[$attribute:meta])* $module:ident :: $name:ident),* $(,)?) => {
        &[$($crate::suite::Case { name: concat!(stringify!($module), "::", stringify!($name)), run: $module::$name }),*]
    };
}

/// What a test returns where the machine lacks something that it needs.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The switch that turns a skip into a failure.
const REQUIRE: &str = "GATEREEVE_REQUIRE_NETNS";

/// Runs `cases` one after another in the calling thread. `needs` says first whether the machine has
/// what all of them need.
#[must_use]
pub fn main(cases: &[Case], needs: fn() -> anyhow::Result<()>) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| arguments.takes(case.name))
        .collect();
    let mut out = std::io::stdout();
    if arguments.list {
        for case in chosen {
            // A closed pipe ends the listing; there is nobody to tell.
            drop(writeln!(out, "{}: test", case.name));
        }
        return ExitCode::SUCCESS;
    }
    let missing = if chosen.is_empty() {
        None
    } else {
        needs().err()
    };
    drop(writeln!(out, "\nrunning {} tests", chosen.len()));
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for case in chosen {
        drop(write!(out, "test {} ... ", case.name));
        drop(out.flush());
        let watch = Stopwatch::start();
        let result = match &missing {
            Some(error) => Err(Skip(format!("{error:#}")).into()),
            None => (case.run)(),
        };
        let took = watch.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                drop(writeln!(out, "ok ({took:.1} s)"));
            }
            Err(error) if error.is::<Skip>() && !is_required() => {
                skipped += 1;
                drop(writeln!(out, "SKIPPED: {error}"));
            }
            Err(error) => {
                drop(writeln!(out, "FAILED ({took:.1} s)\n  {error:?}"));
                failed.push(case.name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    drop(writeln!(
        out,
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} skipped",
        failed.len()
    ));
    if skipped > 0 {
        drop(writeln!(
            out,
            "skipped tests have shown nothing; {REQUIRE}=1 makes a skip a failure"
        ));
    }
    for name in &failed {
        drop(writeln!(out, "    {name}"));
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_required() -> bool {
    std::env::var_os(REQUIRE).is_some_and(|value| value == "1")
}

#[derive(Debug, Default)]
struct Arguments {
    list: bool,
    exact: bool,
    ignored_only: bool,
    filters: Vec<String>,
    skips: Vec<String>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--ignored" => parsed.ignored_only = true,
                "--skip" => parsed.skips.extend(arguments.next()),
                // These of the standard runner take a value that means nothing here.
                "--format" | "--test-threads" | "--color" | "-Z" | "--logfile" => {
                    arguments.next();
                }
                flag if flag.starts_with('-') => {}
                _ => parsed.filters.push(argument),
            }
        }
        parsed
    }

    fn takes(&self, name: &str) -> bool {
        let hit = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        !self.ignored_only
            && (self.filters.is_empty() || self.filters.iter().any(hit))
            && !self.skips.iter().any(hit)
    }
}
