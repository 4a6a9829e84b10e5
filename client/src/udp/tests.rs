use std::net::UdpSocket;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use gatereeve_client_core::datapath::Batch;

use super::*;

fn loopback() -> Udp {
    Udp::bind(&["127.0.0.1:0".parse().unwrap()], 0).unwrap()
}

fn wait(port: &Port) {
    let mut readable = [PollFd::new(port.readable(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut readable, PollTimeout::from(10_000u16)).unwrap(),
        1
    );
}

#[test]
fn both_families_share_one_port() {
    let udp = Udp::bind(
        &["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()],
        0,
    )
    .unwrap();
    assert_ne!(udp.port(), 0);
    assert!(
        udp.ports()
            .iter()
            .all(|port| port.local().port() == udp.port())
    );
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let udp = loopback();
    let taken = udp.ports()[0].local();
    let error = Udp::bind(&[taken], 0).unwrap_err();
    assert!(
        format!("{error:#}").contains(&taken.to_string()),
        "{error:#}"
    );
}

#[test]
fn more_datagrams_than_a_batch_holds_all_arrive_in_order() {
    let udp = loopback();
    let port = &udp.ports()[0];
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..20u8 {
        from.send_to(&[n; 100], port.local()).unwrap();
    }
    from.send_to(&[99; 600], port.local()).unwrap();
    from.send_to(&[20; 100], port.local()).unwrap();
    let mut receiver = Receiver::new();
    let mut batch = Batch::new(4, 512);
    let mut seen = Vec::new();
    while seen.len() < 21 {
        if !receiver.has_more() {
            wait(port);
        }
        receiver.receive(port, &mut batch).unwrap();
        for (datagram, source) in batch.packets() {
            assert_eq!(source, Some(from.local_addr().unwrap()));
            assert_eq!(datagram.len(), 100);
            seen.push(datagram[0]);
        }
        batch.clear();
    }
    // The one that no slot holds is left out; its neighbours are whole.
    assert_eq!(seen, (0..=20).collect::<Vec<_>>());
}
