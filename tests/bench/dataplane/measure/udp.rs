//! UDP: what arrives in a flood, and the highest rate at which hardly anything is lost.

use anyhow::ensure;
use serde_json::{Value, json};

use super::iperf::number;
use super::{Record, Subject};
use crate::figure::Figure;

/// The loss that is put up with.
const LOSS: f64 = 0.01;
/// Probes of a search at most.
const STEPS: usize = 8;
/// The search ends where the highest good and the lowest bad rate are this close.
const CLOSE: f64 = 1.05;
/// What iperf3 asks of its socket, where the system's limits allow it: its own buffer must not be
/// what loses packets.
const SOCKET_BUFFER: u64 = 4 << 20;

/// What one rate came to, in packets per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Probe {
    sent: f64,
    received: f64,
}

impl Probe {
    fn is_good(self) -> bool {
        self.received >= self.sent * (1.0 - LOSS)
    }
}

impl Subject<'_> {
    /// Datagrams with `size` bytes of payload.
    pub(super) fn udp(&self, size: u32, record: &mut Record) -> anyhow::Result<()> {
        let (best, flood_figure) = match size {
            64 => (Figure::Udp64, Figure::Udp64Flood),
            _ => (Figure::Udp1400, Figure::Udp1400Flood),
        };
        let mut probes = Vec::new();
        let mut probe = |rate: f64| -> anyhow::Result<Probe> {
            let probe = self.udp_probe(size, rate)?;
            probes.push(json!({
                "asked_pps": rate, "sent_pps": probe.sent, "received_pps": probe.received,
            }));
            Ok(probe)
        };
        let flood = probe(0.0)?;
        let found = search(flood, &mut probe);
        record.keep(&format!("udp{size}"), Value::Array(probes));
        record.set(flood_figure, flood.received / 1e3);
        record.set(best, found? / 1e3);
        Ok(())
    }

    /// Sends `rate` packets per second, or as many as will go for 0.
    fn udp_probe(&self, size: u32, rate: f64) -> anyhow::Result<Probe> {
        let options = [
            "--udp".to_owned(),
            "--length".to_owned(),
            size.to_string(),
            "--bitrate".to_owned(),
            format!("{:.0}", rate * f64::from(size) * 8.0),
            "--window".to_owned(),
            socket_buffer().to_string(),
        ];
        let report = self.iperf(self.arguments.probe_secs, &options)?;
        let sent = number(&report, ["sum_sent", "packets"])?;
        // The receiver counts gaps in the numbering, and what is lost at the very end leaves none:
        // what arrived is counted by its bytes.
        let arrived = number(&report, ["sum_received", "bytes"])? / f64::from(size);
        let seconds = number(&report, ["sum_sent", "seconds"])?;
        ensure!(seconds > 0.0 && sent > 0.0, "iperf3 sent nothing");
        Ok(Probe {
            sent: sent / seconds,
            received: (arrived / seconds).clamp(0.0, sent / seconds),
        })
    }
}

/// The highest good rate, looked for between nothing and the flood.
fn search(
    flood: Probe,
    mut probe: impl FnMut(f64) -> anyhow::Result<Probe>,
) -> anyhow::Result<f64> {
    if flood.is_good() {
        return Ok(flood.received);
    }
    let (mut good, mut bad, mut best) = (0.0, flood.sent, 0.0_f64);
    let mut rate = flood.received.min(flood.sent * 0.95).max(flood.sent * 0.02);
    for _ in 0..STEPS {
        let found = probe(rate)?;
        if found.is_good() {
            (good, best) = (rate, best.max(found.received));
            // From a flood that drowned the receiver the way up may be long.
            rate = f64::midpoint(good, bad).min(good * 1.5);
        } else {
            bad = rate;
            rate = if good > 0.0 {
                f64::midpoint(good, bad)
            } else {
                bad * 0.6
            };
        }
        if good > 0.0 && bad / good < CLOSE {
            break;
        }
    }
    ensure!(
        best > 0.0,
        "every rate down to {bad:.0} packets/s loses more than 1 %"
    );
    Ok(best)
}

/// What the system lets a socket have, both ways.
fn socket_buffer() -> u64 {
    ["rmem_max", "wmem_max"]
        .iter()
        .filter_map(|name| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
            text.trim().parse().ok()
        })
        .fold(SOCKET_BUFFER, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries `capacity` packets a second and drops what is beyond.
    fn carry(capacity: f64, rate: f64) -> Probe {
        Probe {
            sent: rate,
            received: rate.min(capacity),
        }
    }

    #[test]
    fn the_search_comes_close_from_below() {
        for capacity in [10_000.0, 61_000.0, 190_000.0] {
            let mut calls = 0;
            let found = search(carry(capacity, 250_000.0), |rate| {
                calls += 1;
                Ok(carry(capacity, rate))
            })
            .unwrap();
            assert!(found <= capacity, "{found} of {capacity}");
            assert!(found > capacity * 0.93, "{found} of {capacity}");
            assert!(calls <= STEPS);
        }
    }

    #[test]
    fn a_flood_that_passes_is_the_answer() {
        let flood = carry(300_000.0, 250_000.0);
        let found = search(flood, |_| anyhow::bail!("nothing to look for"));
        assert_eq!(found.unwrap(), 250_000.0);
    }

    #[test]
    fn a_collapse_under_a_flood_does_not_end_the_search() {
        // In a flood hardly anything arrives; below the capacity everything does.
        let flood = Probe {
            sent: 250_000.0,
            received: 5_000.0,
        };
        let found = search(flood, |rate| Ok(carry(40_000.0, rate))).unwrap();
        assert!((37_000.0..=40_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_path_that_always_loses_is_an_error() {
        let lossy = |rate: f64| Probe {
            sent: rate,
            received: rate / 2.0,
        };
        assert!(search(lossy(250_000.0), |rate| Ok(lossy(rate))).is_err());
    }
}
