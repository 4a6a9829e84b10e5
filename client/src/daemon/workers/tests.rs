use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatereeve_client_core::api::TunOffloads;
use gatereeve_client_core::datapath::{Batch, LocalKey, Outbox, PeerSpec, RuleSpec, TableSpec};
use gatereeve_client_core::filter::Permit;
use gatereeve_client_core::wg::{
    HANDSHAKE_ROOM, HandshakeGate, NoiseTunnels, Opened, SessionView, Tunnel, TunnelError,
    TunnelFactory,
};
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::OverlayAddresses;

use super::worker::{MAX_PUT_OFF, PUT_OFF_ROUNDS};
use super::*;
use crate::daemon::enforced::EnforcedWatch;
use crate::tun::channel::ChannelTun;
use crate::tun::{Delivered, TunQueue};
use crate::udp::UdpOptions;

struct Running {
    workers: Workers,
    datapath: Arc<DataPath>,
    tun: Arc<ChannelTun>,
}

fn start() -> Running {
    let tun = Arc::new(ChannelTun::new("test").unwrap());
    let shared = shared(Arc::clone(&tun) as Arc<dyn Tun>, mpsc::channel(1).0);
    Running {
        datapath: Arc::clone(&shared.datapath),
        workers: Workers::start(shared).unwrap(),
        tun,
    }
}

fn shared(tun: Arc<dyn Tun>, broken: mpsc::Sender<String>) -> Shared {
    shared_with(Box::new(NoiseTunnels), tun, broken)
}

fn shared_with(
    tunnels: Box<dyn TunnelFactory>,
    tun: Arc<dyn Tun>,
    broken: mpsc::Sender<String>,
) -> Shared {
    Shared {
        datapath: Arc::new(DataPath::new([7; 32], tunnels, Clock::mono())),
        tun,
        udp: Arc::new(Udp::bind(&["127.0.0.1:0".parse().unwrap()], two_workers()).unwrap()),
        events: mpsc::channel(8).0,
        broken,
        undelivered: Arc::default(),
        echo: Arc::default(),
    }
}

fn two_workers() -> UdpOptions {
    UdpOptions {
        mark: 0,
        workers: 2,
        offload: true,
    }
}

/// A table with peers that may be at any of `sockets`, and may be sent what [`packet`] is.
fn table(serial: u64, peers: u8, sockets: &[UdpSocket]) -> TableSpec {
    let addresses = |n: u8| OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, 0, n),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()),
    };
    let endpoints = sockets.iter().map(|socket| socket.local_addr().unwrap());
    let endpoints: Vec<_> = endpoints.collect();
    let rule = RuleSpec {
        rule: RuleId::new("rule").unwrap(),
        ports: vec!["icmp".parse().unwrap()],
        end: Mono(u64::MAX),
    };
    let peers = (2..).take(peers.into()).map(|n: u8| PeerSpec {
        device: DeviceId([n; 20]),
        name: DeviceName::new(format!("peer-{n}")).unwrap(),
        addresses: addresses(n),
        keys: vec![(1, WgSecret::from_bytes([n; 32]).public())],
        endpoints: endpoints.clone(),
        ingress: Vec::new(),
        egress: vec![rule.clone()],
    });
    TableSpec {
        serial,
        own: Some(addresses(1)),
        local_keys: vec![LocalKey {
            counter: 1,
            secret: WgSecret::from_bytes([1; 32]),
        }],
        peers: peers.collect(),
        ..TableSpec::default()
    }
}

/// Sockets to which nobody has sent anything.
fn sockets() -> [UdpSocket; 3] {
    std::array::from_fn(|_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).unwrap();
        socket
    })
}

