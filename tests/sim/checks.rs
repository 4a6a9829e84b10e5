//! The promises, as numbered in `main.rs`.

use std::time::Duration;

use gatereeve_client_core::api::Connection;
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::map::OverlayAddresses;

use crate::model::{PORTS, Snapshot};
use crate::packets::{Parsed, request};
use crate::world::World;

/// A device's clock lags behind the controller's by a link's delay.
const CLOCKS: Duration = Duration::from_secs(1);

impl World {
    /// What the model says of generation `n`.
    pub(crate) fn snapshot(&self, n: u64) -> &Snapshot {
        let (_, snapshot) = self.snapshots.range(..=n).next_back().unwrap();
        snapshot
    }

    fn owner(&self, address: std::net::IpAddr) -> Option<DeviceId> {
        let found = self.mirror.devices().values().find(|device| {
            std::net::IpAddr::V4(device.addresses.v4) == address
                || std::net::IpAddr::V6(device.addresses.v6) == address
        });
        found.map(|device| device.id)
    }

    /// Promises 1 to 3, for one packet that leaves a TUN interface.
    pub(crate) fn check_delivery(&self, at: usize, packet: &Parsed) {
        let receiver = &self.devices[at];
        let sender = self.owner(packet.source).unwrap();
        assert_eq!(
            self.owner(packet.destination),
            Some(receiver.id),
            "delivered to another"
        );
        let generation = receiver.table.expect("promise 1: a table");
        let snapshot = self.snapshot(generation.n);
        let lease = match (packet.request(), packet.answer()) {
            (Some(port), _) => snapshot.allowed(sender, receiver.id, port),
            (None, Some(port)) => snapshot.allowed(receiver.id, sender, port),
            (None, None) => None,
        };
        let lease = lease.unwrap_or_else(|| {
            panic!(
                "promise 1: {packet:?} delivered to {} at generation {generation}",
                receiver.id
            )
        });
        let silent = self.now.mono.since(receiver.heard_at);
        assert!(
            silent <= lease + CLOCKS,
            "promise 3: {packet:?} delivered {silent:?} after the controller was heard, with a lease of {lease:?}"
        );
    }

    /// What can be looked at between two actions.
    pub(crate) fn check_all(&mut self) {
        for at in 0..self.devices.len() {
            let device = &self.devices[at];
            let status = device.engine.status(self.now);
            if let Some(held) = status.generation {
                assert!(
                    held >= device.highest,
                    "{} went back from {} to {held}",
                    device.id,
                    device.highest
                );
                let snapshot = self.snapshot(held.n);
                for peer in device.engine.peers(self.now) {
                    assert!(
                        snapshot.connected(device.id, peer.device),
                        "promise 4: {} knows of {} at generation {held}",
                        device.id,
                        peer.name
                    );
                }
                self.devices[at].highest = held;
            }
        }
        let state = self.controller.state();
        assert!(
            state.generation() <= self.mirror.generation(),
            "ahead of the journal"
        );
        if state.generation() == self.mirror.generation() {
            assert_eq!(state.head(), self.mirror.head(), "promise 6");
        }
    }

    /// Promise 6, in full.
    fn check_replay(&self) {
        let mut replayed = State::empty();
        for encoded in &self.journal {
            let record = encoded
                .follow(replayed.generation(), &replayed.head())
                .unwrap();
            replayed.apply(&record, encoded.hash);
        }
        assert_eq!(
            replayed.to_tables(),
            self.controller.state().to_tables(),
            "promise 6"
        );
        let rows = self.controller.state().to_tables();
        let read = State::from_tables(rows).unwrap();
        assert_eq!(
            read.to_tables(),
            replayed.to_tables(),
            "promise 6: tables read back"
        );
    }

    /// Everything is mended and time passes; then promise 7.
    pub(crate) fn settle(&mut self) {
        self.is_disk_full = false;
        self.loss = 0;
        for at in 0..self.devices.len() {
            self.devices[at].is_cut_off = false;
        }
        self.run_for(Duration::from_secs(150));
        self.check_all();
        self.check_replay();
        let newest = self.mirror.generation().n;
        let members: Vec<(usize, OverlayAddresses)> = (0..self.devices.len())
            .filter_map(|at| {
                let record = self.mirror.devices().get(&self.devices[at].id)?;
                (record.status == DeviceStatus::Approved).then_some((at, record.addresses))
            })
            .collect();
        for (at, _) in &members {
            let device = &self.devices[*at];
            let status = device.engine.status(self.now);
            assert_eq!(
                status.connection,
                Connection::Synced,
                "promise 7: {status:?}"
            );
            assert_eq!(status.enforced, status.generation, "promise 7");
            let mut known: Vec<DeviceId> = device
                .engine
                .peers(self.now)
                .iter()
                .map(|peer| peer.device)
                .collect();
            known.sort_unstable();
            let snapshot = self.snapshot(newest);
            let mut expected: Vec<DeviceId> = members
                .iter()
                .map(|(other, _)| self.devices[*other].id)
                .filter(|other| snapshot.connected(device.id, *other))
                .collect();
            expected.sort_unstable();
            assert_eq!(known, expected, "promise 7: the peers of {}", device.id);
        }
        self.check_all_pairs(&members);
    }

    /// Every pair and port, both families: what is allowed arrives, what is not does not.
    fn check_all_pairs(&mut self, members: &[(usize, OverlayAddresses)]) {
        for (from, source) in members {
            for (to, destination) in members {
                for port in PORTS {
                    let (a, b) = (self.devices[*from].id, self.devices[*to].id);
                    let newest = self.mirror.generation().n;
                    let allowed = self.snapshot(newest).allowed(a, b, port).is_some();
                    let v6 = self.random.one_in(2);
                    let before = self.delivered;
                    self.send(*from, &request(*source, *destination, port, v6));
                    self.run_for(Duration::from_millis(500));
                    if allowed && self.delivered == before {
                        // The other end may have lost its session in a restart: what is not
                        // answered brings a new handshake after 15 seconds.
                        self.run_for(Duration::from_secs(25));
                        self.send(*from, &request(*source, *destination, port, v6));
                        self.run_for(Duration::from_millis(500));
                    }
                    let arrived = self.delivered > before;
                    assert_eq!(arrived, allowed, "promise 7: {a} to {b} at {port}");
                }
            }
        }
    }
}
