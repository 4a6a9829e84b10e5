//! How long flows are kept, and which make room.

use super::*;

#[test]
fn a_peer_is_held_to_its_number_of_flows() {
    let filter = filter(&[rule("*", secs(1000))], &[], 1);
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    for n in 0..20_000_u32 {
        let (a, b) = (theirs(false), ours(false));
        let port = u16::try_from(n % 60_000).unwrap();
        let packet = samples::udp((a, port), (b, 1), b"x");
        assert_eq!(
            judge(&filter, &mut state, &packet, Direction::Inbound, secs(1)),
            Ok(())
        );
    }
    assert_eq!(state.flows(), FLOWS_PER_PEER);
    state.prune(secs(500));
    assert!(
        state.flows() < FLOWS_PER_PEER,
        "idle ones are pruned in steps"
    );
}

#[test]
fn it_says_when_there_is_something_to_forget() {
    let filter = filter(&[rule("*", secs(1000))], &[], 1);
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    assert_eq!(state.expires(), None);
    let (a, b) = (theirs(false), ours(false));
    let first = samples::fragment((a, b), 17, 9, 0, true, &[0, 1, 0, 2, 0, 40, 0, 0]);
    let tcp = samples::tcp((a, 5), (b, 6), 0x02);
    for packet in [&tcp, &first] {
        let judged = judge(&filter, &mut state, packet, Direction::Inbound, secs(1));
        assert_eq!(judged, Ok(()));
    }
    // The verdict on the fragments, the connection half open, the datagram's flow.
    for end in [16, 31, 121] {
        assert_eq!(state.expires(), Some(secs(end)));
        state.prune(secs(end - 1));
        assert_eq!(state.expires(), Some(secs(end)), "not before");
        state.prune(secs(end));
    }
    assert_eq!((state.expires(), state.flows()), (None, 0));
}

#[test]
fn the_budget_of_all_peers_is_kept_and_given_back() {
    let filter = filter(&[rule("udp:1", secs(1000))], &[], 1);
    let budget = FlowBudget::new(10);
    let packet = |port| samples::udp((theirs(false), port), (ours(false), 1), b"x");
    let mut hog = FilterState::new(budget.clone(), HashKey::new([5; 16]));
    for port in 0..50 {
        let judged = judge(
            &filter,
            &mut hog,
            &packet(port),
            Direction::Inbound,
            secs(1),
        );
        assert_eq!(judged, Ok(()), "it makes room among its own");
    }
    assert_eq!(hog.flows(), 10);
    let mut other = FilterState::new(budget, HashKey::new([5; 16]));
    let judged = judge(&filter, &mut other, &packet(1), Direction::Inbound, secs(1));
    assert_eq!(judged, Err(DropReason::FlowTableFull));
    drop(hog);
    let judged = judge(&filter, &mut other, &packet(1), Direction::Inbound, secs(1));
    assert_eq!(judged, Ok(()));
}

#[test]
fn tcp_flows_end_when_they_are_closed() {
    let (a, b) = ((ours(false), 1000), (theirs(false), 22));
    let filter = filter(&[], &[rule("tcp:22", secs(1_000_000))], 1);
    let out = |flags| (samples::tcp(a, b, flags), Direction::Outbound);
    let back = |flags| (samples::tcp(b, a, flags), Direction::Inbound);
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    let mut at = |(bytes, direction): (Vec<u8>, Direction), now: u64| {
        judge(&filter, &mut state, &bytes, direction, secs(now)).is_ok()
    };
    // Half open: 30 seconds.
    assert!(at(out(TcpFlags::SYN), 0));
    assert!(!at(back(TcpFlags::SYN | TcpFlags::ACK), 30));
    // Established: two hours.
    assert!(at(out(TcpFlags::SYN), 100));
    assert!(at(back(TcpFlags::SYN | TcpFlags::ACK), 101));
    assert!(at(back(TcpFlags::ACK), 7_000));
    // Closed: ten seconds, time enough for the last ACKs.
    assert!(at(out(TcpFlags::FIN | TcpFlags::ACK), 7_001));
    assert!(at(back(TcpFlags::FIN | TcpFlags::ACK), 7_002));
    assert!(at(back(TcpFlags::ACK), 7_003));
    assert!(!at(back(TcpFlags::ACK), 7_013));
    // Reset.
    assert!(at(out(TcpFlags::SYN), 8_000));
    assert!(at(back(TcpFlags::RST | TcpFlags::ACK), 8_001));
    assert!(!at(back(TcpFlags::ACK), 8_011));
}
