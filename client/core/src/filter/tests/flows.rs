//! How long flows are kept, and which make room.

use super::*;
use crate::filter::tracked::Flow;
use crate::packet::FlowKey;

const IN: Direction = Direction::Inbound;
const OUT: Direction = Direction::Outbound;

/// This device and one peer, whom it may reach at tcp:22 and udp:53, and who may reach it at udp:1.
struct Pair {
    filter: PeerFilter,
    state: FilterState,
}

impl Pair {
    fn new() -> Self {
        Self::with(&FlowBudget::default())
    }

    fn with(budget: &FlowBudget) -> Self {
        let end = secs(1_000_000);
        Self {
            filter: filter(
                &[rule("udp:1", end)],
                &[rule("tcp:22", end), rule("udp:53", end)],
                1,
            ),
            state: FilterState::new(budget.clone(), HashKey::new([5; 16])),
        }
    }

    fn judge(&mut self, bytes: &[u8], direction: Direction, at: u64) -> Result<(), DropReason> {
        judge(&self.filter, &mut self.state, bytes, direction, secs(at))
    }

    /// A segment between our `port` and their 22.
    fn tcp(&mut self, direction: Direction, port: u16, flags: u8, at: u64) -> bool {
        let (us, them) = ((ours(false), port), (theirs(false), 22));
        let (from, to) = ends(direction, us, them);
        self.judge(&samples::tcp(from, to, flags), direction, at)
            .is_ok()
    }

    /// A datagram between our `port` and their 53.
    fn udp(&mut self, direction: Direction, port: u16, at: u64) -> bool {
        let (us, them) = ((ours(false), port), (theirs(false), 53));
        let (from, to) = ends(direction, us, them);
        self.judge(&samples::udp(from, to, b"x"), direction, at)
            .is_ok()
    }

    /// A datagram between their `port` and our 1.
    fn udp_of_theirs(&mut self, direction: Direction, port: u16, at: u64) -> bool {
        let (us, them) = ((ours(false), 1), (theirs(false), port));
        let (from, to) = ends(direction, us, them);
        self.judge(&samples::udp(from, to, b"x"), direction, at)
            .is_ok()
    }

    fn connect(&mut self, port: u16, at: u64) {
        assert!(self.tcp(OUT, port, TcpFlags::SYN, at));
        assert!(self.tcp(IN, port, TcpFlags::SYN | TcpFlags::ACK, at));
        assert!(self.tcp(OUT, port, TcpFlags::ACK, at));
    }

    fn connect_and_reset(&mut self, port: u16, at: u64) {
        self.connect(port, at);
        assert!(self.tcp(OUT, port, TcpFlags::RST, at));
    }
}

fn ends<T>(direction: Direction, us: T, them: T) -> (T, T) {
    match direction {
        Direction::Outbound => (us, them),
        Direction::Inbound => (them, us),
    }
}

/// `FLOWS_PER_PEER`, as ports count.
const FULL: u16 = 16_384;

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
    // Established: two hours and five minutes.
    assert!(at(out(TcpFlags::SYN), 100));
    assert!(at(back(TcpFlags::SYN | TcpFlags::ACK), 101));
    assert!(at(out(TcpFlags::ACK), 102));
    assert!(at(back(TcpFlags::ACK), 7_000));
    // Closed: two minutes, time enough for what was lost to be sent once more.
    assert!(at(out(TcpFlags::FIN | TcpFlags::ACK), 7_001));
    assert!(at(back(TcpFlags::FIN | TcpFlags::ACK), 7_002));
    assert!(at(back(TcpFlags::ACK), 7_003));
    assert!(at(back(TcpFlags::ACK), 7_030));
    assert!(!at(back(TcpFlags::ACK), 7_150));
    // The opener's FIN counts, also where it is the first that is seen of a connection.
    assert!(at(out(TcpFlags::FIN | TcpFlags::ACK), 7_200));
    assert!(at(back(TcpFlags::ACK), 7_201));
    assert!(at(back(TcpFlags::FIN | TcpFlags::ACK), 7_202));
    assert!(at(out(TcpFlags::ACK), 7_203));
    assert!(!at(back(TcpFlags::ACK), 7_323));
    // Reset: ten seconds.
    assert!(at(out(TcpFlags::SYN), 8_000));
    assert!(at(back(TcpFlags::RST | TcpFlags::ACK), 8_001));
    assert!(!at(back(TcpFlags::ACK), 8_011));
}

