//! What is measured, in which unit, and which way is better.

use crate::measure::Test;

/// Whether more or less of something is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// More is.
    Higher,
    /// Less is.
    Lower,
}

/// One figure of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Tcp1,
    Tcp4,
    Bidir,
    CpuDaemons1,
    CpuDaemons4,
    CpuMachine1,
    CpuMachine4,
    Udp64,
    Udp64Flood,
    Udp1400,
    Udp1400Flood,
    IdleMedian,
    IdleP99,
    LoadedMedian,
    LoadedP99,
    FirstReply,
    MemoryIdle,
    MemoryLoad,
}

impl Figure {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 18] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Bidir,
        Self::CpuDaemons1,
        Self::CpuDaemons4,
        Self::CpuMachine1,
        Self::CpuMachine4,
        Self::Udp64,
        Self::Udp64Flood,
        Self::Udp1400,
        Self::Udp1400Flood,
        Self::IdleMedian,
        Self::IdleP99,
        Self::LoadedMedian,
        Self::LoadedP99,
        Self::FirstReply,
        Self::MemoryIdle,
        Self::MemoryLoad,
    ];

    /// Its name in JSON, and what it is called.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tcp1 => ("tcp1", "TCP, 1 stream"),
            Self::Tcp4 => ("tcp4", "TCP, 4 streams"),
            Self::Bidir => ("bidir", "TCP, 4 + 4 streams both ways, sum"),
            Self::CpuDaemons1 => ("cpu_daemons_1", "CPU of both daemons, 1 stream"),
            Self::CpuDaemons4 => ("cpu_daemons_4", "CPU of both daemons, 4 streams"),
            Self::CpuMachine1 => ("cpu_machine_1", "CPU of the whole machine, 1 stream"),
            Self::CpuMachine4 => ("cpu_machine_4", "CPU of the whole machine, 4 streams"),
            Self::Udp64 => ("udp64", "UDP 64 bytes at <= 1 % loss"),
            Self::Udp64Flood => ("udp64_flood", "UDP 64 bytes received in a flood"),
            Self::Udp1400 => ("udp1400", "UDP 1400 bytes at <= 1 % loss"),
            Self::Udp1400Flood => ("udp1400_flood", "UDP 1400 bytes received in a flood"),
            Self::IdleMedian => ("idle_median", "Round trip, idle, median"),
            Self::IdleP99 => ("idle_p99", "Round trip, idle, p99"),
            Self::LoadedMedian => ("loaded_median", "Round trip under 4 streams, median"),
            Self::LoadedP99 => ("loaded_p99", "Round trip under 4 streams, p99"),
            Self::FirstReply => ("first_reply", "First reply from cold"),
            Self::MemoryIdle => ("memory_idle", "Resident memory before traffic"),
            Self::MemoryLoad => ("memory_load", "Resident memory under load"),
        }
    }

    /// Its name in JSON.
    pub(crate) fn id(self) -> &'static str {
        self.names().0
    }

    /// What it is called.
    pub(crate) fn label(self) -> &'static str {
        self.names().1
    }

    /// The test that has to be asked for to see it.
    pub(crate) fn test(self) -> Test {
        match self {
            Self::Tcp1 => Test::Tcp1,
            Self::Tcp4 => Test::Tcp4,
            Self::Bidir => Test::Bidir,
            Self::CpuDaemons1 | Self::CpuDaemons4 | Self::CpuMachine1 | Self::CpuMachine4 => {
                Test::Cpu
            }
            Self::Udp64 | Self::Udp64Flood => Test::Udp64,
            Self::Udp1400 | Self::Udp1400Flood => Test::Udp1400,
            Self::IdleMedian | Self::IdleP99 => Test::Idle,
            Self::LoadedMedian | Self::LoadedP99 => Test::Loaded,
            Self::FirstReply => Test::Handshake,
            Self::MemoryIdle | Self::MemoryLoad => Test::Memory,
        }
    }

    /// Its unit, and which way is better.
    fn scale(self) -> (&'static str, Better) {
        match self.test() {
            Test::Tcp1 | Test::Tcp4 | Test::Bidir => ("Mbit/s", Better::Higher),
            Test::Udp64 | Test::Udp1400 => ("kpps", Better::Higher),
            Test::Cpu => ("s/GB", Better::Lower),
            Test::Handshake | Test::Idle | Test::Loaded => ("ms", Better::Lower),
            Test::Memory => ("MiB", Better::Lower),
        }
    }

    /// Its unit.
    pub(crate) fn unit(self) -> &'static str {
        self.scale().0
    }

    /// Which way is better.
    pub(crate) fn better(self) -> Better {
        self.scale().1
    }
}

/// A figure with as many digits as it deserves.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
