//! What the soak found: per pair and direction, and whether it is good.

use std::time::Duration;

use serde_json::{Value, json};

use gatereeve_tests::traffic::handshakes::Message;
use gatereeve_tests::traffic::probe::{Stretch, Tally};

use crate::pair::{Direction, Handshakes, Pair};
use crate::pattern::Pattern;

/// A session lives this long: without a younger one, what is sent waits for a handshake.
const SESSION: Duration = Duration::from_secs(180);
/// The longest time that steady traffic may go without a handshake.
const REKEY: Duration = Duration::from_secs(150);
/// Where gaps lie, in seconds since the pair's last handshake.
const BINS: [(u64, u64); 7] = [
    (0, 2),
    (2, 10),
    (10, 15),
    (15, 30),
    (30, 60),
    (60, 120),
    (120, u64::MAX),
];
/// Gaps that a report lists.
const LISTED: usize = 40;

/// What all the pairs came to.
pub(crate) struct Report {
    /// For machines.
    pub(crate) json: Value,
    /// For people.
    pub(crate) lines: Vec<String>,
    /// What is not as it should be.
    pub(crate) failures: Vec<String>,
}

/// What a report is made with.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// Wall-clock time of the start.
    pub(crate) began: Duration,
    pub(crate) elapsed: Duration,
    /// A gap longer than this wants an explanation.
    pub(crate) bound: Duration,
}

/// One line for each pair, while it runs.
pub(crate) fn progress(pairs: &[Pair], messages: &[Message], frame: Frame) -> Vec<String> {
    let minutes = frame.elapsed.as_secs() / 60;
    let seconds = frame.elapsed.as_secs() % 60;
    pairs
        .iter()
        .map(|pair| {
            let handshakes = pair.handshakes(messages);
            let directions: Vec<_> = pair.directions.iter().map(brief).collect();
            format!(
                "{minutes:02}:{seconds:02} {} ({}): {}; handshakes {}, last {} ago",
                pair.name(),
                pair.pattern.name(),
                directions.join("; "),
                handshakes.done.len(),
                seconds_of(handshakes.since(frame.began + frame.elapsed)),
            )
        })
        .collect()
}

fn brief(direction: &Direction) -> String {
    let tally = direction.tally();
    let longest = longest(&tally.lost);
    let mut text = format!(
        "{} > {} sent {} lost {} gap {} delay {} ms",
        direction.from,
        direction.to,
        tally.sent,
        lost(&tally),
        longest.as_millis(),
        tally.longest_delay.as_millis(),
    );
    if let Some(trickled) = direction.trickled() {
        text.push_str(&format!(", tcp {} bytes", trickled.bytes));
    }
    text
}

impl Report {
    /// Of all pairs, at the end.
    pub(crate) fn new(pairs: &[Pair], messages: &[Message], frame: Frame) -> Self {
        let mut report = Self {
            json: Value::Null,
            lines: Vec::new(),
            failures: Vec::new(),
        };
        let pairs: Vec<_> = pairs
            .iter()
            .map(|pair| report.pair(pair, &pair.handshakes(messages), frame))
            .collect();
        report.json = json!({
            "seconds": frame.elapsed.as_secs(),
            "bound_ms": millis(frame.bound),
            "pairs": pairs,
            "failures": report.failures,
        });
        report
    }

    fn pair(&mut self, pair: &Pair, handshakes: &Handshakes, frame: Frame) -> Value {
        let intervals = handshakes.intervals();
        self.lines.push(format!(
            "{} ({}): {} handshakes, {} and {} initiations, {} cookies, {} to {} apart",
            pair.name(),
            pair.pattern.name(),
            handshakes.done.len(),
            handshakes.initiations.0,
            handshakes.initiations.1,
            handshakes.cookies,
            seconds_of(intervals.map(|(shortest, _)| shortest)),
            seconds_of(intervals.map(|(_, longest)| longest)),
        ));
        // Without renewals there is nothing that this run could have found.
        let wanted = frame.elapsed.as_secs().checked_div(REKEY.as_secs());
        let is_kept_busy = !matches!(pair.pattern, Pattern::Alternating { .. });
        if is_kept_busy && (handshakes.done.len() as u64) < wanted.unwrap_or(0).max(1) {
            let count = handshakes.done.len();
            self.fail(format!("{}: only {count} handshakes", pair.name()));
        }
        let directions: Vec<_> = pair
            .directions
            .iter()
            .map(|direction| self.direction(direction, handshakes, frame))
            .collect();
        let times: Vec<_> = handshakes
            .done
            .iter()
            .map(|at| round(at.saturating_sub(frame.began)))
            .collect();
        json!({
            "pair": pair.name(),
            "pattern": pair.pattern.name(),
            "handshakes": handshakes.done.len(),
            "handshake_times_s": times,
            "initiations": [handshakes.initiations.0, handshakes.initiations.1],
            "cookies": handshakes.cookies,
            "directions": directions,
        })
    }

