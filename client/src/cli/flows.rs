//! Flows, as a table.

use gatereeve_client_core::api::{FlowEnd, FlowOpener, FlowPhase, FlowView, Traffic};
use gatereeve_shared::text::{bytes, printable};

use super::output::{grid, push_line};

/// Help for the command.
pub(super) const EXAMPLES: &str = "\
Examples:
  gatereeve flows                   what passes, the most first
  gatereeve flows web               with one peer
  gatereeve flows -n 1000 --json    for a program

A flow's arrow points away from who opened it. Counted is what goes through the tunnel, IP headers included, since the flow began.
Flows are listed as long as they are tracked without a packet: open connections two hours, closed ones and UDP two minutes, echo and
what is being opened 30 seconds, what was reset ten. Only root and the operator may look.";

/// Flows to list unless another number is asked for.
pub(super) const USUAL: u32 = 30;

pub(super) fn text(flows: &[FlowView], tracked: usize) -> String {
    if flows.is_empty() {
        return match tracked {
            0 => "no flows: nothing has passed lately; `gatereeve peers` shows what may".into(),
            _ => format!("{tracked} flows"),
        };
    }
    let mut table = grid(&[
        "peer", "user", "flow", "rule", "state", "age", "idle", "sent", "received",
    ]);
    for flow in flows {
        let (from, to) = match flow.opened_by {
            FlowOpener::ThisDevice => (flow.own, flow.theirs),
            FlowOpener::Peer => (flow.theirs, flow.own),
        };
        table.add_row([
            flow.name.to_string(),
            flow.user
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            format!("{} {} → {}", printable(&flow.protocol), end(from), end(to)),
            flow.rule.to_string(),
            state(flow).to_owned(),
            time(flow.age_secs),
            time(flow.idle_secs),
            traffic(flow.sent),
            traffic(flow.received),
        ]);
    }
    let mut text = table.to_string();
    text.push('\n');
    if flows.len() < tracked {
        let line = format!(
            "{} of {tracked} flows; -n COUNT shows up to 1000",
            flows.len()
        );
        push_line(&mut text, &line);
    }
    text
}

fn end(FlowEnd { address, port }: FlowEnd) -> String {
    match port {
        0 => address.to_string(),
        _ => std::net::SocketAddr::new(address, port).to_string(),
    }
}

fn state(flow: &FlowView) -> &'static str {
    if !flow.allowed {
        return "cut";
    }
    match flow.phase {
        FlowPhase::Opening => "opening",
        FlowPhase::Established => "established",
        FlowPhase::Closing => "closing",
        FlowPhase::Closed => "closed",
        FlowPhase::Reset => "reset",
        FlowPhase::Datagrams => "open",
    }
}

fn time(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        _ => format!("{} h", secs / 3_600),
    }
}

fn traffic(traffic: Traffic) -> String {
    format!("{} in {}", bytes(traffic.bytes), traffic.packets)
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::generation::Generation;
    use gatereeve_shared::ids::DeviceId;

    use super::*;

    fn flow() -> FlowView {
        let end = |address: &str, port| FlowEnd {
            address: address.parse().unwrap(),
            port,
        };
        FlowView {
            device: DeviceId([1; 20]),
            name: "web".parse().unwrap(),
            user: Some("alice@example.com".parse().unwrap()),
            protocol: "tcp".into(),
            opened_by: FlowOpener::ThisDevice,
            own: end("100.64.0.1", 51_234),
            theirs: end("100.64.0.2", 22),
            rule: "ssh".parse().unwrap(),
            generation: Generation::default(),
            allowed: true,
            phase: FlowPhase::Established,
            age_secs: 59,
            idle_secs: 7_200,
            sent: Traffic {
                packets: 12,
                bytes: 3_000_000,
            },
            received: Traffic {
                packets: 1,
                bytes: 52,
            },
        }
    }

    #[test]
    fn a_flow_is_one_line_with_names_and_amounts() {
        let ours = flow();
        let echo = FlowView {
            protocol: "icmp".into(),
            opened_by: FlowOpener::Peer,
            own: FlowEnd {
                port: 0,
                ..ours.own
            },
            theirs: FlowEnd {
                port: 0,
                ..ours.theirs
            },
            user: None,
            allowed: false,
            phase: FlowPhase::Datagrams,
            ..ours.clone()
        };
        let text = text(&[ours, echo], 7);
        for part in [
            "PEER",
            "alice@example.com",
            "tcp 100.64.0.1:51234 → 100.64.0.2:22",
            "ssh",
            "established",
            "59 s",
            "2 h",
            "2.9 MiB in 12",
            "52 B in 1",
            "icmp 100.64.0.2 → 100.64.0.1",
            "cut",
            "2 of 7 flows; -n COUNT shows",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn none_is_said_and_none_asked_for_is_a_number() {
        assert!(text(&[], 0).starts_with("no flows"));
        assert_eq!(text(&[], 7), "7 flows");
        assert!(!text(&[flow()], 1).contains("-n"));
    }
}
