//! The table: built from what is held, published whole, acknowledged when it is enforced.

use std::collections::BTreeMap;
use std::time::Duration;

use gatereeve_shared::time::{Mono, Now, UnixMillis};
use gatereeve_shared::wire::client::ClientMessage;

use super::{Engine, Timer};
use crate::datapath::{LocalKey, PeerSpec, SelfName, TableSpec};
use crate::dns::Domain;
use crate::lease::{self, LeaseView};
use crate::map::check::KeyCheck;
use crate::map::table::{self, TableRules};
use crate::output::{HostConfig, Output};
use crate::path::EndpointRules;

/// Largest packet of the interface: 1500 bytes of an ordinary path, less IPv6, UDP and WireGuard.
pub(crate) const MTU: u16 = 1420;
/// Time between tables that take nothing from anybody.
const CALM: Duration = Duration::from_millis(100);
/// Generations that wait for their enforcement at most; the newest counts.
const MOST_UNENFORCED: usize = 64;

impl Engine {
    /// All workers work with the table of this number, or a later one.
    pub fn handle_enforced(&mut self, serial: u64, now: Now) {
        self.begin(now);
        while let Some((first, generation)) = self.published.front().copied() {
            if first > serial {
                break;
            }
            self.published.pop_front();
            self.enforced = generation;
        }
        self.acknowledge();
        self.settle(now);
    }

    /// Tells the controller what is enforced, once.
    pub(super) fn acknowledge(&mut self) {
        let Some(enforced) = self.enforced else {
            return;
        };
        if self.link.attached().is_none() {
            return;
        }
        if let Some(session) = self.link.session_mut()
            && session.acked != Some(enforced)
        {
            session.acked = Some(enforced);
            self.say(ClientMessage::Ack(enforced));
        }
    }

    /// Has a table published for what takes nothing from anybody: at once, or, where that has just been done, a moment after
    /// it. Peers that move without end, or are renewed out of turn, cost no more tables than that, and what takes something
    /// never waits behind them.
    pub(super) fn publish_soon(&mut self, now: Now) {
        let next = self.soon.saturating_add(CALM);
        if next <= now.mono {
            self.soon = now.mono;
            self.dirty.table = true;
        } else {
            self.timers.set_earlier(Timer::Table, next);
        }
    }

    pub(super) fn publish(&mut self, now: Now) {
        self.timers.clear(Timer::Table);
        if self.clock.is_from_controller()
            && let (Some(map), Some(time)) = (&mut self.stored.map, self.clock.now(now))
        {
            lease::bury_ended(map, time);
        }
        let (peers, first_end) = self.table_peers(now);
        match first_end {
            Some(end) if end < Mono(u64::MAX) => self.timers.set(Timer::Expiry, end),
            _ => self.timers.clear(Timer::Expiry),
        }
        self.serial = self.serial.saturating_add(1);
        self.in_table = peers.iter().map(|peer| peer.device).collect();
        let generation = self.stored.map.as_ref().map(|map| map.generation);
        if self.published.back().map(|(_, last)| *last) != Some(generation)
            || self.published.is_empty()
        {
            if self.published.len() >= MOST_UNENFORCED {
                self.published.pop_front();
            }
            self.published.push_back((self.serial, generation));
        }
        let this = self.stored.this.as_ref();
        let spec = TableSpec {
            serial: self.serial,
            generation: generation.unwrap_or(self.stored.highest),
            own: this.map(|this| this.addresses),
            prefixes: this.map(|this| this.prefixes),
            names: this.map(|this| SelfName {
                domain: Domain::of_network(&this.network),
                name: this.name.clone(),
            }),
            local_keys: self.local_keys(),
            peers,
        };
        self.ready.push_back(Output::Publish(spec));
    }

    fn local_keys(&self) -> Vec<LocalKey> {
        if !self.up {
            return Vec::new();
        }
        self.keys
            .all()
            .map(|key| LocalKey {
                counter: key.counter,
                secret: key.secret.clone(),
            })
            .collect()
    }

    /// The peers with a live rule, of an approved device that takes part, and when the first rule ends.
    fn table_peers(&mut self, now: Now) -> (Vec<PeerSpec>, Option<Mono>) {
        let (Some(map), Some(this)) = (&self.stored.map, &self.stored.this) else {
            self.conflicts.clear();
            return (Vec::new(), None);
        };
        self.conflicts = table::conflicts(
            map,
            |device| !self.problems.contains_key(device),
            this,
            &self.keys,
            &self.holders,
        );
        let usable = map.peers.iter().filter(|(device, _)| {
            !self.problems.contains_key(*device) && !self.conflicts.contains_key(*device)
        });
        self.holders = usable
            .clone()
            .flat_map(|(device, peer)| table::wg_keys(peer).map(|key| (key, *device)))
            .collect();
        if !self.up || !self.is_approved() {
            return (Vec::new(), None);
        }
        let rules = TableRules {
            leases: self.leases(now),
            endpoints: self.endpoint_rules(),
            learned: &self.learned,
        };
        let mut first_end = None;
        let mut peers = Vec::new();
        for (_, peer) in usable {
            if let Some((spec, end)) = table::peer_spec(peer, &rules) {
                first_end = Some(first_end.map_or(end, |first: Mono| first.min(end)));
                peers.push(spec);
            }
        }
        (peers, first_end)
    }

    /// The ends of rules as of now.
    pub(super) fn leases(&self, now: Now) -> LeaseView<'_> {
        let own_end = self.stored.this.as_ref().and_then(|this| this.key_expires);
        LeaseView {
            clock: &self.clock,
            now,
            own_end: own_end.unwrap_or(UnixMillis::MAX),
        }
    }

    pub(super) fn endpoint_rules(&self) -> EndpointRules {
        EndpointRules {
            overlay: self.stored.this.as_ref().map(|this| this.prefixes),
            loopback: self.stored.loopback,
        }
    }

    /// Checks every held peer anew, as after a start.
    pub(super) fn check_all_peers(&mut self) {
        self.problems = BTreeMap::new();
        let own = self.own_secret();
        let Some(map) = &self.stored.map else {
            return;
        };
        let mut check = KeyCheck {
            network: &self.config.network,
            own: &own,
            seen: &mut self.stored.seen_keys,
        };
        for (device, peer) in &map.peers {
            if let Err(problem) = check.check(peer, None) {
                self.problems.insert(*device, problem);
            }
        }
    }

    /// Tells the shell what the host is to look like, when that has changed.
    pub(super) fn update_host(&mut self) {
        let this = self.stored.this.as_ref();
        let host = HostConfig {
            up: self.up,
            addresses: this.map(|this| this.addresses),
            prefixes: this.map(|this| this.prefixes),
            domain: this.map(|this| Domain::of_network(&this.network)),
            mtu: MTU,
        };
        if self.host.as_ref() != Some(&host) && (self.up || self.host.is_some()) {
            self.host = Some(host.clone());
            self.ready.push_back(Output::Host(host));
        }
    }

    /// The latest end of a live grant.
    pub(super) fn leases_end(&self, now: Now) -> Option<UnixMillis> {
        let map = self.stored.map.as_ref().filter(|_| self.is_approved())?;
        let leases = self.leases(now);
        map.peers
            .iter()
            .filter(|(device, _)| self.in_table.contains(*device))
            .filter_map(|(_, peer)| leases.latest(peer))
            .max()
    }
}

/// Renewals and endpoints are written this late: what is lost of them only makes leases shorter.
pub(super) const LAZY: Duration = Duration::from_secs(60);
