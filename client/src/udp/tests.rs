use std::net::UdpSocket;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use gatereeve_client_core::datapath::{Batch, Run};
use gatereeve_client_core::packet::offload::Ecn;

use super::connected::MAX_CONNECTED;
use super::*;

const SLOT: usize = 65_600;

fn options(workers: usize) -> UdpOptions {
    UdpOptions {
        mark: 0,
        workers,
        offload: true,
    }
}

fn loopback(workers: usize) -> Udp {
    Udp::bind(&["127.0.0.1:0".parse().unwrap()], options(workers)).unwrap()
}

fn wait(ports: &[&Port]) {
    let mut readable: Vec<_> = ports
        .iter()
        .map(|port| PollFd::new(port.readable(), PollFlags::POLLIN))
        .collect();
    assert_ne!(
        poll(&mut readable, PollTimeout::from(10_000u16)).unwrap(),
        0
    );
}

/// A socket of somebody else's, with time-outs.
fn other() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

fn run<'a>(to: &UdpSocket, segment: usize, bytes: &'a [u8]) -> Run<'a> {
    Run {
        to: to.local_addr().unwrap(),
        ecn: Ecn::default(),
        segment,
        bytes,
    }
}

/// Lengths and first bytes of the next datagrams.
fn next(socket: &UdpSocket, count: usize) -> Vec<(usize, u8)> {
    let mut buffer = [0; 2048];
    (0..count)
        .map(|_| (socket.recv(&mut buffer).unwrap(), buffer[0]))
        .collect()
}

/// Six datagrams: five of 100 bytes, one of 50, each filled with its number.
fn six() -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..5 {
        bytes.extend([n; 100]);
    }
    bytes.extend([5; 50]);
    bytes
}

const SIX: [(usize, u8); 6] = [(100, 0), (100, 1), (100, 2), (100, 3), (100, 4), (50, 5)];

#[test]
fn all_workers_and_both_families_share_one_port() {
    let any = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let udp = Udp::bind(&any, options(3)).unwrap();
    assert_ne!(udp.port(), 0);
    assert_eq!(udp.workers(), 3);
    for worker in 0..3 {
        let ports = udp.ports(worker);
        assert_eq!(ports.len(), udp.ports(0).len());
        assert!(ports.iter().all(|port| port.local().port() == udp.port()));
    }
    assert!(udp.ports(3).is_empty());
    assert!(udp.missing().is_empty(), "{:?}", udp.missing());
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    for workers in [1, 2] {
        let udp = loopback(workers);
        let taken = udp.ports(0)[0].local();
        let error = Udp::bind(&[taken], options(workers)).unwrap_err();
        assert!(
            format!("{error:#}").contains(&taken.to_string()),
            "{error:#}"
        );
        // Positive control: it is the port that is in the way.
        drop(udp);
        Udp::bind(&[taken], options(workers)).unwrap();
    }
}

#[test]
fn a_port_that_somebody_else_would_share_is_taken_all_the_same() {
    let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    other.bind(&any.into()).unwrap();
    let taken = other.local_addr().unwrap().as_socket().unwrap();
    assert!(Udp::bind(&[taken], options(2)).is_err());
}

#[test]
fn what_one_sender_sends_comes_to_one_worker_in_order() {
    let udp = loopback(3);
    let ports: Vec<&Port> = (0..3).map(|worker| &*udp.ports(worker)[0]).collect();
    let mut batch = Batch::new(64, SLOT);
    for _ in 0..8 {
        let from = other();
        for n in 0..40_u8 {
            from.send_to(&[n; 100], ports[0].local()).unwrap();
        }
        wait(&ports);
        let mut seen = Vec::new();
        for port in &ports {
            let mut receiver = Receiver::new();
            let before = seen.len();
            while receiver.receive(port, usize::MAX, &mut batch).unwrap() || !batch.is_empty() {
                for (datagram, source) in batch.packets() {
                    assert_eq!(source, Some(from.local_addr().unwrap()));
                    seen.extend_from_slice(datagram);
                }
                batch.clear();
            }
            assert!(before == 0 || seen.len() == before, "two workers got some");
        }
        let sent: Vec<u8> = (0..40).flat_map(|n| [n; 100]).collect();
        assert_eq!(seen, sent);
    }
}

