//! Policy rules of ours: which ones there are to be, and how the kernel tells them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{FWMARK, HostPlan, PROTOCOL, Place};

/// The table `main`.
pub(super) const MAIN: u32 = 254;

/// One of our policy rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) from: Option<IpNet>,
    pub(super) to: Option<IpNet>,
    pub(super) mark: Option<u32>,
    /// `None` for a rule that answers "unreachable".
    pub(super) table: Option<u32>,
}

impl fmt::Display for Rule {
    /// As `ip rule` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.priority)?;
        match self.from {
            Some(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "from {}", net.addr())?;
            }
            Some(net) => write!(f, "from {net}")?,
            None => write!(f, "from all")?,
        }
        if let Some(net) = self.to {
            write!(f, " to {net}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        match self.table {
            Some(MAIN) => write!(f, " lookup main"),
            Some(table) => write!(f, " lookup {table}"),
            None => write!(f, " unreachable"),
        }
    }
}

impl Rule {
    /// The rules that `plan` asks for.
    pub(super) fn wanted(place: Place, plan: &HostPlan) -> Vec<Self> {
        let Place { table, priority } = place;
        let families = [
            (IpNet::V4(plan.prefixes.v4), IpAddr::V4(plan.addresses.v4)),
            (IpNet::V6(plan.prefixes.v6), IpAddr::V6(plan.addresses.v6)),
        ];
        families
            .into_iter()
            .flat_map(|(prefix, own)| {
                let to = Some(prefix.trunc());
                [
                    Self {
                        priority,
                        from: None,
                        to,
                        mark: Some(FWMARK),
                        table: Some(MAIN),
                    },
                    Self {
                        priority: priority + 1,
                        from: None,
                        to,
                        mark: None,
                        table: Some(table),
                    },
                    Self {
                        priority: priority + 2,
                        from: Some(IpNet::from(own)),
                        to: None,
                        mark: None,
                        table: None,
                    },
                ]
            })
            .collect()
    }

    pub(super) fn family(&self) -> IpVersion {
        match self.to.or(self.from) {
            Some(IpNet::V6(_)) => IpVersion::V6,
            Some(IpNet::V4(_)) | None => IpVersion::V4,
        }
    }

    pub(super) fn fill(&self, message: &mut RuleMessage) {
        if let Some(net) = self.from {
            message.header.src_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Source(net.addr()));
        }
        if let Some(net) = self.to {
            message.header.dst_len = net.prefix_len();
            message
                .attributes
                .push(RuleAttribute::Destination(net.addr()));
        }
        if let Some(mark) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
        }
        let owner = RouteProtocol::Other(PROTOCOL);
        message.attributes.push(RuleAttribute::Protocol(owner));
        message.header.table = 0;
        match self.table {
            Some(table) => {
                message.header.action = RuleAction::ToTable;
                message.attributes.push(RuleAttribute::Table(table));
            }
            None => message.header.action = RuleAction::Unreachable,
        }
    }

    /// The rule as the kernel lists it, if it is ours: of our protocol number and one of our priorities.
    pub(super) fn read(message: &RuleMessage) -> Option<Self> {
        let mut rule = Self {
            priority: 0,
            from: None,
            to: None,
            mark: None,
            table: None,
        };
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(address) => {
                    rule.from = IpNet::new(*address, message.header.src_len).ok();
                }
                RuleAttribute::Destination(address) => {
                    rule.to = IpNet::new(*address, message.header.dst_len).ok();
                }
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        rule.table = (message.header.action == RuleAction::ToTable).then_some(table);
        (is_ours(message) && Place::of_priority(rule.priority).is_some()).then_some(rule)
    }
}

/// Whether a rule carries our protocol number.
pub(super) fn is_ours(message: &RuleMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, RuleAttribute::Protocol(RouteProtocol::Other(number)) if *number == PROTOCOL)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            priority: 5248,
            from: None,
            to: Some("100.64.0.0/10".parse().unwrap()),
            mark: None,
            table: Some(5247),
        }
    }

    fn listed(rule: &Rule) -> RuleMessage {
        let mut message = RuleMessage::default();
        rule.fill(&mut message);
        message
            .attributes
            .push(RuleAttribute::Priority(rule.priority));
        message
    }

    #[test]
    fn what_is_written_reads_back_as_ours() {
        let unreachable = Rule {
            priority: 5249,
            from: Some("100.64.0.1/32".parse().unwrap()),
            to: None,
            mark: None,
            table: None,
        };
        for rule in [rule(), unreachable] {
            assert_eq!(Rule::read(&listed(&rule)), Some(rule));
        }
        assert_eq!(
            rule().to_string(),
            "5248: from all to 100.64.0.0/10 lookup 5247"
        );
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        let mut foreign = listed(&rule());
        foreign
            .attributes
            .retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert_eq!(Rule::read(&foreign), None, "our priority alone");
        let far = Rule {
            priority: 100,
            ..rule()
        };
        assert_eq!(Rule::read(&listed(&far)), None, "our protocol alone");
    }
}
