//! What all turns came to: medians over the rounds, ratios round by round.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::arguments::Arguments;
use crate::figure::{Better, Figure};
use crate::measure::Record;
use crate::programs::Kind;
use crate::statistics::{Spread, median};

/// One program's turn in one round.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) round: u32,
    pub(crate) kind: Kind,
    pub(crate) record: Record,
    /// How busy the machine was just before, or before the idle round trips of the round, in percent of all cores: other
    /// people's work.
    pub(crate) busy_before: f64,
    pub(crate) took: Duration,
}

/// What was asked for with one kind of cable, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) arguments: Arguments,
    pub(crate) results: Results,
}

/// All turns, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) turns: Vec<Turn>,
}

impl Results {
    /// The programs that had a turn, in their order.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for turn in &self.turns {
            if !kinds.contains(&turn.kind) {
                kinds.push(turn.kind);
            }
        }
        kinds
    }

    /// The figures that anything came of, in the table's order.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let has = |figure: &Figure| self.turns.iter().any(|t| t.record.get(*figure).is_some());
        Figure::ALL.into_iter().filter(has).collect()
    }

    /// What a figure came to in each round.
    pub(crate) fn values(&self, kind: Kind, figure: Figure) -> Vec<f64> {
        self.turns
            .iter()
            .filter(|turn| turn.kind == kind)
            .filter_map(|turn| turn.record.get(figure))
            .collect()
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, kind: Kind, figure: Figure) -> Option<f64> {
        median(&self.values(kind, figure))
    }

    /// `of` divided by `to`, round by round.
    pub(crate) fn ratio(&self, figure: Figure, of: Kind, to: Kind) -> Option<Spread> {
        let in_round = |kind: Kind, round: u32| {
            let turn = self
                .turns
                .iter()
                .find(|turn| turn.kind == kind && turn.round == round)?;
            turn.record.get(figure)
        };
        let ratios: Vec<f64> = self
            .turns
            .iter()
            .filter(|turn| turn.kind == of)
            .filter_map(|turn| {
                let divisor = in_round(to, turn.round).filter(|divisor| *divisor > 0.0)?;
                Some(turn.record.get(figure)? / divisor)
            })
            .collect();
        Spread::of(&ratios)
    }

    /// The best of the peers, by its median.
    pub(crate) fn best_peer(&self, figure: Figure) -> Option<Kind> {
        let peers = self.kinds().into_iter().filter(|kind| kind.is_peer());
        let measured = peers.filter_map(|kind| Some((kind, self.median(kind, figure)?)));
        let best = match figure.better() {
            Better::Higher => measured.max_by(|(_, a), (_, b)| a.total_cmp(b)),
            Better::Lower => measured.min_by(|(_, a), (_, b)| a.total_cmp(b)),
        };
        best.map(|(kind, _)| kind)
    }

    /// All that went wrong.
    pub(crate) fn failures(&self) -> Vec<String> {
        let all = self.turns.iter().flat_map(|turn| {
            let failures = turn.record.failures.iter();
            failures.map(|text| format!("round {}, {}: {text}", turn.round, turn.kind))
        });
        all.collect()
    }

    /// Medians of one program by figure, for JSON.
    pub(crate) fn medians(&self, kind: Kind) -> Value {
        let medians = self.figures().into_iter().filter_map(|figure| {
            let spread = Spread::of(&self.values(kind, figure))?;
            let shown = json!({
                "median": spread.median, "least": spread.least, "most": spread.most,
                "unit": figure.unit(),
            });
            Some((figure.id().to_owned(), shown))
        });
        Value::Object(medians.collect::<Map<String, Value>>())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Turns of one figure: programs with their values, round by round.
    pub(crate) fn made(figure: Figure, programs: &[(Kind, &[f64])]) -> Results {
        let mut results = Results::default();
        for (kind, values) in programs {
            for (round, value) in (1..).zip(*values) {
                let mut record = Record::default();
                record.figures.insert(figure, *value);
                results.turns.push(Turn {
                    round,
                    kind: *kind,
                    record,
                    busy_before: 0.0,
                    took: Duration::ZERO,
                });
            }
        }
        results
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine halves its speed after the first round; the ratio does not notice.
        let results = made(
            Figure::Tcp1,
            &[
                (Kind::Gatereeve, &[200.0, 100.0, 100.0]),
                (Kind::Nebula, &[100.0, 50.0, 50.0]),
            ],
        );
        let ratio = results.ratio(Figure::Tcp1, Kind::Gatereeve, Kind::Nebula);
        let even = Spread {
            median: 2.0,
            least: 2.0,
            most: 2.0,
        };
        assert_eq!(ratio, Some(even));
        assert_eq!(
            results.ratio(Figure::Tcp1, Kind::Gatereeve, Kind::Veth),
            None
        );
    }

    #[test]
    fn the_best_peer_is_a_peer_and_depends_on_the_figure() {
        let programs: &[(Kind, &[f64])] = &[
            (Kind::Gatereeve, &[900.0]),
            (Kind::Nebula, &[100.0]),
            (Kind::Boringtun, &[50.0]),
            (Kind::Veth, &[1000.0]),
            (Kind::CeilingTunn, &[1.0]),
        ];
        let more = made(Figure::Tcp1, programs);
        assert_eq!(more.best_peer(Figure::Tcp1), Some(Kind::Nebula));
        let less = made(Figure::IdleMedian, programs);
        assert_eq!(less.best_peer(Figure::IdleMedian), Some(Kind::Boringtun));
    }
}