/// The next datagram to `socket`.
fn next(socket: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    let len = socket.recv(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Nothing has come to `socket`: what is sent over loopback is there when the call returns.
fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let nothing = next(socket).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
    nothing
}

/// A worker that nobody runs, and a table with so many peers at `sockets`.
fn worker(peers: u8, sockets: &[UdpSocket]) -> (Arc<Shared>, Worker) {
    let tun = Arc::new(ChannelTun::new("test").unwrap());
    let shared = Arc::new(shared(tun, mpsc::channel(1).0));
    let stop = Arc::new(EventFd::new().unwrap());
    shared.datapath.open_until(Mono(u64::MAX));
    let spec = table(1, peers, sockets);
    shared.datapath.publish(spec, Clock::mono());
    (Arc::clone(&shared), Worker::new(0, shared, stop))
}

#[test]
fn linux_shows_the_threads_by_different_names() {
    /// `TASK_COMM_LEN` without its end.
    const SHOWN: usize = 15;
    let running = start();
    let threads = running.workers.threads.iter();
    let names: Vec<_> = threads
        .filter_map(|thread| thread.thread().name())
        .collect();
    assert_eq!(names, ["gatereeve-w0", "gatereeve-w1", "gatereeve-timer"]);
    assert!(names.iter().all(|name| name.len() <= SHOWN));
    // The largest machines have so many cores.
    assert!(worker_name(1023).len() <= SHOWN);
}

#[test]
fn an_initiation_goes_to_where_else_the_peer_may_be_when_nothing_else_is_to_be_done() {
    let sockets = sockets();
    let [first, others @ ..] = &sockets;
    let (shared, mut worker) = worker(1, &sockets);
    let datapath = &shared.datapath;
    let mut batch = Batch::new(1, 2048);
    batch.push(&packet(), None);
    worker.outbound(&mut batch);
    let initiation = next(first).unwrap();
    assert_eq!((initiation.len(), initiation[0]), (HANDSHAKE_ROOM, 1));
    assert!(others.iter().all(is_silent));
    // Until the others have it, the table by which they get it counts as worked with.
    datapath.publish(table(2, 1, &sockets), Clock::mono());
    assert_eq!(datapath.enforced(), 1);
    worker.make_up();
    for other in others {
        assert_eq!(next(other).unwrap(), initiation);
    }
    assert_eq!(datapath.enforced(), 2);
    worker.make_up();
    assert!(sockets.iter().all(is_silent));
}

#[test]
fn under_load_it_goes_after_some_rounds_and_at_once_where_a_newer_table_waits() {
    for is_newer in [false, true] {
        let sockets = sockets();
        let (shared, mut worker) = worker(1, &sockets);
        let mut batch = Batch::new(1, 2048);
        batch.push(&packet(), None);
        worker.outbound(&mut batch);
        let rounds = if is_newer { 1 } else { PUT_OFF_ROUNDS };
        for _ in 1..rounds {
            worker.count_round();
        }
        assert!(sockets[1..].iter().all(is_silent));
        if is_newer {
            let spec = table(2, 1, &sockets);
            shared.datapath.publish(spec, Clock::mono());
        }
        worker.count_round();
        assert!(!sockets[1..].iter().any(is_silent));
    }
}

#[test]
fn more_than_some_are_not_put_off() {
    let sockets = sockets();
    let peers = u8::try_from(MAX_PUT_OFF / 2 + 1).unwrap();
    let (_shared, mut worker) = worker(peers, &sockets);
    for peer in 0..peers {
        let mut batch = Batch::new(1, 2048);
        let mut packet = packet();
        packet[19] += peer;
        batch.push(&packet, None);
        assert!(is_silent(&sockets[1]), "{peer}");
        worker.outbound(&mut batch);
    }
    assert!(!is_silent(&sockets[1]));
}

#[test]
fn a_worker_with_nothing_to_do_sends_the_initiation_everywhere() {
    let running = start();
    let sockets = sockets();
    running.datapath.open_until(Mono(u64::MAX));
    let publish = |serial| {
        let spec = table(serial, 1, &sockets);
        running.datapath.publish(spec, Clock::mono());
    };
    publish(1);
    assert!(running.tun.push(&packet()));
    let initiation = next(&sockets[0]).unwrap();
    for other in &sockets[1..] {
        assert_eq!(next(other).unwrap(), initiation);
    }
    // And holds no newer table back, while it runs.
    publish(2);
    let deadline = Clock::mono().saturating_add(Duration::from_secs(30));
    while running.datapath.enforced() < 2 && Clock::mono() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(running.datapath.enforced(), 2);
    drop(running.workers);
}

/// Tunnels that count how many were prepared, and are good for nothing else.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicU64>);

impl TunnelFactory for Counting {
    fn create(
        &self,
        _: &WgSecret,
        _: &WgPublicKey,
        _: u32,
        _: Mono,
    ) -> Result<Box<dyn Tunnel>, TunnelError> {
        Ok(Box::new(self.clone()))
    }

    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate> {
        NoiseTunnels.gate(local)
    }
}

impl Tunnel for Counting {
    fn prepare(&mut self, _: Mono) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn initiate(&mut self, _: Mono, _: &mut [u8]) -> Result<usize, TunnelError> {
        Err(TunnelError::Crypto)
    }

    fn encapsulate(
        &mut self,
        _: &Permit,
        _: &[u8],
        _: Mono,
        _: &mut [u8],
    ) -> Result<usize, TunnelError> {
        Err(TunnelError::NoSession)
    }

    fn keepalive(&mut self, _: Mono, _: &mut [u8]) -> Result<usize, TunnelError> {
        Err(TunnelError::NoSession)
    }

    fn decapsulate(
        &mut self,
        _: SocketAddr,
        _: &mut [u8],
        _: Mono,
        _: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        Err(TunnelError::Crypto)
    }

    fn session(&self, _: Mono) -> Option<SessionView> {
        None
    }

    fn awaits(&self, _: &[u8]) -> bool {
        false
    }

    fn expires(&self) -> Option<Mono> {
        None
    }

    fn maintain(&mut self, _: Mono) {}

    fn erase(&mut self) {}
}

#[test]
fn tunnels_that_are_new_are_prepared_when_the_threads_start_and_with_every_table() {
    let counting = Counting::default();
    let tun = Arc::new(ChannelTun::new("test").unwrap());
    let shared = shared_with(Box::new(counting.clone()), tun, mpsc::channel(1).0);
    let datapath = Arc::clone(&shared.datapath);
    let publish = |serial, peers| datapath.publish(table(serial, peers, &[]), Clock::mono());
    let prepared = || counting.0.load(Ordering::SeqCst);
    let wait_for = |count| {
        let deadline = Clock::mono().saturating_add(Duration::from_secs(30));
        while prepared() < count && Clock::mono() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(prepared(), count);
    };
    publish(1, 2);
    assert_eq!(prepared(), 0, "not by who publishes");
    let workers = Workers::start(shared).unwrap();
    wait_for(2);
    publish(2, 5);
    workers.nudge_timers();
    wait_for(5);
    // Of many the first.
    publish(3, 100);
    workers.nudge_timers();
    wait_for(32);
    drop(workers);
    assert_eq!(prepared(), 32);
}

/// An echo request from one overlay address to another.
fn packet() -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2,
    ];
    packet.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn packets_reach_the_data_path_which_drops_them_without_a_table() {
    let running = start();
    let dropped = || running.datapath.drops().values().sum::<u64>();
    assert_eq!(dropped(), 0);
    for _ in 0..200 {
        assert!(running.tun.push(&packet()));
    }
    let deadline = Clock::mono().saturating_add(Duration::from_secs(30));
    while dropped() < 200 && Clock::mono() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(dropped(), 200);
    drop(running.workers);
    assert!(running.tun.take().is_none());
    assert!(running.tun.push(&packet()));
    assert_eq!(dropped(), 200, "no thread is left to read");
}