#[test]
fn a_run_is_sent_whole_and_arrives_as_datagrams() {
    let udp = loopback(2);
    let to = other();
    let mut sender = Sender::default();
    for worker in 0..2 {
        sender.send(&udp, worker, [run(&to, 100, &six())]);
        assert_eq!(next(&to, 6), SIX);
    }
    assert_eq!(udp.drops(), [("udp_path_mtu", 0), ("udp_unsent", 0)]);
    assert!(udp.offloads().gso, "on this kernel");
}

/// Two ports at `address`; none on a host without its family.
fn two(address: &str) -> Option<(Udp, Udp)> {
    let address: SocketAddr = address.parse().unwrap();
    let has_family = address.is_ipv4() || UdpSocket::bind(address).is_ok();
    let bind = || Udp::bind(&[address], options(1)).unwrap();
    has_family.then(|| (bind(), bind()))
}

/// What was said of the first datagrams that came to `port`, where `most` were asked for.
fn said(port: &Port, most: usize, batch: &mut Batch) -> quinn_udp::RecvMeta {
    wait(&[port]);
    let mut receiver = Receiver::new();
    let more = receiver.receive(port, most, batch).unwrap();
    // Who asks for one cannot know.
    assert_eq!(more, most == 1, "that was all");
    receiver.metas()[0]
}

#[test]
fn a_run_comes_coalesced_with_its_marking_where_the_kernel_can() {
    for (address, most) in [
        ("127.0.0.1:0", usize::MAX),
        ("127.0.0.1:0", 1),
        ("[::1]:0", usize::MAX),
        ("[::1]:0", 1),
    ] {
        let Some((udp, from)) = two(address) else {
            continue;
        };
        let port = &udp.ports(0)[0];
        let bytes = six();
        let marked = Run {
            to: port.local(),
            ecn: Ecn::CE,
            segment: 100,
            bytes: &bytes,
        };
        Sender::default().send(&from, 0, [marked]);
        let mut batch = Batch::new(64, SLOT);
        let meta = said(port, most, &mut batch);
        // On the loopback interface nothing ever cuts it.
        assert_eq!(batch.len(), 1);
        let datagrams: Vec<_> = batch
            .packets()
            .map(|(datagram, _)| datagram.len())
            .collect();
        assert_eq!(datagrams, [100, 100, 100, 100, 100, 50]);
        assert_eq!(meta.addr, from.ports(0)[0].local());
        assert_eq!((meta.stride, meta.len), (100, 550));
        assert_eq!(meta.ecn, Some(quinn_udp::EcnCodepoint::Ce));
    }
}

/// What an interface does not coalesce shows in what comes only.
#[test]
fn many_that_come_one_by_one_are_told_of_until_one_comes_coalesced() {
    let udp = loopback(1);
    let (port, from) = (&udp.ports(0)[0], other());
    let (mut receiver, mut batch) = (Receiver::new(), Batch::new(64, 2048));
    let is_told = || udp.missing().iter().any(|what| what.contains("one by one"));
    let mut singles = || {
        for _ in 0..100 {
            for _ in 0..64 {
                from.send_to(&[1; 40], port.local()).unwrap();
            }
            while receiver.receive(port, usize::MAX, &mut batch).unwrap() {
                batch.clear();
            }
            batch.clear();
        }
    };
    assert!(!is_told(), "nothing came");
    singles();
    assert!(is_told(), "{:?}", udp.missing());
    let bytes = six();
    let (two, sender) = (loopback(1), &mut Sender::default());
    let run = Run {
        to: port.local(),
        ecn: Ecn::default(),
        segment: 100,
        bytes: &bytes,
    };
    sender.send(&two, 0, [run]);
    said(port, usize::MAX, &mut Batch::new(4, SLOT));
    assert!(!is_told());
    assert!(udp.offloads().gro);
}

#[test]
fn a_lone_datagram_comes_with_its_marking_or_with_none() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some((udp, from)) = two(address) else {
            continue;
        };
        let port = &udp.ports(0)[0];
        let mut batch = Batch::new(4, SLOT);
        for (ecn, marking) in [
            (Ecn::CE, Some(quinn_udp::EcnCodepoint::Ce)),
            (Ecn::NOT_ECT, None),
        ] {
            for most in [usize::MAX, 1] {
                let lone = Run {
                    to: port.local(),
                    ecn,
                    segment: 100,
                    bytes: &[7; 100],
                };
                Sender::default().send(&from, 0, [lone]);
                let meta = said(port, most, &mut batch);
                let sender = from.ports(0)[0].local();
                let came: Vec<_> = batch.packets().collect();
                assert_eq!(came, [(&[7; 100][..], Some(sender))]);
                assert_eq!((meta.len, meta.ecn), (100, marking));
                batch.clear();
            }
        }
    }
}

