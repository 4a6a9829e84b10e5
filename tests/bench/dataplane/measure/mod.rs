//! The tests: what is sent through a program that is set up, and what is read off it.

pub(crate) mod idle;
mod iperf;
mod ping;
mod tcp;
mod udp;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::figure::Figure;
use crate::pair::Pair;
use crate::programs::Running;
use crate::tool::Tools;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Test {
    /// First reply from cold
    Handshake,
    /// Round trip without other traffic
    Idle,
    /// TCP, one stream
    Tcp1,
    /// TCP, four streams
    Tcp4,
    /// TCP, four streams each way at once
    Bidir,
    /// Round trip under four TCP streams
    Loaded,
    /// UDP datagrams of 64 bytes
    Udp64,
    /// UDP datagrams of 1400 bytes
    Udp1400,
    /// CPU seconds per gigabyte, taken during the TCP tests
    Cpu,
    /// Resident memory, before and after the load
    Memory,
}

impl Test {
    /// All, in the order in which they are run.
    pub(crate) const ALL: [Self; 10] = [
        Self::Handshake,
        Self::Idle,
        Self::Tcp1,
        Self::Tcp4,
        Self::Bidir,
        Self::Loaded,
        Self::Udp64,
        Self::Udp1400,
        Self::Cpu,
        Self::Memory,
    ];

    /// Whether it differs with what the cable does to large packets.
    pub(crate) fn hangs_on_the_wire(self) -> bool {
        match self {
            Self::Handshake | Self::Idle | Self::Memory => false,
            Self::Tcp1
            | Self::Tcp4
            | Self::Bidir
            | Self::Loaded
            | Self::Udp64
            | Self::Udp1400
            | Self::Cpu => true,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Tcp1 => "tcp1",
            Self::Tcp4 => "tcp4",
            Self::Bidir => "bidir",
            Self::Loaded => "loaded",
            Self::Udp64 => "udp64",
            Self::Udp1400 => "udp1400",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of one program's turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// The figures.
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// What they were computed from.
    pub(crate) raw: Map<String, Value>,
    /// Idle round trips in milliseconds, lap by lap.
    pub(crate) idle_laps: Vec<Vec<f64>>,
    /// What went wrong, by test.
    pub(crate) failures: Vec<String>,
}

impl Record {
    /// What a figure came to.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied()
    }

    /// Sets a figure, where it is a number.
    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        if value.is_finite() {
            self.figures.insert(figure, value);
        }
    }

    /// Keeps what a figure was computed from.
    pub(crate) fn keep(&mut self, name: &str, value: Value) {
        self.raw.insert(name.to_owned(), value);
    }

    /// Keeps the larger of what there is and `value`.
    fn raise(&mut self, figure: Figure, value: f64) {
        let held = self.get(figure).unwrap_or(0.0);
        self.set(figure, held.max(value));
    }
}

/// A program that is set up, and what is needed to test it.
pub(crate) struct Subject<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) tools: &'a Tools,
    pub(crate) pair: &'a Pair,
    pub(crate) running: &'a Running,
}

impl Subject<'_> {
    /// The right end's address inside the tunnel.
    fn target(&self) -> anyhow::Result<IpAddr> {
        let [_, right] = self.running.addresses(self.arguments.ipv6)?;
        Ok(right)
    }

    /// The tests that have to be run on a program that is up alone, for what was asked: CPU and memory
    /// are taken along with TCP, a cold start is not set up yet, and idle tunnels are up all at once.
    pub(crate) fn plan(arguments: &Arguments) -> Vec<Test> {
        let by_the_way = |test| {
            let cpu = arguments.wants(Test::Cpu);
            (test == Test::Tcp1 && cpu)
                || (test == Test::Tcp4 && (cpu || arguments.wants(Test::Memory)))
        };
        Test::ALL
            .into_iter()
            .filter(|test| {
                !matches!(
                    test,
                    Test::Handshake | Test::Idle | Test::Cpu | Test::Memory
                )
            })
            .filter(|test| arguments.wants(*test) || by_the_way(*test))
            .collect()
    }

    /// Runs one test. A failure is recorded, and the next test may go on.
    pub(crate) fn run(&self, test: Test, record: &mut Record) {
        let result = match test {
            Test::Tcp1 => self.tcp(1, record),
            Test::Tcp4 => self.tcp(4, record),
            Test::Bidir => self.both_ways(4, record),
            Test::Loaded => self.loaded(record),
            Test::Udp64 => self.udp(64, record),
            Test::Udp1400 => self.udp(1400, record),
            Test::Handshake | Test::Idle | Test::Cpu | Test::Memory => Ok(()),
        };
        let result = result.and_then(|()| self.memory(record));
        if let Err(error) = result {
            record.failures.push(format!("{test}: {error:#}"));
        }
    }

    /// The most that the larger daemon has held, after a test that loads it: what it gives back before it is looked at was there.
    fn memory(&self, record: &mut Record) -> anyhow::Result<()> {
        if !self.running.daemons.is_empty() {
            record.raise(
                Figure::MemoryLoad,
                usage::resident_mib(&self.running.daemons, usage::Resident::Most)?,
            );
        }
        Ok(())
    }
}
