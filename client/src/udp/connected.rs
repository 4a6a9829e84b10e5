//! Sockets that are connected to one peer, for those of whom much comes and goes datagram by datagram.
//!
//! For a socket that is connected the kernel keeps the route, in and out. For one that is not, it looks routes up with every
//! datagram, which takes a microsecond of each and more where nothing is in the caches: once there are policy rules, Linux asks
//! all of them, for what is sent, for what is received, and for its source. (WireGuard in the kernel keeps the route of a
//! peer, too.)
//!
//! They stand beside the shared sockets of a worker, on the same port, and change nothing else. They are bound to the address of
//! ours that the kernel chooses for the peer, where the shared ones are bound to all: so they do not count among those that the
//! kernel spreads other peers over. The worker that makes one is the one that hears the peer anyway. Whatever goes wrong with one, it
//! is not sent with any more, and the shared socket takes its place.
//!
//! What is kept has to be true still. So they are made only where somebody tells of changes of the host's network
//! ([`NetworkChanges`]), and after one, each is compared with what the kernel would choose now, before something is sent, but
//! at most ten times a second.
//!
//! [`NetworkChanges`]: crate::routes::changes::NetworkChanges

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::Mono;
use socket2::SockRef;

use super::bind::{bind_one, connected_buffer};
use super::{Port, Udp};
use crate::routes::lookup::{self, Datagram, Next};

/// Most of one worker. Each has buffers in the kernel.
pub(super) const MAX_CONNECTED: usize = 4;
/// Datagrams sent to an address one by one, over a shared socket, after which it gets one of its own.
const WORTH: u8 = 32;
/// Addresses that are counted at a time.
const MAX_COUNTED: usize = 8;
/// Addresses that get none for a while.
const MAX_BARRED: usize = 8;
/// How long somebody gets none after something went wrong: whoever can make it go wrong shall not have us make one after the
/// other.
const BARRED: Duration = Duration::from_secs(30);
/// How much of that lasts when the network changes, which may be what was wrong.
const BARRED_STILL: Duration = Duration::from_secs(1);
/// One socket is made in so long, each a dozen system calls: whoever moves all the time shall not have us make them all the time.
const APART: Duration = Duration::from_secs(1);
/// But so many at once, when none was made for as long as they take.
const AT_ONCE: u32 = 8;
/// Between two comparisons with what the kernel would choose, where the network changes all the time.
const REST: Duration = Duration::from_millis(100);

/// The connected sockets of one worker, and who is worth another one.
#[derive(Debug, Default)]
pub struct Connections {
    open: Vec<Connection>,
    /// What is not sent with any more; it may have something to be read.
    retired: Vec<usize>,
    counted: Vec<Counted>,
    /// Who gets none until then.
    barred: Vec<(SocketAddr, Mono)>,
    wanted: Option<SocketAddr>,
    /// When those that were made would all have been, one after the other.
    due: Mono,
    /// As of which change those that are open were right, and when that was found.
    seen: Option<u64>,
    looked: Mono,
}

#[derive(Debug)]
struct Connection {
    to: SocketAddr,
    port: Arc<Port>,
    way: Next,
    /// Where the worker has it among its sources.
    place: usize,
    /// Whether it was sent with since somebody else last wanted its place.
    is_used: bool,
}

/// An address that is sent to.
#[derive(Debug)]
struct Counted {
    to: SocketAddr,
    /// Datagrams that went there alone.
    count: u8,
    /// Whether one has come from there to a shared socket of this worker.
    is_heard: bool,
}

/// A connected socket that was made, to be [added](Connections::add).
#[derive(Debug)]
pub struct Made {
    to: SocketAddr,
    port: Arc<Port>,
    way: Next,
    /// As of which change that is the way.
    as_of: u64,
}

impl Made {
    /// The socket.
    #[must_use]
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

impl Connections {
    /// The socket that is connected to `to`.
    pub(super) fn port(&mut self, to: SocketAddr) -> Option<Arc<Port>> {
        let mut open = self.open.iter_mut();
        let found = open.find(|connection| connection.to == to)?;
        found.is_used = true;
        Some(Arc::clone(&found.port))
    }

