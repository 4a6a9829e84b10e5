//! A session: all rounds, turn by turn, and what is told meanwhile.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use gatereeve_tests::clock::Stopwatch;
use gatereeve_tests::{interrupt, process};

use crate::arguments::{Arguments, Sessions, Wire};
use crate::figure::{Figure, digits};
use crate::measure::{Record, Subject, Test, idle, usage};
use crate::pair::Pair;
use crate::programs::{Kind, Program};
use crate::results::{Part, Results, Turn};
use crate::statistics::median;
use crate::tool::Tools;
use crate::{machine, report, say};

/// Cold starts in each turn; one alone says little.
const COLD_STARTS: usize = 3;

/// All that a session needs, found before it begins.
pub(crate) struct Session {
    arguments: Arguments,
    programs: Vec<Program>,
    tools: Tools,
    machine: Value,
    /// By the kind of cable.
    parts: Vec<Part>,
    watch: Stopwatch,
    _scratch: TempDir,
}

impl Session {
    /// Looks for everything, and says what is missing.
    pub(crate) fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
        interrupt::register(scratch.path().to_owned());
        if arguments.sessions == Sessions::Each {
            process::begin_sessions();
        }
        let tools = Tools::find(arguments.tools.clone(), scratch.path().to_owned())?;
        for warning in machine::warnings() {
            say(&format!("note: {warning}\n"));
        }
        let mut programs: Vec<Program> = Vec::new();
        for kind in &arguments.only {
            if programs.iter().any(|program| program.kind == *kind) {
                continue;
            }
            match Program::find(*kind, &arguments, &tools) {
                Ok(program) => programs.push(program),
                Err(error) if *kind == Kind::Gatereeve => return Err(error),
                Err(error) => say(&format!("without {kind}: {error:#}\n")),
            }
        }
        let mut arguments = arguments;
        if let Err(error) = tools.ethtool() {
            let before = arguments.wire.len();
            arguments.wire.retain(|wire| *wire == Wire::On);
            if arguments.wire.len() < before {
                say(&format!("without the other wires: {error:#}\n"));
            }
        }
        let parts = arguments.by_wire();
        ensure!(
            !programs.is_empty() && !parts.is_empty(),
            "there is nothing to measure"
        );
        let parts = parts.into_iter().map(|arguments| Part {
            arguments,
            results: Results::default(),
        });
        Ok(Self {
            machine: machine::facts(),
            parts: parts.collect(),
            arguments,
            programs,
            tools,
            watch: Stopwatch::start(),
            _scratch: scratch,
        })
    }

    /// Takes all turns and reports. Returns whether everything asked for was measured.
    pub(crate) fn run(mut self) -> anyhow::Result<bool> {
        let (rounds, count) = (self.arguments.rounds, self.programs.len());
        let total = count * self.parts.len() * usize::try_from(rounds)?;
        let (mut complete, mut done) = (true, 0);
        'rounds: for round in 1..=rounds {
            let (mut begun, busy) = self.idle(round)?;
            if self.is_idle_only() && !self.is_over() {
                complete &= begun.values().all(|record| record.failures.is_empty());
                self.keep(round, &mut begun, busy);
                self.write_json()?;
                continue;
            }
            for (part, at) in
                (0..self.parts.len()).flat_map(|part| (0..count).map(move |at| (part, at)))
            {
                if self.is_over() {
                    say(&format!(
                        "{} minutes are over: the rest is left out\n",
                        self.arguments.minutes
                    ));
                    complete = false;
                    self.keep(round, &mut begun, busy);
                    break 'rounds;
                }
                let program = self.programs[at].clone();
                let record = begun.remove(&program.kind).unwrap_or_default();
                let arguments = self.parts[part].arguments.clone();
                let wire = match self.parts.len() {
                    1 => String::new(),
                    _ => format!(", wire offload {}", arguments.wire().name()),
                };
                say(&format!(
                    "round {round} of {rounds}, {} ({} of {count}{wire}):",
                    program.kind,
                    at + 1
                ));
                let busy = if part == 0 { busy } else { 0.0 };
                let turn = self.turn(round, &program, &arguments, record, busy)?;
                let took = turn.took.as_secs();
                complete &= turn.record.failures.is_empty();
                self.parts[part].results.turns.push(turn);
                done += 1;
                say(&format!(" · {took} s{}\n", self.left(done, total)));
                self.write_json()?;
            }
        }
        let text = report::tables(&self.parts);
        // A closed pipe ends the report; the files below are still wanted.
        drop(writeln!(std::io::stdout(), "\n{text}"));
        self.write_json()?;
        if let Some(path) = &self.arguments.plot {
            let drawing = report::plot(&self.parts, &self.machine);
            replace(path, &drawing)?;
        }
        Ok(complete)
    }

    /// Whether nothing is to be measured of a program that is up alone.
    fn is_idle_only(&self) -> bool {
        !self.arguments.wants(Test::Handshake) && Subject::plan(&self.arguments).is_empty()
    }

    /// Keeps what came of a round before the turns of these programs, which have none.
    fn keep(&mut self, round: u32, begun: &mut BTreeMap<Kind, Record>, busy: f64) {
        for program in &self.programs {
            let Some(record) = begun.remove(&program.kind) else {
                continue;
            };
            self.parts[0].results.turns.push(Turn {
                round,
                kind: program.kind,
                record,
                busy_before: busy,
                took: Duration::ZERO,
            });
        }
    }

    /// What all programs, up at once, have of idle round trips, where that is wanted; and how busy the machine was before.
    fn idle(&self, round: u32) -> anyhow::Result<(BTreeMap<Kind, Record>, f64)> {
        if !self.arguments.wants(Test::Idle) || self.is_over() {
            return Ok((BTreeMap::new(), 0.0));
        }
        let (rounds, watch) = (self.arguments.rounds, Stopwatch::start());
        say(&format!(
            "round {round} of {rounds}, all at once: {}",
            Test::Idle
        ));
        let busy = look_at_others()?;
        let first = &self.parts[0].arguments;
        let records = idle::round(&self.programs, first, &self.tools, || self.is_over());
        for (kind, record) in &records {
            if record.failures.is_empty() {
                say(&format!(" {kind}{}", told(Test::Idle, record)));
            }
        }
        say(&format!(" · {} s\n", watch.elapsed().as_secs()));
        Ok((records, busy))
    }

    /// One program's turn, in which it is up alone. What fails in it is recorded in it.
    fn turn(
        &self,
        round: u32,
        program: &Program,
        arguments: &Arguments,
        mut record: Record,
        busy: f64,
    ) -> anyhow::Result<Turn> {
        let busy_before = look_at_others()?.max(busy);
        let watch = Stopwatch::start();
        if let Err(error) = self.measure(program, arguments, &mut record) {
            say(&format!(" FAILED: {error:#}"));
            record.failures.push(format!("set-up: {error:#}"));
        }
        Ok(Turn {
            round,
            kind: program.kind,
            record,
            busy_before,
            took: watch.elapsed(),
        })
    }

    fn measure(
        &self,
        program: &Program,
        arguments: &Arguments,
        record: &mut Record,
    ) -> anyhow::Result<()> {
        if arguments.wants(Test::Handshake) && program.has_daemons() {
            say(&format!(" {}", Test::Handshake));
            self.cold_starts(program, arguments, record)?;
            say(&told(Test::Handshake, record));
        }
        let pair = Pair::new(arguments, &self.tools)?;
        let running = program.start(&pair, arguments, &self.tools)?;
        if arguments.wants(Test::Memory) && !running.daemons.is_empty() {
            let idle = usage::resident_mib(&running.daemons, usage::Resident::Now)?;
            record.set(Figure::MemoryIdle, idle);
        }
        let subject = Subject {
            arguments,
            tools: &self.tools,
            pair: &pair,
            running: &running,
        };
        for test in Subject::plan(arguments) {
            if self.is_over() {
                record.failures.push(format!("{test}: no time left"));
                continue;
            }
            let failures = record.failures.len();
            say(&format!(" {test}"));
            subject.run(test, record);
            if record.failures.len() > failures {
                say(" FAILED,");
                let words = running.last_words();
                if let Some(failure) = record.failures.last_mut().filter(|_| !words.is_empty()) {
                    failure.push_str(&format!("\n{words}"));
                }
            } else {
                say(&told(test, record));
            }
        }
        if let Some(status) = running.status() {
            record.keep("status", status);
        }
        Ok(())
    }

    /// Sets the program up several times for the first reply alone.
    fn cold_starts(
        &self,
        program: &Program,
        arguments: &Arguments,
        record: &mut Record,
    ) -> anyhow::Result<()> {
        let mut replies = Vec::new();
        for _ in 0..COLD_STARTS {
            let pair = Pair::new(arguments, &self.tools)?;
            let running = program.start(&pair, arguments, &self.tools)?;
            let subject = Subject {
                arguments,
                tools: &self.tools,
                pair: &pair,
                running: &running,
            };
            let reply = subject.first_reply();
            replies.push(reply.with_context(|| running.last_words())?);
        }
        record.keep("first_reply_ms", replies.clone().into());
        record.set(
            Figure::FirstReply,
            median(&replies).context("no cold start")?,
        );
        Ok(())
    }

    fn is_over(&self) -> bool {
        let limit = Duration::from_secs(u64::from(self.arguments.minutes) * 60);
        self.watch.is_past(limit)
    }

    /// How long the rest takes, going by what was.
    fn left(&self, done: usize, total: usize) -> String {
        let rest = total.saturating_sub(done);
        if rest == 0 || done == 0 {
            return String::new();
        }
        let each = self.watch.elapsed() / u32::try_from(done).unwrap_or(u32::MAX);
        let seconds = each.as_secs() * u64::try_from(rest).unwrap_or(0);
        format!(", {rest} turns left: about {} min", seconds.div_ceil(60))
    }

    fn write_json(&self) -> anyhow::Result<()> {
        let Some(path) = &self.arguments.json else {
            return Ok(());
        };
        let document = report::document(&self.machine, &self.programs, &self.parts);
        replace(path, &format!("{document:#}\n"))
    }
}

