//! Round trips.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::json;

use super::{Record, Subject};
use crate::figure::Figure;
use crate::statistics::percentile;
use crate::tool::Started;

/// Echo requests of a program's turn in a lap, 2 ms apart: short beside the machine's phases, which last up to half a minute.
const LAP: u32 = 100;
/// Those at the beginning of a turn that do not count: nothing was sent while others had theirs, and `ping` has just started.
const FIRST: u32 = 10;
/// Milliseconds between the echo requests of a cold start.
const COLD_INTERVAL: f64 = 10.0;
/// What the load gets before the first echo request, to fill the queues.
const HEAD_START: Duration = Duration::from_millis(700);
/// What a ping may take beyond its own limit.
const SLACK: Duration = Duration::from_secs(5);
/// Fewer replies than this say nothing of a 99th percentile.
const FEWEST: usize = 50;

impl Subject<'_> {
    /// Milliseconds from the first packet that anybody sends through the tunnel to the first reply.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn first_reply(&self) -> anyhow::Result<f64> {
        self.replies("0.01", 20, Duration::from_secs(6))?
            .iter()
            .map(|reply| reply.sent_at(COLD_INTERVAL) + reply.millis)
            .min_by(f64::total_cmp)
            .context("no reply at all")
    }

    /// Milliseconds of round trips with nothing else under way: one turn of a lap.
    ///
    /// # Errors
    /// Where less than half of the replies came.
    pub(super) fn idle_turn(&self) -> anyhow::Result<Vec<f64>> {
        let replies = self.replies("0.002", FIRST + LAP, Duration::from_secs(3))?;
        // Where replies are lost, `ping` goes on until it has as many as it was told.
        let counted = replies
            .iter()
            .filter(|reply| (FIRST + 1..=FIRST + LAP).contains(&reply.sequence));
        let times: Vec<f64> = counted.map(|reply| reply.millis).collect();
        ensure!(
            times.len() >= (LAP / 2) as usize,
            "only {} replies of {LAP}",
            times.len()
        );
        Ok(times)
    }

    /// Round trips, 10 ms apart, while four streams fill the tunnel.
    pub(super) fn loaded(&self, record: &mut Record) -> anyhow::Result<()> {
        let length = self.arguments.length();
        let options = ["--parallel".to_owned(), "4".to_owned()];
        let replies = std::thread::scope(|scope| {
            let ping = scope.spawn(|| {
                std::thread::sleep(HEAD_START);
                self.replies("0.01", self.arguments.secs.saturating_mul(100), length)
            });
            let load = self.iperf(self.arguments.secs.saturating_add(1), &options);
            let replies = ping
                .join()
                .map_err(|_| anyhow!("the ping's thread panicked"))?;
            load.and(replies)
        })?;
        let mut times: Vec<f64> = replies.iter().map(|reply| reply.millis).collect();
        ensure!(times.len() >= FEWEST, "only {} replies", times.len());
        record.keep("loaded_ms", json!(times));
        record.set(Figure::LoadedMedian, percentile(&mut times, 0.5));
        record.set(Figure::LoadedP99, percentile(&mut times, 0.99));
        Ok(())
    }

    fn replies(&self, interval: &str, count: u32, limit: Duration) -> anyhow::Result<Vec<Reply>> {
        let done = self
            .start_ping(interval, count, limit)?
            .finish(limit + SLACK)?;
        Ok(parse(&done.text))
    }

    fn start_ping(&self, interval: &str, count: u32, limit: Duration) -> anyhow::Result<Started> {
        let target = self.target()?.to_string();
        let (count, limit) = (count.to_string(), limit.as_secs().max(1).to_string());
        let arguments = ["-n", "-i", interval, "-c", &count, "-w", &limit, &target];
        let left = Some(&self.pair.left.namespace);
        self.tools
            .start(left, "ping", self.tools.ping(), &arguments)
    }
}

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reply {
    sequence: u32,
    millis: f64,
}

impl Reply {
    /// Milliseconds from the first request to this reply's.
    fn sent_at(self, interval: f64) -> f64 {
        f64::from(self.sequence.saturating_sub(1)) * interval
    }
}

fn parse(text: &str) -> Vec<Reply> {
    let word = |line: &str, key: &str| {
        let (_, rest) = line.split_once(key)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    text.lines()
        .filter_map(|line| {
            Some(Reply {
                sequence: word(line, "icmp_seq=")?.parse().ok()?,
                millis: word(line, "time=")?.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_and_everything_else_is_not() {
        let text = "PING 10.98.0.2 (10.98.0.2) 56(84) bytes of data.\n\
                    64 bytes from 10.98.0.2: icmp_seq=1 ttl=64 time=0.123 ms\n\
                    From 10.98.0.1 icmp_seq=2 Destination Host Unreachable\n\
                    64 bytes from 10.98.0.2: icmp_seq=3 ttl=64 time=12.5 ms\n\
                    3 packets transmitted, 2 received, 33% packet loss, time 4ms\n";
        let replies = parse(text);
        let times: Vec<_> = replies.iter().map(|r| (r.sequence, r.millis)).collect();
        assert_eq!(times, [(1, 0.123), (3, 12.5)]);
        assert_eq!(replies[1].sent_at(COLD_INTERVAL), 20.0);
    }
}
