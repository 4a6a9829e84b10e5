//! The policy: check, plan, apply, and questions about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::Now;

use crate::audit::entry::AuditEntry;
use crate::change::{Change, CheckVerdicts};
use crate::command::{
    CommandError, ErrorCode, FactView, FlowView, PlanView, PolicyProblem, PostureView, Reply,
    RevisionView, TestView,
};
use crate::pdp::{View, explain, reach};
use crate::policy::resolve::Resolved;
use crate::policy::{Policy, diff, selftest};

use super::super::Controller;
use super::super::commit::{Asked, Effect};
use super::{Answer, Caller};

/// A policy that could be put in force.
struct Candidate {
    policy: Policy,
    sets: Resolved,
    verdicts: BTreeMap<DeviceId, CheckVerdicts>,
    warnings: Vec<PolicyProblem>,
}

impl Controller {
    /// Parses and checks a file against the devices as staged, and runs its tests.
    fn candidate(&self, text: &str, now: Now) -> Result<Candidate, CommandError> {
        let parsed = Policy::parse(text, self.staged.names());
        let (policy, warnings) = parsed.map_err(|problems| {
            let count = problems
                .iter()
                .filter(|problem| !problem.is_warning)
                .count();
            let message = match count {
                1 => "the policy has an error; nothing was changed".to_owned(),
                _ => format!("the policy has {count} errors; nothing was changed"),
            };
            CommandError {
                problems,
                ..CommandError::new(ErrorCode::Usage, message)
            }
        })?;
        self.examine(policy, warnings, now)
    }

    fn examine(
        &self,
        policy: Policy,
        mut warnings: Vec<PolicyProblem>,
        now: Now,
    ) -> Result<Candidate, CommandError> {
        let sets = Resolved::new(&policy, self.staged.devices());
        let verdicts = self.judge_all(&policy, now.unix);
        warnings.extend(policy.idle_rules(&sets));
        let view = View {
            devices: self.staged.devices(),
            verdicts: &verdicts,
            policy: &policy,
            sets: &sets,
        };
        let failed: Vec<String> = selftest::run_tests(&view, now.unix)
            .iter()
            .filter(|test| test.allowed != test.expect_allow)
            .map(failure)
            .collect();
        if !failed.is_empty() {
            return Err(CommandError::new(
                ErrorCode::Refused,
                format!(
                    "{} of the policy's tests fail, so it is not put in force: {}",
                    failed.len(),
                    failed.join("; ")
                ),
            ));
        }
        Ok(Candidate {
            policy,
            sets,
            verdicts,
            warnings,
        })
    }

    /// What a candidate opens and closes, against what is staged.
    fn compare(&self, candidate: &Candidate, now: Now) -> (Vec<FlowView>, Vec<FlowView>) {
        let sets = Resolved::new(&self.staged_policy, self.staged.devices());
        let old = View {
            devices: self.staged.devices(),
            verdicts: &self.picture.live,
            policy: &self.staged_policy,
            sets: &sets,
        };
        let new = View {
            devices: self.staged.devices(),
            verdicts: &candidate.verdicts,
            policy: &candidate.policy,
            sets: &candidate.sets,
        };
        diff::plan(&old, &new, now.unix)
    }

    pub(super) fn check_policy(&self, text: &str, now: Now) -> Result<Reply, CommandError> {
        let candidate = self.candidate(text, now)?;
        Ok(Reply::PolicyChecked {
            rules: candidate.policy.rule_count(),
            tests: candidate.policy.test_count(),
            warnings: candidate.warnings,
        })
    }

    pub(super) fn plan_policy(&self, text: &str, now: Now) -> Result<Reply, CommandError> {
        let candidate = self.candidate(text, now)?;
        let (opens, closes) = self.compare(&candidate, now);
        Ok(Reply::Plan(PlanView {
            revision: self.revision(),
            opens,
            closes,
            warnings: candidate.warnings,
        }))
    }

    /// The revision that is staged; 0 for none.
    fn revision(&self) -> u64 {
        self.staged.policy().map_or(0, |policy| policy.revision)
    }

    pub(super) fn apply_policy(
        &mut self,
        caller: Caller<'_>,
        text: &str,
        if_generation: Option<u64>,
        now: Now,
    ) -> Answer {
        let revision = self.revision();
        if let Some(expected) = if_generation.filter(|expected| *expected != revision) {
            return Err(CommandError::new(
                ErrorCode::Conflict,
                format!(
                    "revision {revision} of the policy is in force, not {expected}: somebody has \
                     changed it meanwhile; plan again"
                ),
            ));
        }
        let candidate = self.candidate(text, now)?;
        self.put_in_force(caller, candidate, "policy.apply", now);
        Ok(None)
    }

    pub(super) fn roll_back(&mut self, caller: Caller<'_>, revision: u64, now: Now) -> Answer {
        let Some(earlier) = self.staged.policies().get(&revision) else {
            return Err(no_revision(revision));
        };
        // The pins of then are kept: a name that another device has by now does not get its access.
        let policy =
            Policy::from_pinned(&earlier.text, &earlier.pins).map_err(|problems| CommandError {
                problems,
                ..CommandError::new(
                    ErrorCode::Refused,
                    format!("revision {revision} is not understood by this version"),
                )
            })?;
        let candidate = self.examine(policy, Vec::new(), now)?;
        self.put_in_force(caller, candidate, "policy.rollback", now);
        Ok(None)
    }

