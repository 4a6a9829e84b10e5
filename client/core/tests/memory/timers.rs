//! Which peers the timers look at.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gatereeve_client_core::datapath::DataPath;
use gatereeve_client_core::filter::Permit;
use gatereeve_client_core::wg::{
    HandshakeGate, NoiseTunnels, Opened, SessionView, Tunnel, TunnelError, TunnelFactory,
};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;

use crate::wire::{Node, START, Wire, lone};

/// So what is configured and silent costs no time: a network may have thousands, of which few are talked to.
#[test]
fn the_timers_look_at_peers_that_have_something_under_way() {
    const OWN: u16 = 1_001;
    let watched = Watched::default();
    let looked = || std::mem::take(&mut *watched.0.lock().expect("one thread")).len();
    let nodes = vec![
        Node::new(OWN, 1..OWN, Box::new(watched.clone())),
        Node::new(1, [OWN], Box::new(NoiseTunnels)),
    ];
    let mut wire = Wire { nodes, now: START };
    let tick = |wire: &mut Wire| {
        looked();
        wire.now = wire.now.saturating_add(DataPath::LONGEST_SLEEP);
        let (node, now) = (&mut wire.nodes[0], wire.now);
        node.path.tick(now, &mut node.out);
        let looked = looked();
        wire.carry(0);
        wire.nodes[0].out.clear();
        wire.settle();
        looked
    };
    assert_eq!(tick(&mut wire), 0);
    wire.push(0, &lone(OWN, 1, true, (1_000, 2)));
    wire.outbound(0);
    wire.settle();
    assert_eq!(wire.take_received(1), 1, "there is a session");
    for _ in 0..3 {
        assert_eq!(tick(&mut wire), 1);
    }
    wire.nodes[0].path.wake_all();
    assert_eq!(tick(&mut wire), usize::from(OWN - 1), "the control");
    assert_eq!(tick(&mut wire), 1);
}

/// Tunnels as they are, of which somebody knows whether they were asked anything.
#[derive(Clone, Debug, Default)]
struct Watched(Arc<Mutex<BTreeSet<u32>>>);

impl TunnelFactory for Watched {
    fn create(
        &self,
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
        now: Mono,
    ) -> Result<Box<dyn Tunnel>, TunnelError> {
        Ok(Box::new(WatchedTunnel {
            tunnel: NoiseTunnels.create(local, remote, index, now)?,
            index,
            asked: self.clone(),
        }))
    }

    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate> {
        NoiseTunnels.gate(local)
    }
}

#[derive(Debug)]
struct WatchedTunnel {
    tunnel: Box<dyn Tunnel>,
    index: u32,
    asked: Watched,
}

impl WatchedTunnel {
    fn ask(&self) -> &dyn Tunnel {
        self.asked.0.lock().expect("one thread").insert(self.index);
        self.tunnel.as_ref()
    }

    fn ask_mut(&mut self) -> &mut dyn Tunnel {
        self.ask();
        self.tunnel.as_mut()
    }
}

impl Tunnel for WatchedTunnel {
    fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.ask_mut().initiate(now, out)
    }

    fn encapsulate(
        &mut self,
        permit: &Permit,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        self.ask_mut().encapsulate(permit, packet, now, out)
    }

    fn keepalive(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.ask_mut().keepalive(now, out)
    }

    fn decapsulate(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        self.ask_mut().decapsulate(from, datagram, now, out)
    }

    fn session(&self, now: Mono) -> Option<SessionView> {
        self.ask().session(now)
    }

    fn awaits(&self, response: &[u8]) -> bool {
        self.ask().awaits(response)
    }

    fn expires(&self) -> Option<Mono> {
        self.ask().expires()
    }

    fn maintain(&mut self, now: Mono) {
        self.ask_mut().maintain(now);
    }

    fn erase(&mut self) {
        self.ask_mut().erase();
    }
}