#[test]
fn a_connection_that_its_opener_does_not_confirm_is_not_one() {
    let answer = TcpFlags::SYN | TcpFlags::ACK;
    for (confirms, passes) in [
        (None, false),
        (Some(TcpFlags::SYN), false),
        (Some(TcpFlags::ACK), true),
    ] {
        let mut pair = Pair::new();
        assert!(pair.tcp(OUT, 1, TcpFlags::SYN, 0));
        assert!(pair.tcp(IN, 1, answer, 1));
        // The answer again, and what a server says first: it is a promise of one side.
        assert!(pair.tcp(IN, 1, answer, 2) && pair.tcp(IN, 1, TcpFlags::ACK, 3));
        if let Some(flags) = confirms {
            assert!(pair.tcp(OUT, 1, flags, 3));
        }
        assert_eq!(pair.tcp(IN, 1, TcpFlags::ACK, 33), passes, "{confirms:?}");
    }
    // What was said before the answer confirms nothing.
    let mut pair = Pair::new();
    assert!(pair.tcp(OUT, 1, TcpFlags::SYN, 0) && pair.tcp(OUT, 1, TcpFlags::ACK, 0));
    assert!(pair.tcp(IN, 1, answer, 1));
    assert!(!pair.tcp(IN, 1, answer, 31));
    // One that is older than the memory of it needs no SYN.
    let mut pair = Pair::new();
    assert!(pair.tcp(OUT, 1, TcpFlags::ACK, 0));
    assert!(pair.tcp(IN, 1, TcpFlags::ACK, 1));
    assert!(pair.tcp(IN, 1, TcpFlags::ACK, 7_000));
    // Both sides may be done by then.
    let mut pair = Pair::new();
    assert!(pair.tcp(OUT, 1, TcpFlags::SYN, 0));
    assert!(pair.tcp(IN, 1, answer, 1) && pair.tcp(IN, 1, TcpFlags::FIN | TcpFlags::ACK, 1));
    assert!(pair.tcp(OUT, 1, TcpFlags::FIN | TcpFlags::ACK, 2));
    assert!(pair.tcp(IN, 1, TcpFlags::ACK, 121));
    assert!(!pair.tcp(IN, 1, TcpFlags::ACK, 241), "closed, not open");
}

#[test]
fn an_open_connection_keeps_no_closed_one() {
    let mut pair = Pair::new();
    pair.connect(1, 1);
    for port in 2..102 {
        pair.connect_and_reset(port, 2);
    }
    assert!(pair.tcp(OUT, 200, TcpFlags::SYN, 2));
    assert!(pair.udp(OUT, 300, 2));
    for (end, before, after) in [(12, 103, 3), (32, 3, 2), (122, 2, 1), (7_501, 1, 0)] {
        assert_eq!(pair.state.expires(), Some(secs(end)));
        pair.state.prune(secs(end - 1));
        assert_eq!(pair.state.flows(), before, "not before {end}");
        pair.state.prune(secs(end));
        assert_eq!(pair.state.flows(), after, "at {end}");
    }
    assert_eq!(pair.state.expires(), None);
}

#[test]
fn what_is_forgotten_at_once_is_bounded() {
    let mut pair = Pair::new();
    for port in 0..300 {
        pair.connect_and_reset(port, 1);
        assert!(pair.udp(OUT, port, 1));
    }
    pair.state.prune(secs(121));
    assert_eq!(pair.state.flows(), 344);
    assert_eq!(pair.state.expires(), Some(secs(11)), "there is more");
    pair.state.prune(secs(121));
    pair.state.prune(secs(121));
    assert_eq!(pair.state.flows(), 0);
}