    fn direction(&mut self, direction: &Direction, handshakes: &Handshakes, frame: Frame) -> Value {
        let tally = direction.tally();
        let name = format!("{} > {}", direction.from, direction.to);
        let gaps = Gaps::new(&tally.lost, handshakes, frame);
        let late = Gaps::new(&tally.late, handshakes, frame);
        self.lines.push(format!(
            "  {name}: {} sent, {} lost, {} refused, {} reordered, {} wrong; longest gap {} ms, longest delay {} ms",
            tally.sent, lost(&tally), tally.refused, tally.reordered, tally.wrong,
            longest(&tally.lost).as_millis(), tally.longest_delay.as_millis(),
        ));
        for (what, gaps) in [("missing", &gaps), ("late", &late)] {
            self.lines.extend(gaps.lines(what));
            for gap in gaps.unexplained(frame.bound) {
                self.fail(format!("{name}: {what} {gap}"));
            }
        }
        if tally.received == 0 {
            self.fail(format!("{name}: nothing arrived at all"));
        }
        if tally.wrong > 0 {
            self.fail(format!("{name}: {} packets wrong or twice", tally.wrong));
        }
        let tcp = direction.trickled().map(|trickled| {
            let (silence, at) = trickled.longest_silence;
            self.lines.push(format!(
                "  {name}: tcp {} bytes, {} wrong, longest silence {} ms, {} after a handshake",
                trickled.bytes,
                trickled.wrong,
                silence.as_millis(),
                seconds_of(handshakes.since(at)),
            ));
            // A gap makes TCP wait for longer than it lasts.
            let is_silent = silence > frame.bound.saturating_mul(3);
            let is_broken = trickled.wrong > 0 || trickled.ended.is_some();
            if is_broken || is_silent || trickled.bytes == 0 {
                self.fail(format!("{name}: tcp {trickled:?}"));
            }
            json!({ "bytes": trickled.bytes, "wrong": trickled.wrong, "longest_silence_ms": millis(silence) })
        });
        json!({
            "from": direction.from,
            "to": direction.to,
            "sent": tally.sent,
            "received": tally.received,
            "lost": lost(&tally),
            "refused": tally.refused,
            "reordered": tally.reordered,
            "wrong": tally.wrong,
            "longest_gap_ms": millis(longest(&tally.lost)),
            "longest_delay_ms": millis(tally.longest_delay),
            "gaps": gaps.to_json(),
            "late": late.to_json(),
            "stretches_not_kept": tally.not_kept,
            "tcp": tcp,
        })
    }

    fn fail(&mut self, what: String) {
        self.failures.push(what);
    }
}

/// Gaps, and where they lie.
struct Gaps(Vec<Gap>);

struct Gap {
    /// Since the start of the run.
    at: Duration,
    length: Duration,
    packets: u64,
    /// Time from the last handshake to the gap.
    since_handshake: Option<Duration>,
    is_explained: bool,
}

impl Gaps {
    fn new(stretches: &[Stretch], handshakes: &Handshakes, frame: Frame) -> Self {
        let gaps = stretches.iter().filter(|stretch| stretch.packets > 0);
        Self(
            gaps.map(|stretch| Gap {
                at: stretch.began.saturating_sub(frame.began),
                length: stretch.length(),
                packets: stretch.packets,
                since_handshake: handshakes.since(stretch.began),
                is_explained: is_explained(stretch, handshakes, frame.bound),
            })
            .collect(),
        )
    }

