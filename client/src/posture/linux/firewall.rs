//! Host firewall: whether what nobody asked for is dropped at the input hook, in both families.
//!
//! nftables answers for itself, for ufw and firewalld, and for iptables-nft; legacy iptables is asked
//! separately. A chain counts if its policy is drop, or if it ends in a rule that drops or rejects
//! everything, and if no rule before that accepts everything.

use serde::Deserialize;
use serde_json::Value;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host, RunError};

const NFT: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
const LEGACY: [[&str; 2]; 2] = [
    [
        "/usr/sbin/iptables-legacy-save",
        "/sbin/iptables-legacy-save",
    ],
    [
        "/usr/sbin/ip6tables-legacy-save",
        "/sbin/ip6tables-legacy-save",
    ],
];
const SAVE: [[&str; 2]; 2] = [
    ["/usr/sbin/iptables-save", "/sbin/iptables-save"],
    ["/usr/sbin/ip6tables-save", "/sbin/ip6tables-save"],
];

/// The fact `firewall`.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let ruleset = host.run(&NFT, &["-j", "list", "ruleset"]);
    let nft_is_there = ruleset != Err(RunError::Absent);
    let nft = match ruleset {
        Ok(json) => {
            closed_by_nft(&json).ok_or_else(|| "nft printed what is not understood".to_owned())
        }
        Err(RunError::Absent) => Ok(Closed::default()),
        Err(RunError::Failed(why)) => Err(why),
    };
    // iptables-save speaks for nftables too, where nft itself is missing.
    let legacy = if nft_is_there {
        closed_by_iptables(host, LEGACY)
    } else {
        closed_by_iptables(host, SAVE)
    };
    let (value, source) = match (nft, legacy) {
        (Ok(nft), Ok(Some(legacy))) => (
            FactValue::Bool((nft.v4 || legacy.v4) && (nft.v6 || legacy.v6)),
            "nft and iptables-save",
        ),
        (Ok(nft), _) if nft_is_there => (FactValue::Bool(nft.v4 && nft.v6), "nft list ruleset"),
        (Ok(_), Ok(None)) => (
            FactValue::Unknown("neither nft nor iptables-save is installed".into()),
            "nft list ruleset",
        ),
        (Err(why), _) | (_, Err(why)) => (FactValue::Unknown(why), "nft list ruleset"),
    };
    CollectedFact::new(names::FIREWALL, value, source)
}

/// Which family's input is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Closed {
    v4: bool,
    v6: bool,
}

#[derive(Deserialize)]
struct Ruleset {
    nftables: Vec<Value>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    expr: Vec<Value>,
}

/// What libnftables-json(5) says; `None` where it is not of that form.
fn closed_by_nft(json: &str) -> Option<Closed> {
    let ruleset: Ruleset = serde_json::from_str(json).ok()?;
    let mut chains: Vec<Chain> = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    for object in ruleset.nftables {
        if let Some(chain) = object.get("chain") {
            chains.push(serde_json::from_value(chain.clone()).ok()?);
        } else if let Some(rule) = object.get("rule") {
            rules.push(serde_json::from_value(rule.clone()).ok()?);
        }
    }
    let mut closed = Closed::default();
    for chain in chains
        .iter()
        .filter(|chain| chain.hook.as_deref() == Some("input"))
    {
        let mut verdict = (chain.policy.as_deref() == Some("drop")).then_some(true);
        let own = rules.iter().filter(|rule| {
            rule.family == chain.family && rule.table == chain.table && rule.chain == chain.name
        });
        for rule in own {
            if let Some(drops) = unconditional(&rule.expr) {
                verdict = Some(drops);
                break;
            }
        }
        if verdict == Some(true) {
            closed.v4 |= matches!(chain.family.as_str(), "inet" | "ip");
            closed.v6 |= matches!(chain.family.as_str(), "inet" | "ip6");
        }
    }
    Some(closed)
}

/// For a rule that decides about every packet: whether it drops. Counters and logs decide nothing;
/// any match makes the rule conditional.
fn unconditional(expressions: &[Value]) -> Option<bool> {
    let mut verdict = None;
    for expression in expressions {
        let keys: Vec<&str> = expression.as_object()?.keys().map(String::as_str).collect();
        match keys.as_slice() {
            ["counter" | "log" | "comment"] => {}
            ["drop" | "reject"] => verdict = Some(true),
            ["accept"] => verdict = Some(false),
            _ => return None,
        }
    }
    verdict
}

