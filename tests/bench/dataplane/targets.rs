//! What the data path has to show, and whether it does.

use crate::figure::{Better, Figure, digits};
use crate::programs::Kind;
use crate::results::Results;
use crate::together::{Together, together};

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Against {
    /// A program, in the same round.
    Program(Kind),
    /// Whichever of the peers is best.
    BestPeer,
    /// Nothing: the figure itself, as it is on the machine that the targets were written for.
    Absolute,
}

/// A figure and the two marks set for it.
#[derive(Clone, Copy, Debug)]
struct Target {
    figure: Figure,
    against: Against,
    solid: f64,
    further: f64,
}

/// Where a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not measured, or not what it is held against.
    Unknown,
    /// Short of the first mark.
    NotYet,
    /// Past the first mark.
    Ok,
    /// The first mark is to be equal, and nothing speaks for more than a twentieth beyond it.
    Equal,
    /// Past the second one too.
    Further,
}

impl Verdict {
    /// As it is printed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "not measured",
            Self::NotYet => "not yet",
            Self::Ok => "ok",
            Self::Equal => "ok, equal within 5 %",
            Self::Further => "ok, and further",
        }
    }
}

/// How far all replies together may lie beyond the other's to be called equal, by any of nineteen in twenty draws.
const EQUAL: f64 = 1.05;

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) metric: &'static str,
    pub(crate) relative_to: String,
    pub(crate) solid: String,
    pub(crate) further: String,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

const fn target(figure: Figure, against: Against, solid: f64, further: f64) -> Target {
    Target {
        figure,
        against,
        solid,
        further,
    }
}

const TARGETS: [Target; 14] = {
    use Against::{Absolute, BestPeer, Program};
    [
        target(Figure::Tcp1, Program(Kind::WireguardGoNew), 1.5, 2.0),
        target(Figure::Tcp1, Program(Kind::Boringtun), 9.0, 12.0),
        target(Figure::Tcp1, Program(Kind::WireguardGo), 8.0, 10.0),
        target(Figure::Tcp1, Program(Kind::CeilingTunn), 0.95, 1.25),
        target(Figure::Tcp4, Program(Kind::WireguardGoNew), 1.6, 2.2),
        target(Figure::CpuDaemons4, Program(Kind::WireguardGoNew), 0.6, 0.4),
        target(Figure::CpuDaemons4, Program(Kind::Boringtun), 0.17, 0.12),
        target(Figure::Udp64, BestPeer, 1.25, 2.0),
        target(Figure::Udp1400, BestPeer, 1.3, 2.0),
        target(Figure::IdleMedian, BestPeer, 1.0, 0.7),
        target(Figure::IdleP99, BestPeer, 1.0, 0.7),
        target(Figure::LoadedMedian, Absolute, 4.0, 1.0),
        target(Figure::LoadedP99, Absolute, 10.0, 3.0),
        target(Figure::FirstReply, BestPeer, 1.0, 0.5),
    ]
};

/// All lines, for daemons that each know `peers` peers.
pub(crate) fn lines(results: &Results, peers: u16) -> Vec<Line> {
    let peers = f64::from(peers);
    let memory = target(
        Figure::MemoryLoad,
        Against::Absolute,
        16.0 + peers * 8.0 / 1024.0,
        8.0 + peers * 2.0 / 1024.0,
    );
    TARGETS
        .iter()
        .chain([&memory])
        .map(|target| target.line(results))
        .collect()
}

impl Target {
    fn line(&self, results: &Results) -> Line {
        let figure = self.figure;
        let (relative_to, peer) = match self.against {
            Against::Absolute => ("absolute".to_owned(), None),
            Against::Program(kind) => (kind.name().to_owned(), Some(kind)),
            Against::BestPeer => match results.best_peer(figure) {
                Some(kind) => (format!("best peer ({kind})"), Some(kind)),
                None => ("best peer".to_owned(), None),
            },
        };
        let measured = match self.against {
            Against::Absolute => {
                let value = results.median(Kind::Gatereeve, figure);
                value.map(|value| (value, None))
            }
            Against::Program(_) | Against::BestPeer => {
                peer.and_then(|kind| ratio(results, figure, kind))
            }
        };
        let all = peer.and_then(|kind| together(results, figure, Kind::Gatereeve, kind));
        let show = |value: f64| match self.against {
            Against::Absolute => format!("{} {}", digits(value), figure.unit()),
            Against::Program(_) | Against::BestPeer => format!("{value:.2}x"),
        };
        let together = all.map_or_else(String::new, |Together { ratio, low, high }| {
            format!("; together {ratio:.2}x ({low:.2} to {high:.2})")
        });
        Line {
            metric: figure.label(),
            relative_to,
            solid: show(self.solid),
            further: show(self.further),
            measured: match measured {
                None => "-".to_owned(),
                Some((value, None)) => show(value),
                Some((value, Some((least, most)))) => {
                    format!("{} ({least:.2} to {most:.2}){together}", show(value))
                }
            },
            verdict: measured.map_or(Verdict::Unknown, |(value, _)| self.judge(value, all)),
        }
    }

