//! Ports as sets.

use gatereeve_shared::policy::port::{PortSpec, Protocol};

/// Whether every port of the question is in the union of the ranges.
pub(crate) fn covers(ranges: &[PortSpec], question: &PortSpec) -> bool {
    if ranges.contains(&PortSpec::ANY) {
        return true;
    }
    match question.protocol() {
        Protocol::Any => false,
        Protocol::Icmp => ranges.contains(&PortSpec::ICMP),
        protocol @ (Protocol::Tcp | Protocol::Udp) => {
            let mut same: Vec<(u32, u32)> = ranges
                .iter()
                .filter(|range| range.protocol() == protocol)
                .map(|range| (range.first().into(), range.last().into()))
                .collect();
            same.sort_unstable();
            // `tcp:*` asks for every port that there is; 0 is none.
            let mut next = u32::from(question.first().max(1));
            for (first, last) in same {
                if first <= next && next <= last {
                    next = last + 1;
                }
            }
            next > u32::from(question.last())
        }
    }
}

/// Whether any port of the question is in one of the ranges.
pub(crate) fn overlaps(ranges: &[PortSpec], question: &PortSpec) -> bool {
    ranges.iter().any(|range| {
        let everything = [range.protocol(), question.protocol()].contains(&Protocol::Any);
        everything
            || (range.protocol() == question.protocol()
                && range.first() <= question.last()
                && question.first() <= range.last())
    })
}

/// A set of ports of all protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet {
    /// IP protocols that have no name here.
    other: bool,
    icmp: bool,
    /// Ascending, apart from each other.
    tcp: Vec<(u32, u32)>,
    udp: Vec<(u32, u32)>,
}

/// Every port that there is; 0 is none.
const ALL: (u32, u32) = (1, 65_535);

impl PortSet {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is in this set and not in the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self {
            other: self.other && !other.other,
            icmp: self.icmp && !other.icmp,
            tcp: without(&self.tcp, &other.tcp),
            udp: without(&self.udp, &other.udp),
        }
    }

    /// The shortest list that says it. A set with protocols that have no name is `*`.
    pub(crate) fn specs(&self) -> Vec<PortSpec> {
        if self.other {
            return vec![PortSpec::ANY];
        }
        let ranges = |protocol, ranges: &[(u32, u32)]| -> Vec<PortSpec> {
            ranges
                .iter()
                .filter_map(|(first, last)| {
                    let first = if (*first, *last) == ALL { 0 } else { *first };
                    let (first, last) = (first.try_into().ok()?, (*last).try_into().ok()?);
                    PortSpec::new(protocol, first, last)
                })
                .collect()
        };
        let mut specs = ranges(Protocol::Tcp, &self.tcp);
        specs.extend(ranges(Protocol::Udp, &self.udp));
        specs.extend(self.icmp.then_some(PortSpec::ICMP));
        specs
    }
}

impl<'a> FromIterator<&'a PortSpec> for PortSet {
    fn from_iter<I: IntoIterator<Item = &'a PortSpec>>(specs: I) -> Self {
        let mut set = Self::default();
        for spec in specs {
            let range = (u32::from(spec.first().max(1)), u32::from(spec.last()));
            match spec.protocol() {
                Protocol::Any => {
                    set = Self {
                        other: true,
                        icmp: true,
                        tcp: vec![ALL],
                        udp: vec![ALL],
                    };
                }
                Protocol::Icmp => set.icmp = true,
                Protocol::Tcp => set.tcp.push(range),
                Protocol::Udp => set.udp.push(range),
            }
        }
        set.tcp = joined(set.tcp);
        set.udp = joined(set.udp);
        set
    }
}

/// Ranges in order, those that touch made one.
fn joined(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut apart: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            Some(_) | None => apart.push((first, last)),
        }
    }
    apart
}

fn without(ranges: &[(u32, u32)], taken: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut left = Vec::new();
    for (first, last) in ranges {
        let mut next = *first;
        for (from, to) in taken {
            if *to < next || *last < *from {
                continue;
            }
            if next < *from {
                left.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= *last {
            left.push((next, *last));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(texts: &[&str]) -> Vec<PortSpec> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(ranges: &[&str], question: &str, covered: bool, overlapped: bool) {
        let (ranges, question) = (specs(ranges), question.parse().unwrap());
        assert_eq!(covers(&ranges, &question), covered);
        assert_eq!(overlaps(&ranges, &question), overlapped);
    }

    #[test]
    fn ranges_join() {
        check(&["tcp:20-22"], "tcp:22", true, true);
        check(&["tcp:20-22"], "tcp:22-23", false, true);
        check(&["tcp:23-30", "tcp:20-22"], "tcp:21-25", true, true);
        check(&["tcp:24-30", "tcp:20-22"], "tcp:21-25", false, true);
        check(&["tcp:1-65535"], "tcp:*", true, true);
        check(&["tcp:*"], "tcp:1-65535", true, true);
        check(&["tcp:2-65535"], "tcp:*", false, true);
    }

    #[test]
    fn protocols_stay_apart() {
        check(&["udp:*", "icmp"], "tcp:22", false, false);
        check(&["udp:*", "icmp"], "icmp", true, true);
        check(&["*"], "icmp", true, true);
        check(&["tcp:*", "udp:*", "icmp"], "*", false, true);
        check(&["*"], "*", true, true);
        check(&[], "*", false, false);
    }

    #[track_caller]
    fn minus(a: &[&str], b: &[&str], left: &[&str]) {
        let set = |texts: &[&str]| specs(texts).iter().collect::<PortSet>();
        assert_eq!(set(a).minus(&set(b)).specs(), specs(left));
    }

    #[test]
    fn sets_subtract() {
        minus(
            &["tcp:1-10", "icmp"],
            &["tcp:4-5"],
            &["tcp:1-3", "tcp:6-10", "icmp"],
        );
        minus(&["tcp:1-10"], &["tcp:1-10"], &[]);
        minus(&["tcp:1-10"], &["udp:1-10"], &["tcp:1-10"]);
        minus(&["tcp:1-10"], &["tcp:8-20", "tcp:1-2"], &["tcp:3-7"]);
        minus(&["tcp:1-5", "tcp:6-9"], &[], &["tcp:1-9"]);
        minus(&["tcp:*"], &["tcp:1-65535"], &[]);
        minus(&["*"], &["tcp:22"], &["*"]);
        minus(&["*"], &["*"], &[]);
        minus(&["tcp:22"], &["*"], &[]);
        minus(&["tcp:*"], &[], &["tcp:*"]);
    }
}
