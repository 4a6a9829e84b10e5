//! The policy language once more, as plainly as it can be said: no sets, no index, no shared code.

use gatereeve_shared::policy::port::Protocol;

use crate::support::{HOUR, MINUTE};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Any,
    User(usize),
    Group(usize),
    Tag(usize),
    Device(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) from: Vec<Who>,
    pub(crate) to: Vec<Who>,
    pub(crate) ports: Vec<(Protocol, u16, u16)>,
    pub(crate) posture: Vec<usize>,
    pub(crate) to_posture: Vec<usize>,
    /// Whole hours of every day, UTC.
    pub(crate) hours: Option<(u64, u64)>,
    pub(crate) until: Option<u64>,
    pub(crate) lease_minutes: Option<u64>,
}

/// What a device says of one fact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Good { minutes_ago: u64 },
    Bad,
    Unknown,
    WrongType,
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) user: Option<usize>,
    pub(crate) tags: Vec<bool>,
    pub(crate) approved: bool,
    pub(crate) key_expires: Option<u64>,
    /// One for each fact; `None` is a device without a report.
    pub(crate) says: Option<Vec<Said>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// Which facts it asks for.
    pub(crate) facts: Vec<bool>,
    pub(crate) max_age_minutes: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Which users each group has.
    pub(crate) groups: Vec<Vec<bool>>,
    pub(crate) checks: Vec<Check>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) rules: Vec<Rule>,
}

impl Model {
    fn means(&self, who: Who, machine: usize) -> bool {
        let m = &self.machines[machine];
        match who {
            Who::Any => true,
            Who::User(user) => m.user == Some(user),
            Who::Group(group) => m.user.is_some_and(|user| self.groups[group][user]),
            Who::Tag(tag) => m.tags[tag],
            Who::Device(device) => device == machine,
        }
    }

    /// Until when the machine meets the check.
    pub(crate) fn meets(&self, check: usize, machine: usize, now: u64) -> Option<u64> {
        let check = &self.checks[check];
        let says = self.machines[machine].says.as_ref()?;
        let mut end = u64::MAX;
        for (asked, said) in check.facts.iter().zip(says) {
            if *asked {
                let Said::Good { minutes_ago } = said else {
                    return None;
                };
                let stale = now + check.max_age_minutes * MINUTE - minutes_ago * MINUTE;
                if stale <= now {
                    return None;
                }
                end = end.min(stale);
            }
        }
        Some(end)
    }

    /// End of the window that is open now.
    fn window(hours: (u64, u64), now: u64) -> Option<u64> {
        let day = now - now % (24 * HOUR);
        let (opens, closes) = hours;
        for start in [day - 24 * HOUR, day] {
            let begin = start + opens * HOUR;
            let end = start + closes * HOUR + if closes <= opens { 24 * HOUR } else { 0 };
            if begin <= now && now < end {
                return Some(end);
            }
        }
        None
    }

    /// The end and the hard end of what a rule grants, if it grants anything.
    pub(crate) fn grants(
        &self,
        rule: usize,
        src: usize,
        dst: usize,
        now: u64,
    ) -> Option<(u64, u64)> {
        let rule = &self.rules[rule];
        let named = |who: &[Who], machine| who.iter().any(|who| self.means(*who, machine));
        if src == dst || !named(&rule.from, src) || !named(&rule.to, dst) {
            return None;
        }
        let mut hard = rule.until.unwrap_or(u64::MAX);
        for machine in [src, dst] {
            if !self.machines[machine].approved {
                return None;
            }
            hard = hard.min(self.machines[machine].key_expires.unwrap_or(u64::MAX));
        }
        if let Some(hours) = rule.hours {
            hard = hard.min(Self::window(hours, now)?);
        }
        let mut end = now + rule.lease_minutes.unwrap_or(8 * 60) * MINUTE;
        for check in &rule.posture {
            end = end.min(self.meets(*check, src, now)?);
        }
        for check in &rule.to_posture {
            end = end.min(self.meets(*check, dst, now)?);
        }
        (now < hard).then_some((end.min(hard), hard))
    }

    /// Whether a packet may pass.
    pub(crate) fn allows(
        &self,
        (src, dst): (usize, usize),
        (protocol, port): (Protocol, u16),
        now: u64,
    ) -> bool {
        (0..self.rules.len()).any(|rule| {
            self.grants(rule, src, dst, now).is_some()
                && self.rules[rule].ports.iter().any(|(p, first, last)| {
                    *p == Protocol::Any
                        || (*p == protocol
                            && (protocol == Protocol::Icmp || (*first <= port && port <= *last)))
                })
        })
    }
}
