//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::machine;
use crate::measure::Test;
use crate::programs::Kind;

/// Measures the data path beside other userspace WireGuards and overlays, in the same run.
///
/// Two network namespaces joined by a veth pair; one program after the other in both of them, all of
/// them in every round, but for idle round trips, for which all are up at once; medians over the rounds, and
/// ratios taken round by round.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// How many times each program has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds of each TCP test and of the ping beside one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub(crate) secs: u32,
    /// Seconds of each UDP probe
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub(crate) probe_secs: u32,
    /// Programs, in the order of their turns
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Kind::USUAL)]
    pub(crate) only: Vec<Kind>,
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Test::ALL)]
    pub(crate) tests: Vec<Test>,
    /// What the cable between the two hosts does with large packets; of several, the first has all tests, the others those that
    /// hang on it
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Wire::On, Wire::Off])]
    pub(crate) wire: Vec<Wire>,
    /// TCP congestion control of the test traffic, as `cubic` or `bbr`; as the machine has it where not given
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Send the test traffic over IPv6 (inside; the tunnel itself stays on IPv4)
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Peers that each end knows, of which all but one are strangers that never send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) peers: u16,
    /// Which sessions the programs have: Linux shares the processors between sessions first
    #[arg(long, value_enum, default_value_t = Sessions::One)]
    pub(crate) sessions: Sessions,
    /// Write every raw value and the machine's facts here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the figures here
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Where `gatereeve`, `gatereeve-controller` and `ceiling` are; cargo builds them where absent
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// A directory with other programs, looked through before the PATH
    #[arg(long, value_name = "DIR")]
    pub(crate) tools: Option<PathBuf>,
    /// Begin nothing new after so many minutes
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: u32,
}

impl Arguments {
    /// The length of each TCP test, and of the ping beside one.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.secs.into())
    }

    /// The TCP congestion control of the test traffic.
    pub(crate) fn congestion(&self) -> String {
        self.congestion
            .clone()
            .unwrap_or_else(machine::congestion_control)
    }

    /// What the cable does, of a [part](Self::by_wire).
    pub(crate) fn wire(&self) -> Wire {
        self.wire.first().copied().unwrap_or(Wire::On)
    }

    /// One part for each kind of cable: all that was asked for with the first, what hangs on it with the others.
    pub(crate) fn by_wire(&self) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        for wire in &self.wire {
            let mut part = Self {
                wire: vec![*wire],
                ..self.clone()
            };
            if !parts.is_empty() {
                part.tests.retain(|test| test.hangs_on_the_wire());
            }
            if !part.tests.is_empty() && parts.iter().all(|part| part.wire() != *wire) {
                parts.push(part);
            }
        }
        parts
    }

    /// Whether `test` is to be shown.
    pub(crate) fn wants(&self, test: Test) -> bool {
        self.tests.contains(&test)
    }
}

/// Which sessions the programs have, and what measures them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sessions {
    /// All have the one of this program
    One,
    /// Each has its own, as services have
    Each,
}

/// What the cable between the two hosts does with large packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// Segmented sends cross whole: as between guests of one machine; flatters who uses them
    On,
    /// One MTU per packet on the wire, joined by the receiver's NAPI: as with a usual network card
    Gro,
    /// One MTU per packet, never joined: as with a card that has no offloads
    Off,
}

impl Wire {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Gro => "gro",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> Vec<(Wire, Vec<Test>)> {
        let words = std::iter::once("bench-dataplane").chain(line.split_whitespace());
        let parts = Arguments::parse_from(words).by_wire().into_iter();
        parts.map(|part| (part.wire(), part.tests)).collect()
    }

    #[test]
    fn every_cable_has_the_tests_that_hang_on_it() {
        let usual = parts("");
        assert_eq!(usual.len(), 2);
        assert_eq!(usual[0], (Wire::On, Test::ALL.to_vec()));
        let (wire, tests) = &usual[1];
        assert_eq!(*wire, Wire::Off);
        assert!(tests.contains(&Test::Tcp1) && tests.contains(&Test::Udp64));
        assert!(!tests.contains(&Test::Idle) && !tests.contains(&Test::Handshake));
        assert_eq!(
            parts("--wire gro,gro,on --tests idle,tcp1"),
            [
                (Wire::Gro, vec![Test::Idle, Test::Tcp1]),
                (Wire::On, vec![Test::Tcp1])
            ]
        );
        assert_eq!(parts("--tests idle"), [(Wire::On, vec![Test::Idle])]);
    }
}
