//! The rules of one direction, compiled for look-up.

use std::sync::Arc;

use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::time::Mono;

use crate::datapath::RuleSpec;

/// What may be sent in one direction. Empty means nothing.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    id: Arc<RuleId>,
    ports: Vec<PortSpec>,
    end: Mono,
}

impl Rules {
    /// Compiles them.
    #[must_use]
    pub fn new(specs: &[RuleSpec]) -> Self {
        Self(
            specs
                .iter()
                .map(|spec| Rule {
                    id: Arc::new(spec.rule.clone()),
                    ports: spec.ports.clone(),
                    end: spec.end,
                })
                .collect(),
        )
    }

    /// The rule that allows traffic of `protocol` to `port` for longest, with its end.
    #[must_use]
    pub fn allow(&self, protocol: Protocol, port: u16, now: Mono) -> Option<(Arc<RuleId>, Mono)> {
        self.0
            .iter()
            .filter(|rule| {
                now < rule.end
                    && rule
                        .ports
                        .iter()
                        .any(|ports| ports.contains(protocol, port))
            })
            .max_by_key(|rule| rule.end)
            .map(|rule| (Arc::clone(&rule.id), rule.end))
    }

    /// When the last rule ends.
    #[must_use]
    pub fn live_until(&self) -> Option<Mono> {
        self.0.iter().map(|rule| rule.end).max()
    }

    /// Whether any rule is live.
    #[must_use]
    pub fn is_live(&self, now: Mono) -> bool {
        self.0.iter().any(|rule| now < rule.end)
    }
}