    fn put_in_force(&mut self, caller: Caller<'_>, candidate: Candidate, action: &str, now: Now) {
        let (opens, closes) = self.compare(&candidate, now);
        let before = self.revision();
        let revision = before.saturating_add(1);
        let lines = |word: &'static str, flows: Vec<FlowView>| {
            flows.into_iter().map(move |flow| {
                let ports: Vec<String> = flow.ports.iter().map(ToString::to_string).collect();
                let rules: Vec<&str> = flow.rules.iter().map(|rule| rule.as_str()).collect();
                format!(
                    "{word} {} -> {} {} by {}",
                    flow.from,
                    flow.to,
                    ports.join(" "),
                    rules.join(" ")
                )
            })
        };
        let rules = candidate.policy.rule_count();
        let audit = AuditEntry::done(action, format!("revision {revision}"))
            .from_to(format!("revision {before}"), format!("{rules} rules"))
            .detailed(lines("closes", closes).chain(lines("opens", opens)));
        let change = Change::PolicyApplied {
            revision,
            text: candidate.policy.text().to_owned(),
            pins: candidate.policy.pins().clone(),
            rules: u64::try_from(rules).unwrap_or(u64::MAX),
            verdicts: candidate.verdicts,
        };
        let asked = Asked {
            request: caller.request,
            summary: format!("policy revision {revision} is in force, with {rules} rules"),
            revision: Some(revision),
            wait: caller.wait,
            subject: None,
        };
        let effects = vec![
            Effect::Policy(Arc::new(candidate.policy)),
            Effect::Committed(asked),
        ];
        self.stage(caller.actor.clone(), change, audit, effects, now);
    }

    pub(super) fn show_policy(&self, revision: Option<u64>) -> Result<Reply, CommandError> {
        let policies = self.picture.state.policies();
        let policy = match revision {
            None => self.picture.state.policy(),
            Some(0) => None,
            Some(wanted) => Some(policies.get(&wanted).ok_or_else(|| no_revision(wanted))?),
        };
        Ok(Reply::Policy {
            revision: policy.map_or(0, |policy| policy.revision),
            text: policy.map(|policy| policy.text.clone()).unwrap_or_default(),
        })
    }

    pub(super) fn policy_history(&self) -> Reply {
        let in_force = self.picture.state.policy().map(|policy| policy.revision);
        let revisions = self
            .picture
            .state
            .policies()
            .values()
            .rev()
            .map(|policy| RevisionView {
                revision: policy.revision,
                at: policy.at,
                by: policy.by.clone(),
                rules: usize::try_from(policy.rules).unwrap_or(usize::MAX),
                in_force: Some(policy.revision) == in_force,
            })
            .collect();
        Reply::History { revisions }
    }

    pub(super) fn test_policy(&self, now: Now) -> Reply {
        Reply::Tests {
            results: selftest::run_tests(&self.picture.view(), now.unix),
        }
    }

    pub(super) fn explain(
        &self,
        src: &str,
        dst: &str,
        port: &PortSpec,
        now: Now,
    ) -> Result<Reply, CommandError> {
        let (src, dst) = (self.device(src)?.id, self.device(dst)?.id);
        explain::explain(&self.picture.view(), &src, &dst, port, now.unix)
            .map(Reply::Explained)
            .ok_or_else(gone)
    }

    pub(super) fn reach(&self, device: &str, now: Now) -> Result<Reply, CommandError> {
        let device = self.device(device)?.id;
        reach::reach(&self.picture.view(), &device, now.unix)
            .map(Reply::Reach)
            .ok_or_else(gone)
    }

    pub(super) fn show_posture(&self, device: &str) -> Result<Reply, CommandError> {
        let device = self.device(device)?;
        let report = self.soft.devices.get(&device.id);
        let report = report.and_then(|soft| soft.report.as_ref());
        let facts = report.map_or_else(Vec::new, |report| {
            let seen = |age| {
                let age = std::time::Duration::from_millis(age);
                report.received.saturating_sub(age)
            };
            report
                .facts
                .iter()
                .map(|fact| FactView {
                    id: fact.id.clone(),
                    value: fact.value(),
                    source: fact.source.clone(),
                    observed: seen(fact.age_ms),
                })
                .collect()
        });
        Ok(Reply::Posture(PostureView {
            device: device.name.clone(),
            received: report.map(|report| report.received),
            facts,
            checks: self.outcomes(&device.id),
        }))
    }
}

fn failure(test: &TestView) -> String {
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    format!(
        "{} -> {} {}: expected {}, found {}",
        test.from,
        test.to,
        test.port,
        word(test.expect_allow),
        word(test.allowed)
    )
}

fn no_revision(revision: u64) -> CommandError {
    CommandError::new(
        ErrorCode::NotFound,
        format!("no policy revision {revision}: `gatereeve-controller policy history` shows all"),
    )
}

fn gone() -> CommandError {
    CommandError::new(ErrorCode::NotFound, "the device is not known")
}
