//! What a posture check may ask of facts.

use std::collections::BTreeMap;
use std::fmt;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::version::{Comparator, VersionReq};

/// One condition of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// A fact that must be true; the name is also the key in the policy file.
    True(&'static str),
    /// One of these systems, in a version that is good enough; `None` is any version.
    Os(BTreeMap<String, Option<VersionReq>>),
    /// The running kernel's version.
    Kernel(VersionReq),
    /// How many security updates may be missing.
    PendingUpdates(Comparator, i64),
    /// An executable that must be running.
    Process(String),
    /// An administrator's fact, by its name without the prefix.
    Custom(String, Wanted),
}

/// What an administrator's fact must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This value exactly.
    Is(FactValue),
    /// A number or version that compares like this.
    Compares(VersionReq),
    /// A number that compares like this; also met by a version in text form that does.
    Number(Comparator, i64),
}

impl Condition {
    /// The facts that it needs, by ID.
    pub(crate) fn facts(&self) -> Vec<String> {
        match self {
            Self::True(name) => vec![(*name).to_owned()],
            Self::Os(systems) => {
                let mut needed = vec![names::OS.to_owned()];
                if systems.values().any(Option::is_some) {
                    needed.push(names::OS_VERSION.to_owned());
                }
                needed
            }
            Self::Kernel(_) => vec![names::KERNEL.to_owned()],
            Self::PendingUpdates(..) => vec![names::PENDING_SECURITY_UPDATES.to_owned()],
            Self::Process(path) => vec![format!("{}{path}", names::PROCESS_PREFIX)],
            Self::Custom(name, _) => vec![format!("{}{name}", names::CUSTOM_PREFIX)],
        }
    }

    /// Whether the values of [`Self::facts`], in that order and none of them unknown, meet it.
    /// A value of the wrong type does not.
    pub(crate) fn is_met(&self, values: &[FactValue]) -> bool {
        match (self, values) {
            (Self::True(_) | Self::Process(_), [FactValue::Bool(value)]) => *value,
            (Self::Os(systems), [FactValue::Text(system)]) => {
                matches!(systems.get(system), Some(None))
            }
            (Self::Os(systems), [FactValue::Text(system), FactValue::Text(version)]) => {
                systems.get(system).is_some_and(|wanted| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.accepts(version) == Some(true))
                })
            }
            (Self::Kernel(wanted), [FactValue::Text(version)]) => {
                wanted.accepts(version) == Some(true)
            }
            (Self::PendingUpdates(comparator, wanted), [FactValue::Int(count)]) => {
                *count >= 0 && comparator.accepts(count.cmp(wanted))
            }
            (Self::Custom(_, wanted), [value]) => wanted.is_met(value),
            (
                Self::True(_)
                | Self::Os(_)
                | Self::Kernel(_)
                | Self::PendingUpdates(..)
                | Self::Process(_)
                | Self::Custom(..),
                _,
            ) => false,
        }
    }

    /// The executable that must be running, if that is what it asks.
    pub(crate) fn process(&self) -> Option<&str> {
        match self {
            Self::Process(path) => Some(path),
            Self::True(_)
            | Self::Os(_)
            | Self::Kernel(_)
            | Self::PendingUpdates(..)
            | Self::Custom(..) => None,
        }
    }
}

impl Wanted {
    fn is_met(&self, value: &FactValue) -> bool {
        match (self, value) {
            (_, FactValue::Unknown(_)) => false,
            (Self::Is(wanted), value) => wanted == value,
            (Self::Number(comparator, wanted), FactValue::Int(found)) => {
                comparator.accepts(found.cmp(wanted))
            }
            (Self::Compares(wanted), FactValue::Int(found)) => {
                wanted.accepts(&found.to_string()) == Some(true)
            }
            (Self::Compares(wanted), FactValue::Text(found)) => wanted.accepts(found) == Some(true),
            (Self::Number(comparator, wanted), FactValue::Text(found)) => {
                VersionReq::parse(&format!("{comparator} {wanted}"))
                    .and_then(|wanted| wanted.accepts(found))
                    == Some(true)
            }
            (Self::Compares(_) | Self::Number(..), FactValue::Bool(_)) => false,
        }
    }
}

/// The condition as it stands in the policy file.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::True(name) => write!(f, "{name} = true"),
            Self::Os(systems) => {
                let systems: Vec<String> = systems
                    .iter()
                    .map(|(name, version)| match version {
                        Some(version) => format!("{name} {version}"),
                        None => name.clone(),
                    })
                    .collect();
                write!(f, "os: {}", systems.join(" or "))
            }
            Self::Kernel(version) => write!(f, "kernel {version}"),
            Self::PendingUpdates(comparator, count) => {
                write!(f, "pending_security_updates {comparator} {count}")
            }
            Self::Process(path) => write!(f, "process {path} running"),
            Self::Custom(name, wanted) => match wanted {
                Wanted::Is(value) => write!(f, "custom.{name} = {}", Shown(value)),
                Wanted::Compares(version) => write!(f, "custom.{name} {version}"),
                Wanted::Number(comparator, number) => {
                    write!(f, "custom.{name} {comparator} {number}")
                }
            },
        }
    }
}

/// A value for people: bounded, on one line.
pub(crate) struct Shown<'a>(pub(crate) &'a FactValue);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| {
            let text: String = text.chars().take(80).collect();
            gatereeve_shared::text::printable(&text)
        };
        match self.0 {
            FactValue::Bool(value) => value.fmt(f),
            FactValue::Int(value) => value.fmt(f),
            FactValue::Text(value) => write!(f, "\"{}\"", short(value)),
            FactValue::Unknown(why) => write!(f, "unknown: {}", short(why)),
        }
    }
}