#[test]
fn a_table_is_enforced_while_workers_run_and_after_they_have_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let running = start();
    let (sender, mut enforced) = mpsc::channel(4);
    let watch = EnforcedWatch::start(Arc::clone(&running.datapath), sender).unwrap();
    let mut publish = |serial| {
        let spec = TableSpec {
            serial,
            ..TableSpec::default()
        };
        running.datapath.publish(spec, Clock::mono());
        watch.published(serial);
        runtime.block_on(enforced.recv())
    };
    assert_eq!(publish(1), Some(1));
    assert!(running.tun.push(&packet()));
    assert_eq!(publish(2), Some(2));
    drop(running.workers);
    assert_eq!(publish(3), Some(3));
}

/// A device whose reading panics.
#[derive(Debug)]
struct Faulty(ChannelTun);

impl Tun for Faulty {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn queues(&self, worker: usize) -> Vec<&dyn TunQueue> {
        if worker == 0 { vec![self] } else { Vec::new() }
    }

    fn deliver(&self, worker: usize, outbox: &Outbox) -> Delivered {
        self.0.deliver(worker, outbox)
    }

    fn offloads(&self) -> TunOffloads {
        self.0.offloads()
    }
}

impl TunQueue for Faulty {
    fn receive(&self, _most: usize, _batch: &mut Batch) -> std::io::Result<bool> {
        panic!("a fault that the test makes")
    }

    fn readable(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.readable()
    }
}

#[test]
fn a_thread_that_dies_is_told_of_and_holds_no_table_back() {
    let tun = Arc::new(Faulty(ChannelTun::new("test").unwrap()));
    let (broken, mut told) = mpsc::channel(1);
    let shared = shared(Arc::clone(&tun) as Arc<dyn Tun>, broken);
    let datapath = Arc::clone(&shared.datapath);
    let workers = Workers::start(shared).unwrap();
    assert!(told.try_recv().is_err(), "all live");
    assert!(tun.0.push(&packet()));
    assert!(told.blocking_recv().unwrap().contains("panicked"));
    let spec = TableSpec {
        serial: 1,
        ..TableSpec::default()
    };
    datapath.publish(spec, Clock::mono());
    let deadline = Clock::mono().saturating_add(Duration::from_secs(30));
    while datapath.enforced() < 1 && Clock::mono() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(datapath.enforced(), 1);
    drop(workers);
}