    fn judge(&self, value: f64, all: Option<Together>) -> Verdict {
        let reaches = |mark: f64| match self.figure.better() {
            Better::Higher => value >= mark,
            Better::Lower => value <= mark,
        };
        // Of these, less is better.
        let is_equal = || self.solid == 1.0 && all.is_some_and(|all| all.high <= EQUAL);
        if reaches(self.further) {
            Verdict::Further
        } else if reaches(self.solid) {
            Verdict::Ok
        } else if is_equal() {
            Verdict::Equal
        } else {
            Verdict::NotYet
        }
    }
}

/// A median ratio with the least and the most of it.
type Measured = (f64, Option<(f64, f64)>);

fn ratio(results: &Results, figure: Figure, to: Kind) -> Option<Measured> {
    let spread = results.ratio(figure, Kind::Gatereeve, to)?;
    Some((spread.median, Some((spread.least, spread.most))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::made;

    fn verdict(results: &Results, metric: Figure, relative_to: &str) -> (Verdict, String) {
        let line = lines(results, 1)
            .into_iter()
            .find(|line| line.metric == metric.label() && line.relative_to == relative_to)
            .unwrap();
        (line.verdict, line.measured)
    }

    #[test]
    fn more_is_better_for_throughput() {
        for (ours, wanted) in [
            (140.0, Verdict::NotYet),
            (150.0, Verdict::Ok),
            (200.0, Verdict::Further),
        ] {
            let programs: &[(Kind, &[f64])] =
                &[(Kind::Gatereeve, &[ours]), (Kind::WireguardGoNew, &[100.0])];
            let results = made(Figure::Tcp1, programs);
            assert_eq!(
                verdict(&results, Figure::Tcp1, "wireguard-go-new").0,
                wanted
            );
            let absent = verdict(&results, Figure::Tcp1, "boringtun");
            assert_eq!(absent, (Verdict::Unknown, "-".to_owned()));
        }
    }

    #[test]
    fn less_is_better_for_time_and_memory() {
        let programs: &[(Kind, &[f64])] = &[
            (Kind::Gatereeve, &[0.12, 0.2, 0.11]),
            (Kind::Boringtun, &[0.1, 0.1, 0.1]),
            (Kind::Nebula, &[0.3, 0.3, 0.3]),
        ];
        let results = made(Figure::IdleMedian, programs);
        let (found, measured) = verdict(&results, Figure::IdleMedian, "best peer (boringtun)");
        assert_eq!(found, Verdict::NotYet);
        assert_eq!(measured, "1.20x (1.10 to 2.00)");
        let memory = made(Figure::MemoryLoad, &[(Kind::Gatereeve, &[12.0])]);
        assert_eq!(
            verdict(&memory, Figure::MemoryLoad, "absolute"),
            (Verdict::Ok, "12.0 MiB".to_owned())
        );
    }

    #[test]
    fn equal_is_what_all_replies_together_cannot_tell_apart() {
        let against = "best peer (boringtun)";
        // The round has 1.01x: by the median alone it is not there yet.
        for (factor, spread, laps, wanted) in [
            (1.01, 0.01, 40, Verdict::Equal),
            // The same, and few laps that say little.
            (1.01, 0.01, 10, Verdict::NotYet),
            // As many laps, and more than a twentieth beyond.
            (1.06, 0.01, 40, Verdict::NotYet),
            // Not further, but no further than equal has to be.
            (0.99, 0.01, 40, Verdict::Ok),
        ] {
            let results = crate::together::tests::two(factor, spread, laps);
            let (found, measured) = verdict(&results, Figure::IdleP99, against);
            assert_eq!(found, wanted, "{factor} of {laps} laps: {measured}");
            assert_eq!(measured.contains("; together "), laps == 40, "{measured}");
        }
    }
}