#[test]
fn one_more_goes_behind_what_is_there_and_where_all_is_full_it_waits() {
    let (udp, from) = (loopback(1), other());
    let port = &udp.ports(0)[0];
    from.send_to(b"first", port.local()).unwrap();
    from.send_to(b"second", port.local()).unwrap();
    let mut receiver = Receiver::new();
    let mut batch = Batch::new(2, SLOT);
    assert!(batch.push(b"before", None));
    for _ in 0..2 {
        // The second time there is no room for it.
        wait(&[port]);
        assert!(receiver.receive(port, 1, &mut batch).unwrap());
        let there: Vec<_> = batch.packets().map(|(datagram, _)| datagram).collect();
        assert_eq!(there, [&b"before"[..], b"first"]);
    }
    batch.clear();
    assert!(receiver.receive(port, 1, &mut batch).unwrap());
    let there: Vec<_> = batch.packets().map(|(datagram, _)| datagram).collect();
    assert_eq!(there, [b"second"]);
}

#[test]
fn where_nothing_is_there_nothing_comes_of_asking_for_one() {
    let udp = loopback(1);
    let mut batch = Batch::new(4, SLOT);
    let port = &udp.ports(0)[0];
    assert!(!Receiver::new().receive(port, 1, &mut batch).unwrap());
    assert!(batch.is_empty());
    // An empty datagram is one.
    other().send_to(&[], port.local()).unwrap();
    let meta = said(port, 1, &mut batch);
    assert_eq!((meta.len, batch.len()), (0, 1));
}

#[test]
fn without_offload_datagrams_go_and_come_one_by_one() {
    let off = UdpOptions {
        offload: false,
        ..options(1)
    };
    let udp = Udp::bind(&["127.0.0.1:0".parse().unwrap()], off).unwrap();
    assert_eq!(udp.offloads(), UdpOffloads::default());
    assert!(udp.missing().is_empty(), "nothing was asked for");
    let to = other();
    Sender::default().send(&udp, 0, [run(&to, 100, &six())]);
    assert_eq!(next(&to, 6), SIX);

    let port = &udp.ports(0)[0];
    let bytes = six();
    let back = Run {
        to: port.local(),
        ..run(&to, 100, &bytes)
    };
    Sender::default().send(&loopback(1), 0, [back]);
    wait(&[port]);
    let mut batch = Batch::new(64, SLOT);
    let mut receiver = Receiver::new();
    while receiver.receive(port, usize::MAX, &mut batch).unwrap() {}
    assert_eq!(batch.len(), 6);
}

#[test]
fn where_nothing_segments_datagrams_go_one_by_one_and_it_is_remembered() {
    let udp = loopback(1);
    // A socket that leaves checksums out is refused segmentation, with the error of old interfaces.
    let port = &udp.ports(0)[0];
    without_checksums(&port.socket);
    let to = other();
    let mut sender = Sender::default();
    for _ in 0..3 {
        sender.send(&udp, 0, [run(&to, 100, &six())]);
        assert_eq!(next(&to, 6), SIX);
        assert!(!udp.offloads().gso);
        assert_eq!(udp.missing().len(), 1);
    }
    assert_eq!(udp.drops(), [("udp_path_mtu", 0), ("udp_unsent", 0)]);
}

#[test]
fn what_an_interface_does_not_segment_keeps_its_marking() {
    let (udp, from) = (loopback(1), loopback(1));
    without_checksums(&from.ports(0)[0].socket);
    let port = &udp.ports(0)[0];
    let bytes = six();
    let marked = Run {
        to: port.local(),
        ecn: Ecn::CE,
        segment: 100,
        bytes: &bytes,
    };
    let mut batch = Batch::new(64, SLOT);
    for _ in 0..3 {
        Sender::default().send(&from, 0, [marked]);
        assert!(!from.offloads().gso, "the control");
        for _ in 0..6 {
            let meta = said(port, 1, &mut batch);
            assert_eq!(meta.ecn, Some(quinn_udp::EcnCodepoint::Ce));
        }
        batch.clear();
    }
}

