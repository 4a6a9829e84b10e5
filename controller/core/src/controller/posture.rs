//! Reports, verdicts, and what time does to them.

use std::collections::BTreeMap;
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::limits;
use gatereeve_shared::posture::fact::PostureReport;
use gatereeve_shared::posture::verdict::{CheckOutcome, Verdict};
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::controller::ControllerMessage;

use crate::audit::entry::{Actor, AuditEntry};
use crate::change::{Change, CheckVerdicts};
use crate::output::Output;
use crate::state::device::StoredReport;

use super::Controller;
use super::picture::{self, Devices, judge, met};
use super::timers::Timer;

impl Controller {
    /// Takes a device's report and judges it.
    pub(super) fn take_report(&mut self, device: DeviceId, report: PostureReport, now: Now) {
        // A report that is out of bounds says nothing good about anything.
        let facts = if is_bounded(&report) {
            report.facts
        } else {
            Vec::new()
        };
        let soft = self.soft.devices.entry(device).or_default();
        soft.report = Some(StoredReport {
            received: now.unix,
            facts,
        });
        soft.last_seen = Some(now.unix);
        // One device must not keep the disk busy: a report too many is written a little later.
        if self.limits(device, now.mono).soft.take(1, now.mono) {
            self.timers.clear(Timer::Soft(device));
            self.write_soft(device);
        } else if !self.timers.is_set(Timer::Soft(device)) {
            let at = now.mono.saturating_add(Duration::from_secs(1));
            self.timers.set(Timer::Soft(device), at);
        }
        self.review(device, now);
    }

    /// Has a device's soft state written.
    pub(super) fn write_soft(&mut self, device: DeviceId) {
        self.outputs
            .push_back(Output::Soft(vec![self.soft.write(&device)]));
    }

    /// Judges a device by its last report. A check that is newly met or no longer met takes a
    /// record; a later end of one that is met does not.
    pub(super) fn review(&mut self, device: DeviceId, now: Now) {
        let Some(known) = self.staged.devices().get(&device) else {
            return;
        };
        let report = self.soft.devices.get(&device);
        let report = report.and_then(|soft| soft.report.as_ref());
        let mut judged = judge(&self.staged_policy, known, report, now.unix);
        if report.is_none() {
            self.keep_unexpired(&device, &mut judged, now.unix);
        }
        let staged = self.staged.verdicts().get(&device);
        let (was, is) = (met(staged), met(Some(&judged)));
        if was == is {
            let durable = self.picture.state.verdicts().get(&device);
            if met(durable) == is {
                if self.picture.state.devices().contains_key(&device) && is.is_empty() {
                    // Nothing is met, nothing hangs on it: keep the words up to date.
                    self.picture.live.insert(device, judged);
                } else {
                    let until = first_end(self.picture.live.get(&device));
                    picture::extend(self.picture.live.get_mut(&device), durable, judged);
                    if let Some(until) = until {
                        self.renew_around(device, until, now);
                    }
                }
            }
            self.arm_verdicts(device, now);
            self.tell_posture(&device);
            return;
        }
        let opens = !is.is_subset(&was);
        let lines: Vec<String> = describe(staged, &judged);
        let newly = u64::try_from(is.difference(&was).count()).unwrap_or(u64::MAX);
        if opens && !self.limits(device, now.mono).take_verdicts(newly, now.mono) {
            // Opening can wait; closing cannot.
            let staged = self.staged.verdicts().get(&device);
            let was = met(staged);
            judged.retain(|check, verdict| {
                !matches!(verdict, Verdict::Compliant { .. }) || was.contains(check)
            });
            let retry = now.mono.saturating_add(Duration::from_secs(5));
            self.timers.set(Timer::Verdicts(device), retry);
            if met(Some(&judged)) == was {
                return;
            }
        }
        self.stage_verdicts(device, judged, &lines, now);
    }

    fn stage_verdicts(
        &mut self,
        device: DeviceId,
        verdicts: CheckVerdicts,
        lines: &[String],
        now: Now,
    ) {
        let devices = Devices::from([device]);
        let before = self.picture.granted(Some(&devices), now.unix);
        let live = self.picture.live.insert(device, verdicts.clone());
        let after = self.picture.granted(Some(&devices), now.unix);
        match live {
            Some(live) => self.picture.live.insert(device, live),
            None => self.picture.live.remove(&device),
        };
        let audit = AuditEntry::done("posture.change", self.picture.label(&device))
            .because(lines.join("; "))
            .detailed_briefly(self.picture.difference(&before, &after));
        let change = Change::VerdictsChanged { device, verdicts };
        self.stage(Actor::Device(device), change, audit, Vec::new(), now);
        self.arm_verdicts(device, now);
    }

