//! All replies of all rounds together, and how much of what they come to may be chance.
//!
//! The 99th percentile of one round hangs on sixty replies, and on how often a core was taken by somebody else just then: from
//! round to round the ratio of two programs moves by a tenth, and so does the median of five of them. All replies together say
//! it more closely, and drawing the laps again (Efron's bootstrap) says how closely. What is drawn is a lap of both programs: its
//! replies share a phase of the machine, and so do those of two programs that were asked one after the other.

use gatereeve_tests::random::Random;

use crate::figure::Figure;
use crate::measure::Record;
use crate::programs::Kind;
use crate::results::Results;
use crate::statistics::percentile;

/// How often the laps are drawn.
const DRAWS: usize = 200;
/// Of which so many are left out at either end: one in forty, so that nineteen in twenty are between.
const LEFT_OUT: usize = DRAWS / 40;
/// The same draws for the same figures.
const SEED: u64 = 1;
/// Fewer laps than this say nothing of how far they lie apart.
const LEAST_LAPS: usize = 20;

/// A ratio of all replies of one program to all of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Together {
    pub(crate) ratio: f64,
    /// One draw in forty has less.
    pub(crate) low: f64,
    /// One draw in forty has more.
    pub(crate) high: f64,
}

/// A figure of `of` divided by that of `to`; `None` for figures that no single replies are kept of.
pub(crate) fn together(results: &Results, figure: Figure, of: Kind, to: Kind) -> Option<Together> {
    let share = share(figure)?;
    let laps = pairs(results, of, to);
    if laps.len() < LEAST_LAPS {
        return None;
    }
    let ratio = ratio(laps.iter(), share)?;
    let mut random = Random::new(SEED);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let drawn = (0..laps.len()).filter_map(|_| random.pick(&laps));
        draws.push(self::ratio(drawn, share)?);
    }
    draws.sort_by(f64::total_cmp);
    Some(Together {
        ratio,
        low: *draws.get(LEFT_OUT)?,
        high: *draws.iter().nth_back(LEFT_OUT)?,
    })
}

/// Which share of the replies lies below a figure, where single replies are kept.
fn share(figure: Figure) -> Option<f64> {
    [(Figure::IdleMedian, 0.5), (Figure::IdleP99, 0.99)]
        .into_iter()
        .find_map(|(of, share)| (of == figure).then_some(share))
}

/// A lap of one program, and the same lap of another.
type Pair<'a> = (&'a [f64], &'a [f64]);

fn pairs(results: &Results, of: Kind, to: Kind) -> Vec<Pair<'_>> {
    let in_round = |kind: Kind, round: u32| -> Option<&Record> {
        let mut turns = results.turns.iter();
        let turn = turns.find(|turn| turn.kind == kind && turn.round == round)?;
        Some(&turn.record)
    };
    let ours = results.turns.iter().filter(|turn| turn.kind == of);
    let both = ours.filter_map(|turn| Some((&turn.record, in_round(to, turn.round)?)));
    both.flat_map(|(ours, theirs)| {
        let ours = ours.idle_laps.iter().map(Vec::as_slice);
        ours.zip(theirs.idle_laps.iter().map(Vec::as_slice))
    })
    .collect()
}

fn ratio<'a>(laps: impl Iterator<Item = &'a Pair<'a>>, share: f64) -> Option<f64> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (our, their) in laps {
        ours.extend_from_slice(our);
        theirs.extend_from_slice(their);
    }
    let ratio = percentile(&mut ours, share) / percentile(&mut theirs, share);
    ratio.is_finite().then_some(ratio)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::results::tests::made;

    /// One round of both programs, with replies of about a millisecond, those of the first `factor` times as long. They are spread
    /// as `spread` has it: 1 for evenly over one to two milliseconds.
    pub(crate) fn two(factor: f64, spread: f64, laps: usize) -> Results {
        let programs: &[(Kind, &[f64])] =
            &[(Kind::Gatereeve, &[factor]), (Kind::Boringtun, &[1.0])];
        let mut results = made(Figure::IdleP99, programs);
        let mut random = Random::new(7);
        for turn in &mut results.turns {
            let times = if turn.kind == Kind::Gatereeve {
                factor
            } else {
                1.0
            };
            let mut lap = || -> Vec<f64> {
                let reply = |_| 1.0 + spread * (random.below(1000) as f64 / 1000.0);
                (0..100).map(reply).map(|reply| reply * times).collect()
            };
            turn.record.idle_laps = (0..laps).map(|_| lap()).collect();
        }
        results
    }

    fn p99(results: &Results) -> Option<Together> {
        together(results, Figure::IdleP99, Kind::Gatereeve, Kind::Boringtun)
    }

    #[test]
    fn the_interval_is_about_the_ratio_and_narrower_with_more_laps() {
        let few = p99(&two(1.2, 1.0, 20)).unwrap();
        let many = p99(&two(1.2, 1.0, 100)).unwrap();
        for found in [few, many] {
            assert!(
                found.low <= found.ratio && found.ratio <= found.high,
                "{found:?}"
            );
            assert!(found.low < 1.21 && found.high > 1.19, "{found:?}");
        }
        assert!(
            many.high - many.low < few.high - few.low,
            "{many:?} {few:?}"
        );
        // Nothing moves where all replies take as long.
        let even = p99(&two(1.2, 0.0, 20)).unwrap();
        assert_eq!((even.low, even.ratio, even.high), (1.2, 1.2, 1.2));
    }

    #[test]
    fn the_same_figures_come_to_the_same() {
        let results = two(1.0, 1.0, 20);
        assert_eq!(p99(&results), p99(&results));
    }

    #[test]
    fn without_replies_of_both_there_is_none() {
        assert_eq!(p99(&two(1.0, 1.0, LEAST_LAPS - 1)), None);
        let mut results = two(1.0, 1.0, 20);
        let other = |figure, to| together(&results, figure, Kind::Gatereeve, to);
        assert_eq!(other(Figure::IdleP99, Kind::Nebula), None);
        assert_eq!(other(Figure::Tcp1, Kind::Boringtun), None);
        results
            .turns
            .iter_mut()
            .for_each(|turn| turn.round += u32::from(turn.kind == Kind::Gatereeve));
        assert_eq!(p99(&results), None);
    }
}