#[test]
fn a_destination_that_takes_nothing_says_nothing_about_segmentation() {
    let udp = loopback(1);
    let bytes = six();
    let nowhere = Run {
        to: "127.0.0.1:0".parse().unwrap(),
        ecn: Ecn::default(),
        segment: 100,
        bytes: &bytes,
    };
    // There is no IPv6 socket.
    let other_family = Run {
        to: "[::1]:9".parse().unwrap(),
        ..nowhere
    };
    Sender::default().send(&udp, 0, [nowhere, other_family]);
    assert_eq!(udp.drops(), [("udp_path_mtu", 0), ("udp_unsent", 12)]);
    assert!(udp.offloads().gso);
}

#[test]
fn what_is_too_big_for_the_path_is_counted_and_told() {
    const SIZE: usize = 65_520;
    let udp = loopback(1);
    let to = other();
    let at = to.local_addr().unwrap();
    let mut sender = Sender::default();
    let mut bytes = vec![7; 2 * SIZE];
    bytes.extend([9; 50]);
    sender.send(&udp, 0, [run(&to, SIZE, &bytes[..SIZE])]);
    assert_eq!(udp.drops()[0], ("udp_path_mtu", 1));
    // Of a run only what is too big is lost.
    sender.send(&udp, 0, [run(&to, SIZE, &bytes)]);
    assert_eq!(next(&to, 1), [(50, 9)]);
    assert_eq!(udp.drops(), [("udp_path_mtu", 3), ("udp_unsent", 0)]);
    let told: Vec<_> = sender.take_too_big().collect();
    let too_big = TooBig { to: at, size: SIZE };
    assert_eq!(told, [too_big]);
    assert_eq!(sender.take_too_big().count(), 0);
    // However many there are, the list stays short.
    for size in SIZE..SIZE + 100 {
        let bytes = vec![0; size];
        sender.send(&udp, 0, [run(&to, size, &bytes)]);
    }
    assert_eq!(udp.drops()[0], ("udp_path_mtu", 103));
    assert_eq!(sender.take_too_big().count(), 16);
}

#[expect(unsafe_code, reason = "no safe crate has this socket option")]
fn without_checksums(socket: &UdpSocket) {
    use std::os::fd::AsRawFd as _;

    use nix::libc;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and pointer and length are those of `on`, which is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap(),
        )
    };
    assert_eq!(result, 0);
}

/// Sockets of so many workers on all addresses, and somebody who tells of changes.
fn anywhere(workers: usize) -> Udp {
    let udp = Udp::bind(&["0.0.0.0:0".parse().unwrap()], options(workers)).unwrap();
    udp.changes().note();
    udp
}

/// The connected socket that `sender` gets for `to`, once it has sent there often enough.
fn connected(udp: &Udp, sender: &mut Sender, to: &UdpSocket) -> Option<Arc<Port>> {
    sender.connections().look(udp);
    for _ in 0..100 {
        if sender.connections().has_work() {
            break;
        }
        sender.send(udp, 0, [run(to, 10, &[4; 10])]);
        assert_eq!(next(to, 1), [(10, 4)]);
        sender.connections().heard(to.local_addr().unwrap());
    }
    let connections = sender.connections();
    assert!(connections.retired().is_empty());
    let made = connections.wanted(udp, 0)?;
    let port = Arc::clone(made.port());
    let place = to.local_addr().unwrap().port().into();
    connections.add(made, Ok(place));
    Some(port)
}

/// What came to `port`.
fn received(port: &Port) -> Vec<u8> {
    let mut batch = Batch::new(64, SLOT);
    Receiver::new().receive(port, 64, &mut batch).unwrap();
    batch
        .packets()
        .flat_map(|(bytes, _)| bytes.to_vec())
        .collect()
}

