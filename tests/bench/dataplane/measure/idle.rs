//! Idle round trips: all programs up at once, asked in turn.
//!
//! A round trip through an idle tunnel is mostly the machine's way of waking a core. On a shared machine that takes up to
//! twice as long for a tenth of a second to half a minute, and for whoever is asked then. Programs that are measured one
//! after the other, for seconds each, meet different such phases; in laps of less than a second each they meet the same.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Record, Subject, Test};
use crate::arguments::Arguments;
use crate::figure::Figure;
use crate::pair::Pair;
use crate::programs::{Kind, Program, Running};
use crate::say;
use crate::statistics::percentile;
use crate::tool::Tools;

/// Laps of a round: of 6,000 replies of a program, 60 are beyond the 99th percentile.
const LAPS: u32 = 60;

/// One program among those that are up.
struct Runner {
    kind: Kind,
    pair: Pair,
    running: Running,
    /// Milliseconds of its replies, by lap.
    laps: Vec<Vec<f64>>,
}

/// Sets all programs up, each between two hosts of its own, asks them in turn, lap by lap, and takes them down. Returns what
/// came of each; who fails is left out of the laps to come. Ends early where `is_over` says so.
pub(crate) fn round(
    programs: &[Program],
    arguments: &Arguments,
    tools: &Tools,
    is_over: impl Fn() -> bool,
) -> BTreeMap<Kind, Record> {
    let mut records: BTreeMap<Kind, Record> = BTreeMap::new();
    let mut runners = Vec::new();
    for program in programs {
        let record = records.entry(program.kind).or_default();
        match set_up(program, arguments, tools) {
            Ok(runner) => runners.push(runner),
            Err(error) => fail(record, program.kind, &error),
        }
    }
    for lap in 0..LAPS {
        if is_over() {
            say(" (no time left)");
            break;
        }
        let ask = |runner: &mut Runner| match runner.ask(arguments, tools) {
            Ok(()) => true,
            Err(error) => {
                fail(records.entry(runner.kind).or_default(), runner.kind, &error);
                false
            }
        };
        // Whoever comes after a program that leaves the caches worse does so in every other lap only.
        if lap > 0 {
            runners.reverse();
        }
        runners.retain_mut(ask);
        say(".");
    }
    for runner in runners {
        runner.conclude(records.entry(runner.kind).or_default());
    }
    records
}

fn set_up(program: &Program, arguments: &Arguments, tools: &Tools) -> anyhow::Result<Runner> {
    let pair = Pair::new(arguments, tools)?;
    let running = program.start(&pair, arguments, tools)?;
    let runner = Runner {
        kind: program.kind,
        pair,
        running,
        laps: Vec::new(),
    };
    // The first packets find a tunnel that has to be set up.
    let subject = runner.subject(arguments, tools);
    subject.first_reply()?;
    Ok(runner)
}

impl Runner {
    fn subject<'a>(&'a self, arguments: &'a Arguments, tools: &'a Tools) -> Subject<'a> {
        Subject {
            arguments,
            tools,
            pair: &self.pair,
            running: &self.running,
        }
    }

    fn ask(&mut self, arguments: &Arguments, tools: &Tools) -> anyhow::Result<()> {
        let times = self
            .subject(arguments, tools)
            .idle_turn()
            .map_err(|error| error.context(self.running.last_words()))?;
        self.laps.push(times);
        Ok(())
    }

    fn conclude(&self, record: &mut Record) {
        let all = self.laps.concat();
        record.set(Figure::IdleMedian, percentile(&all, 0.5));
        record.set(Figure::IdleP99, percentile(&all, 0.99));
        record.keep("idle_ms_by_lap", json!(self.laps));
        if let Some(status) = self.running.status() {
            record.keep("idle_status", status);
        }
    }
}

fn fail(record: &mut Record, kind: Kind, error: &anyhow::Error) {
    say(&format!(" {kind} FAILED: {error:#}"));
    record.failures.push(format!("{}: {error:#}", Test::Idle));
}
