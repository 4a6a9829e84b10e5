use std::time::Duration;

use gatereeve_client_core::api::TunOffloads;
use gatereeve_client_core::datapath::{Batch, Outbox, TableSpec};
use gatereeve_client_core::wg::NoiseTunnels;
use gatereeve_runtime::clock::Clock;

use super::*;
use crate::daemon::enforced::EnforcedWatch;
use crate::tun::TunQueue;
use crate::tun::channel::ChannelTun;
use crate::udp::UdpOptions;

struct Running {
    workers: Workers,
    datapath: Arc<DataPath>,
    tun: Arc<ChannelTun>,
}

fn start() -> Running {
    let datapath = Arc::new(DataPath::new([7; 32], Box::new(NoiseTunnels), Clock::now()));
    let tun = Arc::new(ChannelTun::new("test").unwrap());
    let workers = Workers::start(Shared {
        datapath: Arc::clone(&datapath),
        tun: Arc::clone(&tun) as Arc<dyn Tun>,
        udp: Arc::new(Udp::bind(&["127.0.0.1:0".parse().unwrap()], two_workers()).unwrap()),
        events: mpsc::channel(8).0,
        broken: mpsc::channel(1).0,
        undelivered: Arc::default(),
        echo: Arc::default(),
    })
    .unwrap();
    Running {
        workers,
        datapath,
        tun,
    }
}

fn two_workers() -> UdpOptions {
    UdpOptions {
        mark: 0,
        workers: 2,
        offload: true,
    }
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
        running.datapath.publish(spec, Clock::now());
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

    fn deliver(&self, worker: usize, outbox: &Outbox) -> u64 {
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
    let datapath = Arc::new(DataPath::new([7; 32], Box::new(NoiseTunnels), Clock::now()));
    let tun = Arc::new(Faulty(ChannelTun::new("test").unwrap()));
    let (broken, mut told) = mpsc::channel(1);
    let workers = Workers::start(Shared {
        datapath: Arc::clone(&datapath),
        tun: Arc::clone(&tun) as Arc<dyn Tun>,
        udp: Arc::new(Udp::bind(&["127.0.0.1:0".parse().unwrap()], two_workers()).unwrap()),
        events: mpsc::channel(8).0,
        broken,
        undelivered: Arc::default(),
        echo: Arc::default(),
    })
    .unwrap();
    assert!(told.try_recv().is_err(), "all live");
    assert!(tun.0.push(&packet()));
    assert!(told.blocking_recv().unwrap().contains("panicked"));
    let spec = TableSpec {
        serial: 1,
        ..TableSpec::default()
    };
    datapath.publish(spec, Clock::now());
    let deadline = Clock::mono().saturating_add(Duration::from_secs(30));
    while datapath.enforced() < 1 && Clock::mono() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(datapath.enforced(), 1);
    drop(workers);
}
