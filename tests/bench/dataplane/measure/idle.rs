//! Idle round trips: all programs up at once, asked in turn.
//!
//! A round trip through an idle tunnel is mostly the machine's way of waking a core. On a shared machine that takes up to
//! twice as long for a tenth of a second to half a minute, and for whoever is asked then. Programs that are measured one
//! after the other, for many seconds each, meet different such phases; in turns of a quarter of a second each has its share.

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
const LAPS: usize = 60;

/// One program among those that are up.
struct Runner {
    kind: Kind,
    pair: Pair,
    running: Running,
    /// Milliseconds of its replies, by lap.
    laps: Vec<Vec<f64>>,
}

/// Sets all programs up, each between two hosts of its own, asks them in turn, lap by lap, and takes them down. Returns what
/// came of each; who fails is left out, of what it had too. Ends early where `is_over` says so.
pub(crate) fn round(
    programs: &[Program],
    arguments: &Arguments,
    tools: &Tools,
    is_over: impl Fn() -> bool,
) -> BTreeMap<Kind, Record> {
    let mut records: BTreeMap<Kind, Record> = BTreeMap::new();
    let mut runners = Vec::new();
    for program in programs.iter().take_while(|_| !is_over()) {
        match set_up(program, arguments, tools) {
            Ok(runner) => runners.push(runner),
            Err(error) => fail(&mut records, program.kind, &error),
        }
    }
    for lap in 0..LAPS {
        if is_over() {
            say(" (no time left)");
            break;
        }
        let mut lost = Vec::new();
        for at in order(lap, runners.len()) {
            let runner = &mut runners[at];
            if let Err(error) = runner.ask(arguments, tools) {
                fail(&mut records, runner.kind, &error);
                lost.push(runner.kind);
            }
        }
        runners.retain(|runner| !lost.contains(&runner.kind));
        say(".");
    }
    for runner in runners {
        let record = records.entry(runner.kind).or_default();
        runner.conclude(record);
    }
    records
}

/// Who is asked when in a lap of `count` programs: forwards and then backwards from the first on, then from the second on, and so
/// on. So nobody comes always after the same, which may leave the caches worse than others.
fn order(lap: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left((lap / 2).checked_rem(count).unwrap_or(0));
    if lap % 2 == 1 {
        order.reverse();
    }
    order
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
    let reply = runner.subject(arguments, tools).first_reply();
    reply.map_err(|error| runner.explained(error))?;
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
        let times = self.subject(arguments, tools).idle_turn();
        self.laps
            .push(times.map_err(|error| self.explained(error))?);
        Ok(())
    }

    /// With the last that its processes wrote, if anything.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        match self.running.last_words() {
            words if words.is_empty() => error,
            words => error.context(words),
        }
    }

    fn conclude(self, record: &mut Record) {
        let mut all = self.laps.concat();
        record.set(Figure::IdleMedian, percentile(&mut all, 0.5));
        record.set(Figure::IdleP99, percentile(&mut all, 0.99));
        record.keep("idle_ms_by_lap", json!(self.laps));
        if let Some(status) = self.running.status() {
            record.keep("idle_status", status);
        }
        record.idle_laps = self.laps;
    }
}

fn fail(records: &mut BTreeMap<Kind, Record>, kind: Kind, error: &anyhow::Error) {
    say(&format!(" {kind} FAILED: {error:#}"));
    let record = records.entry(kind).or_default();
    record.failures.push(format!("{}: {error:#}", Test::Idle));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_one_turn_in_a_lap_and_follows_itself_as_often_as_any_other() {
        for count in 1..=9 {
            let turns: Vec<usize> = (0..2 * count).flat_map(|lap| order(lap, count)).collect();
            for lap in turns.chunks(count) {
                let mut sorted = lap.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            }
            let pairs = turns.windows(2).filter(|pair| pair[0] == pair[1]);
            let mut twice: Vec<usize> = pairs.map(|pair| pair[0]).collect();
            twice.sort_unstable();
            assert_eq!(twice, (0..count).collect::<Vec<_>>(), "of {count}");
        }
        assert!(order(5, 0).is_empty());
    }
}
