//! From collected facts to a report that fits its frame.

use std::collections::BTreeSet;

use gatereeve_shared::limits;
use gatereeve_shared::posture::fact::{Fact, FactValue, PostureReport};
use gatereeve_shared::time::Now;

use crate::output::ObservedFact;

/// Bytes of all facts together: well below [`limits::CLIENT_FRAME`], with room for the rest of an attach.
const BUDGET: usize = limits::CLIENT_FRAME / 2;
/// Bytes beside the texts that a fact takes at most.
const OVERHEAD: usize = 32;

/// Brings facts into bounds: each once, none too long, not too many. What is too long to be
/// reported is reported as unknown, and so never counts as good.
pub(crate) fn bounded(facts: Vec<ObservedFact>) -> Vec<ObservedFact> {
    let mut seen = BTreeSet::new();
    let mut budget = BUDGET;
    let mut kept = Vec::new();
    for mut fact in facts {
        if fact.id.is_empty() || fact.id.len() > limits::TEXT || !seen.insert(fact.id.clone()) {
            continue;
        }
        if fact.value.to_bytes().len() > limits::FACT_VALUE {
            fact.value = FactValue::Unknown("its value is too long to be reported".into());
        }
        truncate(&mut fact.source, limits::TEXT);
        let size = fact.id.len() + fact.source.len() + fact.value.to_bytes().len() + OVERHEAD;
        let Some(left) = budget.checked_sub(size) else {
            continue;
        };
        if kept.len() < limits::FACTS {
            budget = left;
            kept.push(fact);
        }
    }
    kept
}

/// The report of `facts` as of now.
pub(crate) fn report(counter: u64, facts: &[ObservedFact], now: Now) -> PostureReport {
    let facts = facts
        .iter()
        .map(|fact| {
            let age = now.mono.since(fact.observed).as_millis();
            Fact::new(
                fact.id.clone(),
                &fact.value,
                fact.source.clone(),
                u64::try_from(age).unwrap_or(u64::MAX),
            )
        })
        .collect();
    PostureReport { counter, facts }
}

fn truncate(text: &mut String, limit: usize) {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatereeve_shared::time::Mono;
    use gatereeve_shared::wire::client::ClientMessage;

    use super::*;

    fn fact(id: &str, value: FactValue) -> ObservedFact {
        ObservedFact {
            id: id.into(),
            value,
            source: "test".into(),
            observed: Mono(0),
        }
    }

    #[test]
    fn a_report_of_anything_fits_its_frame() {
        let huge = (0..2000)
            .map(|n| ObservedFact {
                source: "\u{20ac}".repeat(200),
                ..fact(&format!("custom.{n}"), FactValue::Text("x".repeat(900)))
            })
            .collect();
        let facts = bounded(huge);
        assert!(!facts.is_empty() && facts.iter().all(|f| f.source.len() <= limits::TEXT));
        let report = report(1, &facts, Now::default());
        assert!(ClientMessage::Report(report).to_frame().is_ok());
    }

    #[test]
    fn too_long_is_unknown_and_the_first_of_two_counts() {
        let long = FactValue::Text("x".repeat(limits::FACT_VALUE));
        let facts = bounded(vec![
            fact("a", FactValue::Bool(false)),
            fact("a", FactValue::Bool(true)),
            fact("b", long),
        ]);
        assert_eq!(facts.len(), 2);
        assert_eq!(facts[0].value, FactValue::Bool(false));
        assert!(matches!(facts[1].value, FactValue::Unknown(_)));
    }

    #[test]
    fn ages_are_measured_here() {
        let now = Now::default().after(Duration::from_secs(3));
        let report = report(9, &[fact("a", FactValue::Int(1))], now);
        assert_eq!((report.counter, report.facts[0].age_ms), (9, 3000));
    }
}