#[test]
fn a_peer_with_a_socket_of_its_own_is_sent_to_and_heard_over_that() {
    let (udp, mut sender) = (anywhere(2), Sender::default());
    let (peer, another) = (other(), other());
    let to = SocketAddr::from(([127, 0, 0, 1], udp.port()));
    another.send_to(b"another", to).unwrap();
    let of_another = |what: &[u8]| {
        let heard = |worker| received(&udp.ports(worker)[0]) == what;
        (0..2).find(|worker| heard(*worker)).unwrap()
    };
    let before = of_another(b"another");
    let own = connected(&udp, &mut sender, &peer).unwrap();
    assert!(own.is_connected());
    assert_eq!(own.local(), to);

    peer.send_to(b"peer", to).unwrap();
    assert_eq!(received(&own), b"peer");
    for n in 0..50_u8 {
        another.send_to(&[n], to).unwrap();
        assert_eq!(
            of_another(&[n]),
            before,
            "the kernel spreads others as before"
        );
    }
    assert!(received(&own).is_empty());

    // One, and several in one call, marked and not; all from the one port.
    sender.send(&udp, 0, [run(&peer, 10, &[1; 10]), run(&peer, 100, &six())]);
    let marked = Run {
        ecn: Ecn::CE,
        ..run(&peer, 7, &[2; 7])
    };
    sender.send(&udp, 0, [marked]);
    assert_eq!(next(&peer, 1), [(10, 1)]);
    assert_eq!(next(&peer, 6), SIX);
    let (len, from) = peer.recv_from(&mut [0; 99]).unwrap();
    assert_eq!((len, from), (7, to));
    assert!(!sender.connections().has_work(), "nothing went wrong");
    sender.send(&udp, 0, [run(&another, 10, &[3; 10])]);
    assert_eq!(next(&another, 1), [(10, 3)]);
    assert_eq!(udp.drops(), [("udp_path_mtu", 0), ("udp_unsent", 0)]);
}

#[test]
fn nobody_has_a_socket_of_its_own_while_changes_go_unnoticed_or_where_the_shared_are_bound() {
    let peer = other();
    let (bound, unnoticed) = (loopback(1), anywhere(1));
    bound.changes().note();
    unnoticed.changes().lost();
    for udp in [bound, unnoticed] {
        assert!(connected(&udp, &mut Sender::default(), &peer).is_none());
        // Positive control.
        assert!(connected(&anywhere(1), &mut Sender::default(), &peer).is_some());
    }
}

#[test]
fn what_a_connected_socket_does_not_take_goes_over_the_shared_one() {
    let (udp, mut sender) = (anywhere(1), Sender::default());
    let peer = other();
    let own = connected(&udp, &mut sender, &peer).unwrap();
    let at = peer.local_addr().unwrap();
    drop(peer);
    // Nobody is there, as the host says at once.
    let lost = Run {
        to: at,
        ecn: Ecn::default(),
        segment: 10,
        bytes: &[1; 10],
    };
    sender.send(&udp, 0, [lost]);
    let peer = UdpSocket::bind(at).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    sender.send(&udp, 0, [run(&peer, 100, &six())]);
    assert_eq!(next(&peer, 6), SIX);
    let retired = sender.connections().retired();
    assert_eq!(retired, [usize::from(at.port())]);
    assert_eq!(udp.drops(), [("udp_path_mtu", 0), ("udp_unsent", 0)]);
    // It has none for a while, or until the network changes.
    drop(own);
    assert!(connected(&udp, &mut sender, &peer).is_none());
    std::thread::sleep(Duration::from_millis(1100));
    udp.changes().note();
    assert!(connected(&udp, &mut sender, &peer).is_some());
}

#[test]
fn a_change_of_the_network_ends_what_the_kernel_would_not_choose_any_more() {
    let (udp, mut sender) = (anywhere(1), Sender::default());
    let peer = other();
    let own = connected(&udp, &mut sender, &peer).unwrap();
    udp.changes().note();
    std::thread::sleep(Duration::from_millis(100));
    sender.connections().look(&udp);
    assert!(!sender.connections().has_work(), "nothing is different");
    let at = peer.local_addr().unwrap();
    assert!(sender.connections().port(at).is_some());
    udp.changes().lost();
    sender.connections().look(&udp);
    let retired = sender.connections().retired();
    assert_eq!(retired, [usize::from(at.port())]);
    assert!(sender.connections().port(at).is_none());
    drop(own);
}

#[test]
fn none_is_made_when_nobody_tells_of_changes_any_more() {
    let peer = other();
    for is_told in [false, true] {
        let (udp, mut sender) = (anywhere(1), Sender::default());
        while !sender.connections().has_work() {
            sender.send(&udp, 0, [run(&peer, 10, &[4; 10])]);
            sender.connections().heard(peer.local_addr().unwrap());
        }
        if !is_told {
            udp.changes().lost();
        }
        let made = sender.connections().wanted(&udp, 0);
        assert_eq!(made.is_some(), is_told);
    }
}

