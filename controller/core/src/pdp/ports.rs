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
}
