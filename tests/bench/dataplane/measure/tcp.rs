//! TCP: throughput, and what it costs.

use anyhow::ensure;
use serde_json::{Value, json};

use super::iperf::number;
use super::usage::CpuTime;
use super::{Record, Subject};
use crate::figure::Figure;

/// Seconds of the run before the one that counts: handshakes, windows, first allocations.
const WARM_UP: u32 = 1;

impl Subject<'_> {
    /// `streams` streams from left to right.
    pub(super) fn tcp(&self, streams: u32, record: &mut Record) -> anyhow::Result<()> {
        let (mbit, daemons, machine) = match streams {
            1 => (Figure::Tcp1, Figure::CpuDaemons1, Figure::CpuMachine1),
            _ => (Figure::Tcp4, Figure::CpuDaemons4, Figure::CpuMachine4),
        };
        let options = vec!["--parallel".to_owned(), streams.to_string()];
        self.iperf(WARM_UP, &options)?;
        let (report, used) = self.counted(&options)?;
        let bytes = number(&report, ["sum_received", "bytes"])?;
        ensure!(bytes > 0.0, "nothing arrived");
        let rate = number(&report, ["sum_received", "bits_per_second"])?;
        record.set(mbit, rate / 1e6);
        let gigabytes = bytes / 1e9;
        if !self.running.daemons.is_empty() {
            record.set(daemons, used.daemons / gigabytes);
        }
        record.set(machine, used.machine / gigabytes);
        record.keep(&format!("tcp{streams}"), raw(&report, used));
        Ok(())
    }

    /// `streams` streams each way at once.
    pub(super) fn both_ways(&self, streams: u32, record: &mut Record) -> anyhow::Result<()> {
        let parallel = ["--parallel".to_owned(), streams.to_string()];
        self.iperf(WARM_UP, &parallel)?;
        let options = [&parallel[..], &["--bidir".to_owned()]].concat();
        let (report, used) = self.counted(&options)?;
        let there = number(&report, ["sum_received", "bits_per_second"])?;
        let back = number(&report, ["sum_received_bidir_reverse", "bits_per_second"])?;
        ensure!(there > 0.0 && back > 0.0, "one way carried nothing");
        record.set(Figure::Bidir, (there + back) / 1e6);
        record.keep("bidir", raw(&report, used));
        Ok(())
    }

    /// A run with CPU time around it.
    fn counted(&self, options: &[String]) -> anyhow::Result<(Value, CpuTime)> {
        let before = CpuTime::now(&self.running.daemons)?;
        let report = self.iperf(self.arguments.secs, options)?;
        let used = CpuTime::now(&self.running.daemons)?.since(before);
        Ok((report, used))
    }
}

fn raw(report: &Value, used: CpuTime) -> Value {
    json!({
        "sent": report["sum_sent"],
        "received": report["sum_received"],
        "received_reverse": report["sum_received_bidir_reverse"],
        "iperf3_cpu_percent": report["cpu_utilization_percent"],
        "cpu_seconds": {
            "daemons": used.daemons,
            "machine": used.machine,
            "stolen": used.stolen,
        },
    })
}