#[test]
fn what_changes_while_a_socket_is_made_is_looked_at_when_it_is_there() {
    let (udp, mut sender) = (anywhere(1), Sender::default());
    let peer = other();
    let at = peer.local_addr().unwrap();
    sender.connections().look(&udp);
    while !sender.connections().has_work() {
        sender.send(&udp, 0, [run(&peer, 10, &[4; 10])]);
        sender.connections().heard(at);
    }
    let made = sender.connections().wanted(&udp, 0).unwrap();
    // The worker empties the shared socket now, and sends what that brings.
    udp.changes().lost();
    sender.send(&udp, 0, [run(&peer, 10, &[4; 10])]);
    sender.connections().add(made, Ok(7));
    sender.send(&udp, 0, [run(&peer, 10, &[4; 10])]);
    assert_eq!(sender.connections().retired(), [7]);
    assert!(sender.connections().port(at).is_none());
}

#[test]
fn a_change_that_nobody_has_looked_at_is_not_forgotten_when_another_socket_is_made() {
    for has_changed in [false, true] {
        let (udp, mut sender) = (anywhere(1), Sender::default());
        let (one, another) = (other(), other());
        let at = one.local_addr().unwrap();
        let _one = connected(&udp, &mut sender, &one).unwrap();
        while !sender.connections().has_work() {
            sender.send(&udp, 0, [run(&another, 10, &[4; 10])]);
            sender.connections().heard(another.local_addr().unwrap());
        }
        sender.connections().mislead();
        if has_changed {
            udp.changes().note();
        }
        let made = sender.connections().wanted(&udp, 0).unwrap();
        sender.connections().add(made, Ok(7));
        std::thread::sleep(Duration::from_millis(100));
        sender.connections().look(&udp);
        let retired = sender.connections().retired();
        let expected = has_changed.then(|| usize::from(at.port()));
        assert!(retired.into_iter().eq(expected));
    }
}

#[test]
fn the_places_of_those_not_used_lately_are_given_to_others() {
    let (udp, mut sender) = (anywhere(1), Sender::default());
    let peers: Vec<_> = (0..MAX_CONNECTED + 1).map(|_| other()).collect();
    let (last, first) = peers.split_last().unwrap();
    for peer in first {
        assert!(connected(&udp, &mut sender, peer).is_some());
    }
    // All were used; from now on, the second and those behind it.
    assert!(connected(&udp, &mut sender, last).is_none());
    for peer in &first[1..] {
        sender.send(&udp, 0, [run(peer, 10, &[0; 10])]);
    }
    assert!(connected(&udp, &mut sender, last).is_none());
    let place = |peer: &UdpSocket| usize::from(peer.local_addr().unwrap().port());
    let retired = sender.connections().retired();
    assert_eq!(retired, [place(&first[0])]);
    assert!(connected(&udp, &mut sender, last).is_some());
    let at = first[0].local_addr().unwrap();
    assert!(sender.connections().port(at).is_none());
}

#[test]
fn what_a_socket_has_when_its_peer_is_let_go_can_be_read_and_the_rest_comes_to_the_shared_one() {
    let (udp, mut sender) = (anywhere(1), Sender::default());
    let peer = other();
    let to = SocketAddr::from(([127, 0, 0, 1], udp.port()));
    let own = connected(&udp, &mut sender, &peer).unwrap();
    peer.send_to(b"before", to).unwrap();
    own.let_go().unwrap();
    peer.send_to(b"after", to).unwrap();
    assert_eq!(received(&udp.ports(0)[0]), b"after");
    assert_eq!(received(&own), b"before");
    assert!(received(&own).is_empty());
}

#[test]
fn a_peer_of_ipv6_has_a_socket_of_its_own_as_well() {
    let Ok(peer) = UdpSocket::bind("[::1]:0") else {
        // A host without IPv6.
        return;
    };
    let patience = Some(Duration::from_secs(10));
    peer.set_read_timeout(patience).unwrap();
    let any = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let udp = Udp::bind(&any, options(2)).unwrap();
    udp.changes().note();
    let mut sender = Sender::default();
    let own = connected(&udp, &mut sender, &peer).unwrap();
    assert_eq!(
        own.local(),
        SocketAddr::new(peer.local_addr().unwrap().ip(), udp.port())
    );
    peer.send_to(b"peer", own.local()).unwrap();
    assert_eq!(received(&own), b"peer");
    sender.send(&udp, 0, [run(&peer, 100, &six())]);
    assert_eq!(next(&peer, 6), SIX);
    assert!(!sender.connections().has_work());
}