    /// A datagram came alone, over a shared socket of this worker. Whoever is heard by another worker is not for this one to
    /// connect to: his datagrams would overtake those that wait there.
    pub fn heard(&mut self, from: SocketAddr) {
        let mut counted = self.counted.iter_mut();
        if let Some(counted) = counted.find(|counted| counted.to == from) {
            counted.is_heard = true;
        }
    }

    /// A data message was sent alone, over a shared socket.
    pub(super) fn count(&mut self, to: SocketAddr) {
        if self.wanted.is_some() || self.seen.is_none() {
            return;
        }
        let mut counted = self.counted.iter_mut();
        let Some(counted) = counted.find(|counted| counted.to == to) else {
            self.begin_to_count(to);
            return;
        };
        counted.count += 1;
        if counted.count < WORTH {
            return;
        }
        counted.count = 0;
        if !std::mem::take(&mut counted.is_heard) {
            return;
        }
        let now = Clock::mono();
        if self.due.since(now) > APART * (AT_ONCE - 1) {
            return;
        }
        self.barred.retain(|(_, until)| now < *until);
        if !self.barred.iter().any(|(address, _)| *address == to) {
            self.wanted = Some(to);
        }
    }

    /// One is made.
    fn charge(&mut self) {
        self.due = self.due.max(Clock::mono()).saturating_add(APART);
    }

    fn begin_to_count(&mut self, to: SocketAddr) {
        if self.counted.len() >= MAX_COUNTED {
            // What was counted long ago counts less each time.
            for counted in &mut self.counted {
                counted.count /= 2;
            }
            let least = self.counted.iter().enumerate();
            let least = least.min_by_key(|(_, counted)| counted.count);
            if let Some((least, _)) = least {
                self.counted.remove(least);
            }
        }
        self.counted.push(Counted {
            to,
            count: 1,
            is_heard: false,
        });
    }

    /// Something is wrong with the socket that is connected to `to`: it is not sent with any more.
    pub(super) fn retire(&mut self, to: SocketAddr) {
        self.retire_all(|connection| connection.to == to);
        self.bar(to);
    }

    /// The same, by where the worker has it.
    pub fn retire_at(&mut self, place: usize) {
        let mut open = self.open.iter();
        if let Some(connection) = open.find(|connection| connection.place == place) {
            self.retire(connection.to);
        }
    }

    fn bar(&mut self, to: SocketAddr) {
        if self.barred.len() >= MAX_BARRED {
            self.barred.remove(0);
        }
        let until = Clock::mono().saturating_add(BARRED);
        self.barred.push((to, until));
    }

    fn retire_all(&mut self, is_meant: impl Fn(&Connection) -> bool) {
        let gone = self.open.extract_if(.., |connection| is_meant(connection));
        self.retired.extend(gone.map(|connection| connection.place));
    }

    /// Retires those that the kernel would not make so any more, if something has changed.
    pub fn look(&mut self, udp: &Udp) {
        let now = udp.changes.now();
        if now != self.seen {
            self.look_again(udp, now);
        }
    }

    #[cold]
    fn look_again(&mut self, udp: &Udp, now: Option<u64>) {
        let at = Clock::mono();
        if now.is_some() && !self.open.is_empty() && at.since(self.looked) < REST {
            return;
        }
        (self.seen, self.looked) = (now, at);
        let lasts = BARRED.saturating_sub(BARRED_STILL);
        self.barred.retain(|(_, until)| until.since(at) > lasts);
        self.retire_all(|connection| {
            let is_same = |(local, way)| local == connection.port.local && way == connection.way;
            now.is_none() || !udp.way_to(connection.to).is_ok_and(is_same)
        });
    }

    /// As if the kernel chose another way to all by now.
    #[cfg(test)]
    pub(super) fn mislead(&mut self) {
        for connection in &mut self.open {
            connection.way.interface = None;
        }
    }

    /// Whether there is something to be done between two rounds: [`Self::retired`], then [`Self::wanted`].
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.wanted.is_some() || !self.retired.is_empty()
    }