    /// Without a report (soft state was lost), verdicts last as long as they were given.
    fn keep_unexpired(&self, device: &DeviceId, judged: &mut CheckVerdicts, now: UnixMillis) {
        let Some(live) = self.picture.live.get(device) else {
            return;
        };
        for (check, verdict) in judged {
            if let Some(known) = live.get(check).filter(|known| known.is_compliant(now)) {
                *verdict = known.clone();
            }
        }
    }

    /// Sets when the first verdict of a device becomes too old.
    fn arm_verdicts(&mut self, device: DeviceId, now: Now) {
        match first_end(self.picture.live.get(&device)) {
            Some(end) => {
                // Behind its end, its record is on the way to the journal.
                let end = end.max(now.unix.saturating_add(Duration::from_millis(100)));
                self.timers.set_unix(Timer::Verdicts(device), end, now);
            }
            None => self.timers.clear(Timer::Verdicts(device)),
        }
    }

    /// How a device does on the checks that concern it.
    pub(super) fn outcomes(&self, device: &DeviceId) -> Vec<CheckOutcome> {
        let live = self.picture.live.get(device);
        live.into_iter()
            .flatten()
            .map(|(check, verdict)| CheckOutcome {
                check: check.clone(),
                verdict: verdict.clone(),
            })
            .collect()
    }

    /// Tells a connected device how it does, when more than an end has moved.
    pub(super) fn tell_posture(&mut self, device: &DeviceId) {
        let Some(session) = self.attached.get(device).copied() else {
            return;
        };
        let outcomes = self.outcomes(device);
        let told = self.told_posture.get(device);
        if told.is_some_and(|told| without_ends(told) == without_ends(&outcomes)) {
            return;
        }
        self.told_posture.insert(*device, outcomes.clone());
        self.send(session, ControllerMessage::Posture(outcomes));
    }

    /// How all devices with a report do on the checks of a policy that is about to be in force;
    /// only what is met, the rest says itself.
    pub(super) fn judge_all(
        &self,
        policy: &crate::policy::Policy,
        now: UnixMillis,
    ) -> BTreeMap<DeviceId, CheckVerdicts> {
        self.staged
            .devices()
            .values()
            .filter_map(|device| {
                let report = self.soft.devices.get(&device.id)?.report.as_ref()?;
                let mut verdicts = judge(policy, device, Some(report), now);
                verdicts.retain(|_, verdict| matches!(verdict, Verdict::Compliant { .. }));
                (!verdicts.is_empty()).then_some((device.id, verdicts))
            })
            .collect()
    }
}

fn is_bounded(report: &PostureReport) -> bool {
    report.facts.len() <= limits::FACTS
        && report.facts.iter().all(|fact| {
            fact.id.len() <= limits::TEXT
                && fact.source.len() <= limits::TEXT
                && fact.encoded_len() <= limits::FACT_VALUE
        })
}

/// When the first check that is met is met no longer, without another report.
fn first_end(verdicts: Option<&CheckVerdicts>) -> Option<UnixMillis> {
    let verdicts = verdicts.into_iter().flatten();
    let ends = verdicts.filter_map(|(_, verdict)| match verdict {
        Verdict::Compliant { until } => Some(*until),
        Verdict::NonCompliant { .. } => None,
    });
    ends.min()
}

/// What is newly met and what no longer is, in words.
fn describe(before: Option<&CheckVerdicts>, after: &CheckVerdicts) -> Vec<String> {
    let was = met(before);
    after
        .iter()
        .filter_map(|(check, verdict)| match verdict {
            Verdict::Compliant { .. } if !was.contains(check) => Some(format!("{check} is met")),
            Verdict::NonCompliant { failures } if was.contains(check) => {
                let failures: Vec<String> = failures
                    .iter()
                    .map(|failure| format!("wanted {}, found {}", failure.wanted, failure.found))
                    .collect();
                Some(format!("{check} is no longer met: {}", failures.join(", ")))
            }
            Verdict::Compliant { .. } | Verdict::NonCompliant { .. } => None,
        })
        .collect()
}

fn without_ends(outcomes: &[CheckOutcome]) -> Vec<CheckOutcome> {
    outcomes
        .iter()
        .map(|outcome| match &outcome.verdict {
            Verdict::Compliant { .. } => CheckOutcome {
                check: outcome.check.clone(),
                verdict: Verdict::Compliant {
                    until: UnixMillis::MAX,
                },
            },
            Verdict::NonCompliant { .. } => outcome.clone(),
        })
        .collect()
}
