use std::time::Duration;

use gatereeve_client_core::datapath::TableSpec;
use gatereeve_client_core::wg::NoiseTunnels;
use gatereeve_runtime::clock::Clock;

use super::*;
use crate::daemon::enforced::EnforcedWatch;
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