/// How busy the machine is with other things, in percent; said where that spoils the figures.
fn look_at_others() -> anyhow::Result<f64> {
    let busy = machine::busy_percent()?;
    if busy > machine::QUIET {
        say(&format!(
            " (the machine is {busy:.0} % busy with other things)"
        ));
    }
    Ok(busy)
}

/// What a test came to, by the figure that it is known by.
fn told(test: Test, record: &Record) -> String {
    let figure = match test {
        Test::Handshake => Figure::FirstReply,
        Test::Idle => Figure::IdleMedian,
        Test::Tcp1 => Figure::Tcp1,
        Test::Tcp4 => Figure::Tcp4,
        Test::Bidir => Figure::Bidir,
        Test::Loaded => Figure::LoadedMedian,
        Test::Udp64 => Figure::Udp64,
        Test::Udp1400 => Figure::Udp1400,
        Test::Cpu => Figure::CpuDaemons4,
        Test::Memory => Figure::MemoryLoad,
    };
    record.get(figure).map_or_else(
        || ",".to_owned(),
        |value| format!(" {} {},", digits(value), figure.unit()),
    )
}

/// Writes a file whole or not at all.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text).with_context(|| new.display().to_string())?;
    std::fs::rename(&new, path).with_context(|| path.display().to_string())
}