    /// Takes the places of sockets that are to be closed.
    pub fn retired(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.retired)
    }

    /// Makes the socket that is wanted, for `worker`; or makes room for it: the place of one that was not used lately is retired.
    pub fn wanted(&mut self, udp: &Udp, worker: usize) -> Option<Made> {
        let to = self.wanted.take()?;
        if self.open.iter().any(|connection| connection.to == to) {
            return None;
        }
        if self.open.len() >= MAX_CONNECTED {
            let idle = self.open.iter().position(|connection| !connection.is_used);
            for connection in &mut self.open {
                connection.is_used = false;
            }
            // Where all are used, the next who wants one may find a place.
            let idle = self.open.remove(idle?);
            self.retired.push(idle.place);
            return None;
        }
        self.charge();
        match udp.connect(worker, to) {
            Ok(made) => Some(made),
            Err(error) => {
                tracing::debug!(%error, %to, "no socket of its own");
                self.bar(to);
                None
            }
        }
    }

    /// From now on what goes to its peer is sent with `made`, which the worker reads at `place`; not at all where it has none for
    /// it.
    pub fn add(&mut self, made: Made, place: io::Result<usize>) {
        let Made {
            to,
            port,
            way,
            as_of,
        } = made;
        match place {
            Ok(place) => {
                tracing::debug!(%to, local = %port.local, "a socket of its own");
                self.open.push(Connection {
                    to,
                    port,
                    way,
                    place,
                    is_used: true,
                });
                // What has changed since either was found to be right is looked at for all: while this one was made, or before
                // that and not seen so far.
                self.seen = Some(self.seen.map_or(as_of, |seen| seen.min(as_of)));
            }
            Err(error) => {
                tracing::debug!(%error, %to, "a connected socket cannot be watched");
                self.bar(to);
            }
        }
    }
}

impl Udp {
    /// A socket that is connected to `to`, beside the shared ones of `worker`.
    ///
    /// # Errors
    /// Those of the system, and of [`Self::way_to`].
    fn connect(&self, worker: usize, to: SocketAddr) -> io::Result<Made> {
        let Some(as_of) = self.changes.now() else {
            return Err(io::Error::other("nobody tells of changes of the network"));
        };
        let (local, way) = self.way_to(to)?;
        let shared = self.shared_for(worker, to)?;
        let buffer = connected_buffer(self.options.workers);
        let port = bind_one(local, self.options, true, buffer)?;
        // Until then it is sent what others send to this address, which is read and goes its way.
        port.socket.connect(to)?;
        let port = Port {
            peer: Some(to),
            segmentation: Arc::clone(&shared.segmentation),
            coalescing: Arc::clone(&shared.coalescing),
            ..port
        };
        Ok(Made {
            to,
            port: Arc::new(port),
            way,
            as_of,
        })
    }

    /// The address and port that a shared socket sends from to `to`, and the way there, if the kernel sends the same way from a
    /// socket that is bound to it. By rules for sources, or with several ways of one cost, it may do otherwise.
    fn way_to(&self, to: SocketAddr) -> io::Result<(SocketAddr, Next)> {
        let datagram = Datagram {
            to,
            from: None,
            port: self.shared_for(0, to)?.local.port(),
            mark: self.options.mark,
        };
        let way = lookup::ask(datagram)?;
        let source = way.source.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let bound = Datagram {
            from: Some(source),
            ..datagram
        };
        if lookup::ask(bound)?.next != way.next {
            return Err(io::Error::other("the way depends on the source"));
        }
        let local = match (source, to) {
            // Addresses of a link are told apart by the interface.
            (IpAddr::V6(source), SocketAddr::V6(to)) if source.is_unicast_link_local() => {
                SocketAddrV6::new(source, datagram.port, 0, to.scope_id()).into()
            }
            _ => SocketAddr::new(source, datagram.port),
        };
        Ok((local, way.next))
    }