/// `None` where neither program is installed.
fn closed_by_iptables(host: &dyn Host, programs: [[&str; 2]; 2]) -> Result<Option<Closed>, String> {
    let [v4, v6] = programs.map(|paths| match host.run(&paths, &["-t", "filter"]) {
        Ok(text) => Ok(Some(closed_by_save(&text))),
        Err(RunError::Absent) => Ok(None),
        Err(RunError::Failed(why)) => Err(why),
    });
    Ok(match (v4?, v6?) {
        (None, None) => None,
        (v4, v6) => Some(Closed {
            v4: v4.unwrap_or(false),
            v6: v6.unwrap_or(false),
        }),
    })
}

/// Whether the INPUT chain of the filter table, in the form of iptables-save(8), is closed.
fn closed_by_save(text: &str) -> bool {
    let mut in_filter = false;
    let mut policy_drops = false;
    for line in text.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('*') {
            in_filter = table == "filter";
        } else if in_filter && let Some(policy) = line.strip_prefix(":INPUT ") {
            policy_drops = policy.starts_with("DROP") || policy.starts_with("REJECT");
        } else if in_filter && let Some(rule) = line.strip_prefix("-A INPUT -j ") {
            // Nothing between chain and target: the rule speaks of every packet.
            match rule.split(' ').next() {
                Some("DROP" | "REJECT") => return true,
                Some("ACCEPT") => return false,
                _ => {}
            }
        }
    }
    policy_drops
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn nft(objects: &str) -> FactValue {
        let json =
            format!(r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {objects}]}}"#);
        collect(&Fixture::new().prints("nft", &json)).value
    }

    fn chain(family: &str, policy: &str) -> String {
        format!(
            r#"{{"table": {{"family": "{family}", "name": "filter"}}}},
               {{"chain": {{"family": "{family}", "table": "filter", "name": "in", "type": "filter",
                 "hook": "input", "prio": 0, "policy": "{policy}"}}}}"#
        )
    }

    fn rule(family: &str, expressions: &str) -> String {
        format!(
            r#"{{"rule": {{"family": "{family}", "table": "filter", "chain": "in", "expr": [{expressions}]}}}}"#
        )
    }

    #[test]
    fn a_drop_policy_for_both_families_is_a_firewall() {
        assert_eq!(nft(&chain("inet", "drop")), FactValue::Bool(true));
        assert_eq!(nft(&chain("inet", "accept")), FactValue::Bool(false));
        assert_eq!(nft(&chain("ip", "drop")), FactValue::Bool(false));
        let both = format!("{},{}", chain("ip", "drop"), chain("ip6", "drop"));
        assert_eq!(nft(&both), FactValue::Bool(true));
    }

    #[test]
    fn a_last_rule_that_rejects_everything_is_a_firewall() {
        let open = chain("inet", "accept");
        let ssh = rule(
            "inet",
            r#"{"match": {"op": "==", "left": {}, "right": 22}}, {"accept": null}"#,
        );
        let reject = rule("inet", r#"{"counter": {}}, {"reject": {"type": "icmpx"}}"#);
        assert_eq!(
            nft(&format!("{open},{ssh},{reject}")),
            FactValue::Bool(true)
        );
        assert_eq!(nft(&format!("{open},{ssh}")), FactValue::Bool(false));
    }

    #[test]
    fn accepting_everything_first_is_none() {
        let accept = rule("inet", r#"{"accept": null}"#);
        assert_eq!(
            nft(&format!("{},{accept}", chain("inet", "drop"))),
            FactValue::Bool(false)
        );
    }

    #[test]
    fn an_empty_ruleset_is_false_and_an_unreadable_one_unknown() {
        let empty = Fixture::new().prints("nft", r#"{"nftables": []}"#);
        assert_eq!(collect(&empty).value, FactValue::Bool(false));
        let denied = Fixture::new().fails("nft", "Operation not permitted");
        assert!(
            matches!(collect(&denied).value, FactValue::Unknown(why) if why.contains("permitted"))
        );
        let garbage = Fixture::new().prints("nft", "oops");
        assert!(matches!(collect(&garbage).value, FactValue::Unknown(_)));
    }

    #[test]
    fn iptables_answers_where_nft_is_missing() {
        let closed = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
        let open = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        let by_rule = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with x\nCOMMIT\n";
        let value = |v4: &str, v6: &str| {
            collect(
                &Fixture::new()
                    .prints("iptables-save", v4)
                    .prints("ip6tables-save", v6),
            )
            .value
        };
        assert_eq!(value(closed, closed), FactValue::Bool(true));
        assert_eq!(value(by_rule, closed), FactValue::Bool(true));
        assert_eq!(value(closed, open), FactValue::Bool(false));
        let v4_only = collect(&Fixture::new().prints("iptables-save", closed)).value;
        assert_eq!(v4_only, FactValue::Bool(false));
    }
}