    fn unexplained(&self, bound: Duration) -> impl Iterator<Item = String> {
        let long = move |gap: &&Gap| gap.length > bound && !gap.is_explained;
        self.0.iter().filter(long).map(Gap::text)
    }

    fn lines(&self, what: &str) -> Vec<String> {
        let mut longest: Vec<_> = self.0.iter().collect();
        longest.sort_by_key(|gap| std::cmp::Reverse(gap.length));
        longest
            .iter()
            .take(5)
            .map(|gap| format!("    {what} {}", gap.text()))
            .collect()
    }

    fn to_json(&self) -> Value {
        let bins: serde_json::Map<String, Value> = BINS
            .iter()
            .map(|(from, to)| {
                let inside = |gap: &&Gap| {
                    gap.since_handshake
                        .is_some_and(|since| (*from..*to).contains(&since.as_secs()))
                };
                let name = match *to {
                    u64::MAX => format!("from {from} s"),
                    to => format!("{from}-{to} s"),
                };
                (name, self.0.iter().filter(inside).count().into())
            })
            .collect();
        let list: Vec<_> = self
            .0
            .iter()
            .take(LISTED)
            .map(|gap| {
                json!({
                    "at_s": round(gap.at),
                    "ms": millis(gap.length),
                    "packets": gap.packets,
                    "since_handshake_s": gap.since_handshake.map(round),
                    "explained": gap.is_explained,
                })
            })
            .collect();
        json!({ "count": self.0.len(), "since_handshake": bins, "list": list })
    }
}

impl Gap {
    fn text(&self) -> String {
        format!(
            "{} packets over {} ms, at {:.1} s, {} after a handshake{}",
            self.packets,
            self.length.as_millis(),
            self.at.as_secs_f64(),
            seconds_of(self.since_handshake),
            if self.is_explained {
                " (no session lived: waited for one)"
            } else {
                ""
            }
        )
    }
}

/// Whether the protocol explains a gap: no session lived, so what was sent waited for a handshake, in a
/// queue with a bound; and it was over as soon as there was one.
fn is_explained(gap: &Stretch, handshakes: &Handshakes, bound: Duration) -> bool {
    let had_session = handshakes
        .since(gap.began)
        .is_some_and(|since| since < SESSION);
    let was_over = handshakes
        .until(gap.began)
        .is_some_and(|until| gap.length() <= until + bound);
    !had_session && was_over
}

/// The longest of those in which packets are missing still.
fn longest(stretches: &[Stretch]) -> Duration {
    let lasting = stretches.iter().filter(|stretch| stretch.packets > 0);
    lasting.map(Stretch::length).max().unwrap_or_default()
}

fn lost(tally: &Tally) -> u64 {
    tally.lost.iter().map(|stretch| stretch.packets).sum()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn seconds_of(time: Option<Duration>) -> String {
    time.map_or_else(
        || "none".into(),
        |time| format!("{:.1} s", time.as_secs_f64()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_waiting_for_a_handshake_explains_a_gap() {
        let handshakes = Handshakes {
            done: vec![secs(100), secs(400)],
            ..Handshakes::default()
        };
        let bound = secs(1);
        let gap = |began: u64, ended: u64| Stretch {
            began: secs(began),
            ended: secs(ended),
            packets: 1,
        };
        let explained = |gap: Stretch| is_explained(&gap, &handshakes, bound);
        assert!(!explained(gap(120, 135)), "deaf with a session that lives");
        assert!(!explained(gap(279, 400)), "the session lived");
        assert!(explained(gap(395, 400)), "no session, one came");
        assert!(
            !explained(gap(395, 402)),
            "the session came, and nothing passed"
        );
        assert!(!explained(gap(700, 710)), "no session came");

        let frame = Frame {
            began: Duration::ZERO,
            elapsed: secs(1000),
            bound,
        };
        let gaps = Gaps::new(
            &[gap(120, 135), gap(395, 400), gap(128, 129)],
            &handshakes,
            frame,
        );
        assert_eq!(gaps.unexplained(bound).count(), 1);
        let json = gaps.to_json();
        assert_eq!(json["since_handshake"]["15-30 s"], 2);
        assert_eq!(json["since_handshake"]["from 120 s"], 1);
    }
}
