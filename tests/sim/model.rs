//! The reference: who may reach whom, in the plainest way there is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::posture::verdict::Verdict;

use gatereeve_tests::random::Random;

/// Tags that devices have, one each.
pub(crate) const TAGS: [&str; 4] = ["red", "green", "blue", "grey"];
/// Ports that packets go to.
pub(crate) const PORTS: std::ops::Range<u16> = 1000..1005;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    from: &'static str,
    to: &'static str,
    first: u16,
    last: u16,
    posture: bool,
    to_posture: bool,
    pub(crate) lease: Duration,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(pub(crate) Vec<Rule>);

impl Rules {
    pub(crate) fn random(random: &mut Random) -> Self {
        let rules = (0..random.below(9)).map(|_| {
            let first = PORTS.start + u16::try_from(random.below(PORTS.len())).unwrap();
            let last = first + u16::try_from(random.below(usize::from(PORTS.end - first))).unwrap();
            Rule {
                from: random.pick(&TAGS).unwrap(),
                to: random.pick(&TAGS).unwrap(),
                first,
                last,
                posture: random.one_in(3),
                to_posture: random.one_in(6),
                lease: Duration::from_secs(20 + random.below(40) as u64),
            }
        });
        Self(rules.collect())
    }

    /// As an administrator writes it.
    pub(crate) fn text(&self, number: usize) -> String {
        let mut text = format!("# {number}\nversion = 1\n");
        for tag in TAGS {
            writeln!(text, "[tags.\"tag:{tag}\"]").unwrap();
        }
        text.push_str("[posture.healthy]\ncustom.healthy = true\nmax_age = \"10m\"\n");
        for (at, rule) in self.0.iter().enumerate() {
            let Rule {
                from,
                to,
                first,
                last,
                lease,
                ..
            } = rule;
            write!(
                text,
                "[[allow]]\nid = \"r{at}\"\nfrom = [\"tag:{from}\"]\nto = [\"tag:{to}\"]\nports = [\"udp:{first}-{last}\"]\nlease = \"{}s\"\n",
                lease.as_secs()
            )
            .unwrap();
            if rule.posture {
                text.push_str("posture = [\"healthy\"]\n");
            }
            if rule.to_posture {
                text.push_str("to_posture = [\"healthy\"]\n");
            }
        }
        text
    }
}

/// What a decision depends on, at one generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    rules: Rules,
    devices: BTreeMap<DeviceId, Standing>,
}

#[derive(Clone, Debug)]
struct Standing {
    tags: Vec<String>,
    is_approved: bool,
    is_healthy: bool,
}

impl Snapshot {
    pub(crate) fn of(state: &State, rules: Rules) -> Self {
        let devices = state.devices().values().map(|device| {
            let verdicts = state.verdicts().get(&device.id);
            let is_healthy = verdicts.is_some_and(|verdicts| {
                verdicts
                    .values()
                    .any(|v| matches!(v, Verdict::Compliant { .. }))
            });
            let standing = Standing {
                tags: device.tags.iter().map(ToString::to_string).collect(),
                is_approved: device.status == DeviceStatus::Approved,
                is_healthy,
            };
            (device.id, standing)
        });
        Self {
            rules,
            devices: devices.collect(),
        }
    }

    /// The longest lease of the rules that let `from` reach `port` of `to`; `None` where none does.
    pub(crate) fn allowed(&self, from: DeviceId, to: DeviceId, port: u16) -> Option<Duration> {
        let granting = self.granting(from, to);
        granting
            .filter(|rule| (rule.first..=rule.last).contains(&port))
            .map(|rule| rule.lease)
            .max()
    }

    /// Source, destination and port of everything that is allowed.
    pub(crate) fn everything(&self) -> Vec<(DeviceId, DeviceId, u16)> {
        let pairs = self
            .devices
            .keys()
            .flat_map(|a| self.devices.keys().map(move |b| (*a, *b)));
        pairs
            .flat_map(|(a, b)| PORTS.map(move |port| (a, b, port)))
            .filter(|(a, b, port)| self.allowed(*a, *b, *port).is_some())
            .collect()
    }

    /// Whether any rule connects the two, either way.
    pub(crate) fn connected(&self, a: DeviceId, b: DeviceId) -> bool {
        self.granting(a, b)
            .chain(self.granting(b, a))
            .next()
            .is_some()
    }

    fn granting(&self, from: DeviceId, to: DeviceId) -> impl Iterator<Item = &Rule> {
        let pair = self.devices.get(&from).zip(self.devices.get(&to));
        let pair = pair.filter(|(a, b)| from != to && a.is_approved && b.is_approved);
        self.rules.0.iter().filter(move |rule| {
            pair.is_some_and(|(source, destination)| {
                source.tags.iter().any(|tag| tag == rule.from)
                    && destination.tags.iter().any(|tag| tag == rule.to)
                    && (!rule.posture || source.is_healthy)
                    && (!rule.to_posture || destination.is_healthy)
            })
        })
    }
}
