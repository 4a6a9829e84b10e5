//! What the local API is told of flows: the data path's figures, with the names of those they are with.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gatereeve_client_core::api::{FlowEnd, FlowOpener, FlowView, LocalError, LocalReply, PeerView};
use gatereeve_client_core::datapath::Direction;
use gatereeve_client_core::filter::FlowStats;
use gatereeve_client_core::packet::ip::protocol;
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::ids::DeviceId;

use super::joined::Joined;
use super::requests::{is_called, no_peer};

/// The flows with `peer`, or with all, at most `limit` of them.
pub(super) fn flows(
    joined: &Joined,
    peer: Option<&str>,
    limit: u32,
) -> Result<LocalReply, LocalError> {
    let now = Clock::now();
    let peers: BTreeMap<DeviceId, PeerView> = joined
        .engine
        .peers(now)
        .into_iter()
        .map(|peer| (peer.device, peer))
        .collect();
    let device = match peer {
        Some(text) => {
            let mut known = peers.values();
            let found =
                known.find(|peer| is_called(text, peer.device, &peer.name, &peer.addresses));
            Some(found.ok_or_else(|| no_peer(text))?.device)
        }
        None => None,
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let list = joined.datapath.flows(device, most, now.mono);
    let tracked = list.tracked();
    let flows = list
        .into_flows()
        .into_iter()
        .filter_map(|(device, stats)| Some(view(peers.get(&device)?, &stats)))
        .collect();
    Ok(LocalReply::Flows { flows, tracked })
}

fn view(peer: &PeerView, stats: &FlowStats) -> FlowView {
    let is_icmp = matches!(stats.protocol, protocol::ICMP | protocol::ICMPV6);
    let end = |end: SocketAddr| FlowEnd {
        address: end.ip(),
        port: if is_icmp { 0 } else { end.port() },
    };
    FlowView {
        device: peer.device,
        name: peer.name.clone(),
        user: peer.user.clone(),
        protocol: protocol_name(stats.protocol),
        opened_by: match stats.opener {
            Direction::Outbound => FlowOpener::ThisDevice,
            Direction::Inbound => FlowOpener::Peer,
        },
        own: end(stats.own),
        theirs: end(stats.peer),
        rule: stats.rule.as_ref().clone(),
        generation: stats.generation,
        allowed: stats.is_allowed,
        phase: stats.phase,
        age_secs: stats.age.as_secs(),
        idle_secs: stats.idle.as_secs(),
        sent: stats.sent,
        received: stats.received,
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".into(),
        other => other.to_string(),
    }
}