#[test]
fn short_flows_make_room_before_open_connections() {
    let mut pair = Pair::new();
    pair.connect(1, 1);
    pair.connect(2, 1);
    for port in 0..40_000 {
        assert!(pair.udp(OUT, port, 2));
        assert!(pair.tcp(OUT, port % 20_000 + 3, TcpFlags::SYN, 2));
    }
    assert_eq!(pair.state.flows(), FLOWS_PER_PEER);
    assert!(pair.tcp(IN, 1, TcpFlags::ACK, 3));
    assert!(pair.tcp(IN, 2, TcpFlags::ACK, 3));
    // Positive control: among the others, whose turn it is goes by their last use.
    assert!(!pair.udp(IN, 0, 3));
    assert!(!pair.tcp(IN, 3, TcpFlags::ACK, 3));
    assert!(pair.udp(IN, 39_999, 3));
    assert!(pair.tcp(IN, 20_002, TcpFlags::ACK, 3));
}

#[test]
fn closed_connections_make_room_first() {
    let mut pair = Pair::new();
    assert!(pair.udp(OUT, 50_000, 1));
    for port in 1..FULL {
        pair.connect_and_reset(port, 2);
    }
    assert_eq!(pair.state.flows(), FLOWS_PER_PEER);
    for port in 2..FULL {
        assert!(pair.udp(OUT, port, 3));
    }
    assert!(pair.udp(IN, 50_000, 4), "older than any closed one");
    assert!(
        pair.tcp(IN, FULL - 1, TcpFlags::ACK, 4),
        "the newest is left"
    );
    assert!(!pair.tcp(IN, FULL - 2, TcpFlags::ACK, 4));
}

#[test]
fn open_connections_leave_room_for_what_begins() {
    let mut pair = Pair::new();
    for port in 0..FULL {
        pair.connect(port, 1);
    }
    // Begun together, and answered together.
    for port in 5_000..6_000 {
        assert!(pair.udp(OUT, port, 2));
    }
    for port in 20_000..21_000 {
        assert!(pair.tcp(OUT, port, TcpFlags::SYN, 2));
    }
    for port in 0..1_000 {
        assert!(pair.udp(IN, port + 5_000, 3), "{port}");
        assert!(pair.tcp(IN, port + 20_000, TcpFlags::SYN | TcpFlags::ACK, 3));
    }
    assert_eq!(pair.state.flows(), FLOWS_PER_PEER);
    // The open ones that were used least recently are gone, and only those.
    assert!(!pair.tcp(IN, 0, TcpFlags::ACK, 4));
    assert!(!pair.tcp(IN, 1_999, TcpFlags::ACK, 4));
    assert!(pair.tcp(IN, 2_000, TcpFlags::ACK, 4));
}

#[test]
fn the_budget_of_all_peers_is_kept_and_given_back() {
    let budget = FlowBudget::new(10);
    let reserved = u16::try_from(FLOWS_RESERVED).unwrap();
    let mut hog = Pair::with(&budget);
    for port in 0..reserved + 50 {
        let judged = hog.udp_of_theirs(IN, port, 1);
        assert!(judged, "it makes room among its own");
    }
    assert_eq!(hog.state.flows(), FLOWS_RESERVED + 10);
    assert!(!hog.udp_of_theirs(OUT, 39, 1), "the first to make room");
    assert!(hog.udp_of_theirs(OUT, 40, 1));

    // Who has nothing to do with it has its reserve, and recycles its own beyond.
    let mut other = Pair::with(&budget);
    for port in 0..reserved {
        assert!(other.udp_of_theirs(IN, port, 1));
    }
    for port in 0..reserved {
        assert!(other.udp_of_theirs(OUT, port, 1), "each is still known");
    }
    assert!(other.udp_of_theirs(IN, reserved, 1));
    assert!(other.udp_of_theirs(OUT, reserved, 1));
    assert!(!other.udp_of_theirs(OUT, 0, 1));
    assert_eq!(other.state.flows(), FLOWS_RESERVED);
    assert_eq!(hog.state.flows(), FLOWS_RESERVED + 10);

    drop(hog);
    for port in 0..20 {
        assert!(other.udp_of_theirs(IN, 1_000 + port, 1));
    }
    assert_eq!(other.state.flows(), FLOWS_RESERVED + 10);
}