    /// The shared socket of `worker` for the family of `to`, if it is bound to all addresses: a connected one would be counted with
    /// it otherwise, among those that the kernel spreads peers over.
    fn shared_for(&self, worker: usize, to: SocketAddr) -> io::Result<&Port> {
        let mut shared = self.ports(worker).iter();
        let shared = shared.find(|port| port.local.is_ipv6() == to.is_ipv6());
        let shared = shared.filter(|port| port.local.ip().is_unspecified());
        let shared = shared.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(shared)
    }
}

impl Port {
    /// What its peer sends from now on comes to a shared socket: this one is connected to itself. What has come already is there
    /// to be read.
    ///
    /// # Errors
    /// Those of connect(2): its peer is its peer still.
    pub fn let_go(&self) -> io::Result<()> {
        SockRef::from(&self.socket).connect(&self.local.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn told() -> Connections {
        Connections {
            seen: Some(1),
            ..Connections::default()
        }
    }

    #[test]
    fn an_address_is_worth_a_socket_when_much_went_there_alone() {
        let mut connections = Connections::default();
        let exchange = |connections: &mut Connections, port| {
            connections.count(address(port));
            connections.heard(address(port));
        };
        for _ in 0..u8::MAX {
            exchange(&mut connections, 1);
        }
        assert!(!connections.has_work(), "nobody tells of changes");
        let mut connections = told();
        for _ in 1..WORTH {
            exchange(&mut connections, 1);
            exchange(&mut connections, 2);
        }
        assert!(!connections.has_work());
        connections.count(address(2));
        assert_eq!(connections.wanted, Some(address(2)));
        // One at a time; and what was counted before is not lost.
        connections.count(address(1));
        assert_eq!(connections.wanted.take(), Some(address(2)));
        connections.count(address(1));
        assert_eq!(connections.wanted.take(), Some(address(1)));
    }

    #[test]
    fn who_is_not_heard_by_this_worker_gets_none() {
        let mut connections = told();
        for _ in 0..u8::MAX {
            connections.count(address(1));
            connections.heard(address(2));
        }
        assert!(!connections.has_work());
        connections.heard(address(1));
        for _ in 0..WORTH {
            connections.count(address(1));
        }
        assert!(connections.has_work());
    }

    #[test]
    fn who_had_one_that_failed_gets_none_for_a_while() {
        let mut connections = told();
        let is_wanted = |connections: &mut Connections| {
            for _ in 0..2 * WORTH {
                connections.count(address(1));
                connections.heard(address(1));
            }
            connections.wanted.take().is_some()
        };
        assert!(is_wanted(&mut connections));
        connections.retire(address(1));
        assert!(!is_wanted(&mut connections));
        // What others do does not end it, but for very many.
        for port in 2..=MAX_BARRED {
            connections.retire(address(u16::try_from(port).unwrap()));
        }
        assert!(!is_wanted(&mut connections));
        let over = Clock::mono();
        for (_, until) in &mut connections.barred {
            *until = over;
        }
        assert!(is_wanted(&mut connections));
        assert!(connections.barred.is_empty());
    }

    #[test]
    fn whoever_moves_all_the_time_gets_some_and_then_one_now_and_then() {
        let mut connections = told();
        let got = |connections: &mut Connections| {
            let wanted = (0..100_u16).filter(|port| {
                for _ in 0..2 * WORTH {
                    connections.count(address(*port));
                    connections.heard(address(*port));
                }
                let is_wanted = connections.wanted.take().is_some();
                if is_wanted {
                    connections.charge();
                }
                is_wanted
            });
            wanted.count()
        };
        assert_eq!(got(&mut connections), AT_ONCE as usize);
        assert_eq!(got(&mut connections), 0);
        connections.due = Clock::mono().saturating_add(APART * (AT_ONCE - 2));
        assert_eq!(got(&mut connections), 2);
    }

    #[test]
    fn few_addresses_are_counted_at_a_time_and_the_busiest_stay() {
        let mut connections = told();
        let busy = address(7);
        for port in 8..1000 {
            for _ in 0..2 {
                connections.count(busy);
            }
            connections.count(address(port));
            // What comes in counts nothing.
            connections.heard(address(2000 + port));
            assert!(connections.counted.len() <= MAX_COUNTED);
            assert!(connections.counted.iter().any(|counted| counted.to == busy));
        }
    }
}
