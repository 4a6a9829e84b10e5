//! What a ruleset comes to.

/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NF_INET_LOCAL_IN`.
const INPUT: u32 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its name.
    pub name: String,
    /// Whether it is switched off: its chains are not asked then.
    pub is_dormant: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `NF_INET_*`; none for one that is only jumped to.
    pub hook: Option<u32>,
    /// `NF_DROP` or `NF_ACCEPT`.
    pub policy: Option<u32>,
}

/// A rule, in its chain's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its chain's table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// For a rule that decides about every packet: whether it drops. None for one that asks something first,
    /// or hands on.
    pub drops_all: Option<bool>,
}

/// What matters of a ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Its tables.
    pub tables: Vec<Table>,
    /// Their chains.
    pub chains: Vec<Chain>,
    /// The rules of those chains that input passes.
    pub rules: Vec<Rule>,
}

/// Which family's input is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Chain {
    /// Whether packets for this host pass it, of a family that counts.
    #[must_use]
    pub fn sees_input(&self) -> bool {
        self.hook == Some(INPUT) && matches!(self.family, INET | IPV4 | IPV6)
    }
}

impl Ruleset {
    /// What it closes. Every chain at the hook sees every packet, so one that drops is enough, whatever the
    /// others accept.
    #[must_use]
    pub fn closed(&self) -> Closed {
        let mut closed = Closed::default();
        for chain in self.chains.iter().filter(|chain| chain.sees_input()) {
            let is_dormant = self.tables.iter().any(|table| {
                table.is_dormant && table.family == chain.family && table.name == chain.table
            });
            if is_dormant {
                continue;
            }
            let own = self.rules.iter().filter(|rule| {
                rule.family == chain.family && rule.table == chain.table && rule.chain == chain.name
            });
            let by_rule = own.filter_map(|rule| rule.drops_all).next();
            if by_rule.unwrap_or(chain.policy == Some(DROP)) {
                closed.v4 |= matches!(chain.family, INET | IPV4);
                closed.v6 |= matches!(chain.family, INET | IPV6);
            }
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: u32 = 1;

    fn ruleset(family: u8, policy: u32, rules: &[Option<bool>]) -> Ruleset {
        let place = ("filter".to_owned(), "in".to_owned());
        Ruleset {
            tables: vec![Table {
                family,
                name: place.0.clone(),
                is_dormant: false,
            }],
            chains: vec![Chain {
                family,
                table: place.0.clone(),
                name: place.1.clone(),
                hook: Some(INPUT),
                policy: Some(policy),
            }],
            rules: rules
                .iter()
                .map(|drops_all| Rule {
                    family,
                    table: place.0.clone(),
                    chain: place.1.clone(),
                    drops_all: *drops_all,
                })
                .collect(),
        }
    }

    fn closed(v4: bool, v6: bool) -> Closed {
        Closed { v4, v6 }
    }

    #[test]
    fn a_policy_closes_its_family() {
        assert_eq!(ruleset(INET, DROP, &[]).closed(), closed(true, true));
        assert_eq!(ruleset(IPV4, DROP, &[None]).closed(), closed(true, false));
        assert_eq!(ruleset(IPV6, DROP, &[]).closed(), closed(false, true));
        assert_eq!(ruleset(INET, ACCEPT, &[None]).closed(), Closed::default());
        // A bridge or netdev chain sees other packets.
        assert_eq!(ruleset(7, DROP, &[]).closed(), Closed::default());
    }

    #[test]
    fn the_first_rule_about_every_packet_decides() {
        let last = [None, Some(true)];
        assert_eq!(ruleset(INET, ACCEPT, &last).closed(), closed(true, true));
        let first = [Some(false), Some(true)];
        assert_eq!(ruleset(INET, DROP, &first).closed(), Closed::default());
    }

    #[test]
    fn a_table_that_sleeps_and_a_chain_elsewhere_close_nothing() {
        let mut asleep = ruleset(INET, DROP, &[]);
        asleep.tables[0].is_dormant = true;
        assert_eq!(asleep.closed(), Closed::default());
        let mut forward = ruleset(INET, DROP, &[]);
        forward.chains[0].hook = Some(2);
        assert_eq!(forward.closed(), Closed::default());
        let mut other = ruleset(INET, ACCEPT, &[Some(true)]);
        other.rules[0].chain = "elsewhere".into();
        assert_eq!(other.closed(), Closed::default());
    }
}