#[test]
fn a_reserve_is_no_part_of_the_budget() {
    let budget = FlowBudget::new(10);
    let fill = |pair: &mut Pair, flows: u16, at| {
        for port in 0..flows {
            assert!(pair.udp_of_theirs(IN, 1_000 + port, at));
        }
        pair.state.flows()
    };
    // Little of it used and left in each of the ways there are: nothing is given back that was not taken.
    let mut few = Pair::with(&budget);
    assert_eq!(fill(&mut few, 20, 1), 20);
    few.state.prune(secs(500));
    assert_eq!(few.state.flows(), 0);
    assert_eq!(fill(&mut few, 20, 501), 20);
    few.state.clear();
    assert_eq!(fill(&mut few, 20, 501), 20);
    drop(few);
    // More than the reserve: what was taken comes back, in each of the ways.
    for way in 0..4 {
        let mut many = Pair::with(&budget);
        assert_eq!(fill(&mut many, 400, 1), FLOWS_RESERVED + 10, "{way}");
        match way {
            0 => drop(many),
            1 => many.state.clear(),
            2 => {
                for _ in 0..2 {
                    many.state.prune(secs(500));
                }
            }
            _ => {
                for port in 0..400 {
                    // Idle for too long, which its own packet finds out.
                    assert!(!many.udp_of_theirs(OUT, 1_000 + port, 500));
                }
            }
        }
    }
    let mut last = Pair::with(&budget);
    assert_eq!(fill(&mut last, 400, 501), FLOWS_RESERVED + 10);
}

#[test]
fn keepalives_of_either_side_find_their_connection() {
    // Linux begins after two hours, whoever of the two has been asked to.
    for direction in [IN, OUT] {
        let mut pair = Pair::new();
        pair.connect(1, 0);
        assert!(pair.tcp(direction, 1, TcpFlags::ACK, 7_200));
        assert!(pair.tcp(direction, 1, TcpFlags::ACK, 7_200 + 7_499));
        // No connection is kept for ever.
        assert!(!pair.tcp(IN, 1, TcpFlags::ACK, 7_200 + 7_499 + 7_500));
    }
}

#[test]
fn the_other_side_alone_does_not_keep_a_flow_open() {
    let mut pair = Pair::new();
    assert!(pair.udp(OUT, 9, 1));
    for at in 1..601 {
        assert_eq!(pair.udp(IN, 9, at), at < 600, "at {at}");
        let expires = (at < 600).then_some(secs((at + 120).min(600)));
        assert_eq!(pair.state.expires(), expires, "at {at}");
    }
    // As seldom as keeps it, the same.
    assert!(pair.udp(OUT, 9, 1_001));
    let passes = (0..20).filter(|n| pair.udp(IN, 9, 1_002 + n * 119));
    assert_eq!(passes.max(), Some(5), "at 597 s, not at 716");
    // Nor do replies to echo.
    let (us, them) = (ours(false), theirs(false));
    pair.filter = filter(&[], &[rule("icmp", secs(1_000_000))], 2);
    assert_eq!(
        pair.judge(&samples::echo(us, them, 7, true), OUT, 5_000),
        Ok(())
    );
    for at in 5_000..5_600 {
        let reply = samples::echo(them, us, 7, false);
        let is_kept = pair.judge(&reply, IN, at).is_ok();
        assert_eq!(is_kept, at < 5_509, "at {at}");
    }
}

#[test]
fn a_stream_one_way_is_kept_with_few_packets_the_other_way() {
    let mut pair = Pair::new();
    for at in 1..7_200 {
        if at % 470 == 1 {
            assert!(pair.udp(OUT, 9, at));
        }
        assert!(pair.udp(IN, 9, at), "at {at}");
    }
    // The opener's own packets keep it, with none the other way.
    for n in 0..100 {
        assert!(pair.udp_of_theirs(IN, 9, 1 + n * 119));
    }
    assert!(pair.udp_of_theirs(OUT, 9, 1 + 99 * 119));
}

#[test]
fn a_flow_takes_what_its_bounds_are_reckoned_with() {
    assert_eq!((size_of::<FlowKey>(), size_of::<Flow>()), (40, 96));
}
