//! What every [`Tunnel`](super::Tunnel) must do, as a test-suite: run on the real tunnel here, and on
//! the fake one of the simulation there. Panics where a promise is broken. Not for the product.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test-suite that two crates run"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::Mono;

use super::replay::WINDOW;
use super::{
    ANSWER_WITHIN, CONTENTS_AT, HANDSHAKE_ROOM, OVERHEAD, OVERLAY_MTU, Opened, Tunnel, TunnelError,
    TunnelFactory,
};
use crate::datapath::{Direction, RuleSpec};
use crate::filter::{FilterState, FlowBudget, PeerFilter, Permit};
use crate::keyed::HashKey;
use crate::packet::{IpPacket, samples};

const A_INDEX: u32 = 0x00a1_b2c3;
const B_INDEX: u32 = 0x0012_3456;

/// Runs every check on the tunnels that `factory` makes.
pub fn run(factory: &dyn TunnelFactory) {
    keys_are_refused(factory);
    nothing_is_sealed_without_a_session(factory);
    a_handshake_carries_data_both_ways(factory);
    every_message_that_is_sealed_counts(factory);
    the_responder_waits_for_the_initiator(factory);
    replays_and_forgeries_are_refused(factory);
    late_messages_are_opened_once(factory);
    what_is_refused_is_not_decrypted(factory);
    what_nobody_confirms_takes_no_place(factory);
    age_is_looked_at_on_every_message(factory);
    erased_sessions_are_gone(factory);
    contents_are_padded_within_the_mtu(factory);
    a_late_message_does_not_bring_an_old_session_back(factory);
    the_gate_tells_whose_it_is(factory);
    an_answer_is_awaited_until_it_comes(factory);
    an_answer_comes_in_time_or_never(factory);
    what_is_made_ahead_works_whenever_it_is_sent(factory);
    short_buffers_are_refused(factory);
}

/// A permit for tests, by the front door: a filter that allows everything judges `packet`.
pub fn permit(packet: &[u8]) -> Permit {
    let rule = RuleSpec {
        rule: RuleId::new("everything").unwrap(),
        ports: vec![PortSpec::ANY],
        end: Mono(u64::MAX),
    };
    let filter = PeerFilter::new(&[], &[rule], 1, Generation::default());
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    let parsed = IpPacket::parse(packet).unwrap();
    filter
        .judge(&mut state, &parsed, Direction::Outbound, Mono(0))
        .unwrap()
}

struct Pair {
    a: Box<dyn Tunnel>,
    b: Box<dyn Tunnel>,
    now: Mono,
}

fn underlay() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 51820))
}

fn inner(len: usize) -> Vec<u8> {
    let (a, b) = ([100, 64, 0, 1], [100, 64, 0, 2]);
    samples::udp(
        (IpAddr::from(a), 1),
        (IpAddr::from(b), 2),
        &vec![7; len - 28],
    )
}

impl Pair {
    fn new(factory: &dyn TunnelFactory) -> Self {
        let now = Mono(1_000_000_000_000);
        let (a, b) = (WgSecret::from_bytes([1; 32]), WgSecret::from_bytes([2; 32]));
        Self {
            a: factory.create(&a, &b.public(), A_INDEX, now).unwrap(),
            b: factory.create(&b, &a.public(), B_INDEX, now).unwrap(),
            now,
        }
    }

    fn connected(factory: &dyn TunnelFactory) -> Self {
        let mut pair = Self::new(factory);
        pair.shake_hands();
        pair
    }

    /// A handshake begun by `a`, confirmed.
    fn shake_hands(&mut self) {
        let initiation = self.initiate();
        let response = self.respond(&initiation);
        let keepalive = self.establish(&response);
        let opened = open(&mut self.b, &keepalive, self.now);
        assert_eq!(opened.unwrap().0, Opened::Keepalive { first: true });
    }

    fn initiate(&mut self) -> Vec<u8> {
        let mut out = vec![0; 2048];
        let len = self.a.initiate(self.now, &mut out).unwrap();
        assert_eq!(index(&out[4..]), A_INDEX);
        out.truncate(len);
        out
    }

    fn respond(&mut self, initiation: &[u8]) -> Vec<u8> {
        let (opened, out) = open(&mut self.b, initiation, self.now).unwrap();
        let Opened::Response { len } = opened else {
            panic!("{opened:?} for an initiation");
        };
        assert_eq!(index(&out[4..]), B_INDEX);
        assert_eq!(index(&out[8..]), A_INDEX);
        out[..len].to_vec()
    }

    fn establish(&mut self, response: &[u8]) -> Vec<u8> {
        let (opened, out) = open(&mut self.a, response, self.now).unwrap();
        let Opened::Established { len } = opened else {
            panic!("{opened:?} for a response");
        };
        out[..len].to_vec()
    }

    fn pass(&mut self, after: Duration) {
        self.now = self.now.saturating_add(after);
    }
}

fn index(field: &[u8]) -> u32 {
    u32::from_le_bytes(field[..4].try_into().unwrap()) >> 8
}

fn seal(tunnel: &mut Box<dyn Tunnel>, packet: &[u8], now: Mono) -> Result<Vec<u8>, TunnelError> {
    let mut out = vec![0; packet.len() + 15 + OVERHEAD + HANDSHAKE_ROOM];
    let len = tunnel.encapsulate(&permit(packet), packet, now, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// Opens a datagram, and returns what there was in it, or what there is to be sent.
fn open(
    tunnel: &mut Box<dyn Tunnel>,
    datagram: &[u8],
    now: Mono,
) -> Result<(Opened, Vec<u8>), TunnelError> {
    let mut datagram = datagram.to_vec();
    let mut out = vec![0; datagram.len() + HANDSHAKE_ROOM];
    let opened = tunnel.decapsulate(underlay(), &mut datagram, now, &mut out)?;
    if let Opened::Packet { len, .. } = opened {
        out = datagram[CONTENTS_AT..CONTENTS_AT + len].to_vec();
    }
    Ok((opened, out))
}

/// Opens data and returns the packet.
fn packet(
    tunnel: &mut Box<dyn Tunnel>,
    datagram: &[u8],
    now: Mono,
) -> Result<Vec<u8>, TunnelError> {
    let (opened, contents) = open(tunnel, datagram, now)?;
    let Opened::Packet { .. } = opened else {
        panic!("{opened:?} for data");
    };
    let len = IpPacket::parse(&contents).unwrap().len;
    Ok(contents[..len].to_vec())
}

fn keys_are_refused(factory: &dyn TunnelFactory) {
    let now = Pair::new(factory).now;
    let secret = WgSecret::from_bytes([3; 32]);
    for remote in [secret.public(), WgPublicKey([0; 32])] {
        let refused = factory.create(&secret, &remote, 1, now).map(|_| ());
        assert_eq!(refused, Err(TunnelError::Key));
    }
}

fn nothing_is_sealed_without_a_session(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let now = pair.now;
    assert_eq!(pair.a.session(now), None);
    assert_eq!(
        seal(&mut pair.a, &inner(100), now),
        Err(TunnelError::NoSession)
    );
    let mut out = [0; HANDSHAKE_ROOM];
    assert_eq!(pair.a.keepalive(now, &mut out), Err(TunnelError::NoSession));
    // And nothing was kept: what comes out after the handshake is what goes in then.
    pair.shake_hands();
    let sealed = seal(&mut pair.a, &inner(80), now).unwrap();
    assert_eq!(packet(&mut pair.b, &sealed, now), Ok(inner(80)));
}

fn a_handshake_carries_data_both_ways(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let now = pair.now;
    let (a, b) = (pair.a.session(now).unwrap(), pair.b.session(now).unwrap());
    assert!(a.is_initiator && !b.is_initiator);
    assert_eq!(a.established, now);
    for len in [28, 100, 1420] {
        let there = seal(&mut pair.a, &inner(len), now).unwrap();
        assert_eq!(index(&there[4..]), B_INDEX);
        assert_eq!(packet(&mut pair.b, &there, now), Ok(inner(len)));
        let back = seal(&mut pair.b, &inner(len), now).unwrap();
        assert_eq!(packet(&mut pair.a, &back, now), Ok(inner(len)));
    }
    let mut out = [0; HANDSHAKE_ROOM];
    let len = pair.a.keepalive(now, &mut out).unwrap();
    let opened = open(&mut pair.b, &out[..len], now).unwrap().0;
    assert_eq!(opened, Opened::Keepalive { first: false });
    assert!(pair.a.session(now).unwrap().sent >= 4);
}

/// Whoever has sealed something can tell it by the count, at once.
fn every_message_that_is_sealed_counts(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let now = pair.now;
    let initiation = pair.initiate();
    let response = pair.respond(&initiation);
    pair.establish(&response);
    let sent = |pair: &Pair| pair.a.session(now).unwrap().sent;
    let first = sent(&pair);
    seal(&mut pair.a, &inner(60), now).unwrap();
    assert_eq!(sent(&pair), first + 1);
    let mut out = [0; HANDSHAKE_ROOM];
    pair.a.keepalive(now, &mut out).unwrap();
    assert_eq!(sent(&pair), first + 2);
    let short = pair.a.keepalive(now, &mut [0; 8]);
    assert_eq!(short, Err(TunnelError::Room));
    assert_eq!(sent(&pair), first + 2);
}

fn the_responder_waits_for_the_initiator(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let now = pair.now;
    let initiation = pair.initiate();
    let unanswered = pair.now.saturating_add(ANSWER_WITHIN);
    assert_eq!(pair.a.expires(), Some(unanswered));
    assert_eq!(pair.b.expires(), None);
    let response = pair.respond(&initiation);
    assert!(pair.b.expires().is_some(), "to be erased, confirmed or not");
    assert_eq!(
        seal(&mut pair.b, &inner(60), now),
        Err(TunnelError::NoSession)
    );
    pair.establish(&response);
    let data = seal(&mut pair.a, &inner(60), now).unwrap();
    let (opened, _) = open(&mut pair.b, &data, now).unwrap();
    assert!(matches!(opened, Opened::Packet { first: true, .. }));
    assert!(seal(&mut pair.b, &inner(60), now).is_ok());
}

fn replays_and_forgeries_are_refused(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let now = pair.now;
    let initiation = pair.initiate();
    let response = pair.respond(&initiation);
    let mut forged = response.clone();
    forged[20] ^= 1;
    assert!(open(&mut pair.a, &forged, now).is_err());
    let keepalive = pair.establish(&response);
    assert!(open(&mut pair.b, &keepalive, now).is_ok());
    assert!(open(&mut pair.a, &response, now).is_err(), "response again");
    assert!(
        open(&mut pair.b, &initiation, now).is_err(),
        "initiation again"
    );
    assert!(
        open(&mut pair.b, &keepalive, now).is_err(),
        "keepalive again"
    );

    let data = seal(&mut pair.a, &inner(60), now).unwrap();
    let mut forged = data.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(open(&mut pair.b, &forged, now), Err(TunnelError::Crypto));
    let mut elsewhere = data.clone();
    elsewhere[4] ^= 0x40;
    assert!(open(&mut pair.b, &elsewhere, now).is_err(), "other index");
    assert_eq!(packet(&mut pair.b, &data, now), Ok(inner(60)), "control");
    assert_eq!(open(&mut pair.b, &data, now), Err(TunnelError::Crypto));
    for junk in [&[][..], &[4, 0, 0, 0], &[9; 200]] {
        assert_eq!(open(&mut pair.b, junk, now), Err(TunnelError::Junk));
    }
    let mut last_counter = data;
    last_counter[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&mut pair.b, &last_counter, now).is_err());
}

/// As far behind the newest one as the window goes, on the session in use and on the one before.
fn late_messages_are_opened_once(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let now = pair.now;
    let sealed: Vec<_> = (0..WINDOW + 80)
        .map(|_| seal(&mut pair.a, &inner(28), now).unwrap())
        .collect();
    let newest = sealed.len() - 1;
    let oldest = newest - usize::try_from(WINDOW).unwrap();
    assert!(packet(&mut pair.b, &sealed[0], now).is_ok());
    assert!(packet(&mut pair.b, &sealed[newest], now).is_ok());
    for number in [newest, oldest - 1, 0] {
        let opened = packet(&mut pair.b, &sealed[number], now);
        assert_eq!(opened, Err(TunnelError::Crypto), "{number}");
    }
    for number in [oldest, oldest + 1, newest - 1, newest - 1_100] {
        let opened = packet(&mut pair.b, &sealed[number], now);
        assert_eq!(opened, Ok(inner(28)), "{number}");
        let again = packet(&mut pair.b, &sealed[number], now);
        assert_eq!(again, Err(TunnelError::Crypto), "{number}");
    }
    // So it is with the session before the one in use.
    pair.shake_hands();
    for number in [0, oldest, newest, newest - 1] {
        let again = packet(&mut pair.b, &sealed[number], now);
        assert_eq!(again, Err(TunnelError::Crypto), "{number}");
    }
    let late = &sealed[newest - 7];
    assert_eq!(packet(&mut pair.b, late, now), Ok(inner(28)), "control");
    assert_eq!(packet(&mut pair.b, late, now), Err(TunnelError::Crypto));
}

fn what_is_refused_is_not_decrypted(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let now = pair.now;
    let shown = |datagram: &[u8]| {
        let blocks = datagram[CONTENTS_AT..].chunks_exact(16);
        let secret = inner(400);
        let secrets = secret.chunks_exact(16);
        blocks
            .zip(secrets)
            .filter(|(one, other)| one == other)
            .count()
    };
    // To who answered the handshake, and to who began it: the first message of the session, and later ones.
    for _ in 0..3 {
        let data = seal(&mut pair.a, &inner(400), now).unwrap();
        for (at, flip) in [(data.len() - 1, 1), (CONTENTS_AT, 0x80), (8, 1), (4, 1)] {
            let mut forged = data.clone();
            forged[at] ^= flip;
            let opened = pair.b.decapsulate(underlay(), &mut forged, now, &mut []);
            assert!(opened.is_err(), "{opened:?} with byte {at} changed");
            // A fake that encrypts nothing shows it from the beginning.
            assert!(shown(&forged) <= shown(&data));
        }
        let mut opened = data.clone();
        let result = pair.b.decapsulate(underlay(), &mut opened, now, &mut []);
        assert!(matches!(result, Ok(Opened::Packet { .. })), "{result:?}");
        assert_eq!(shown(&opened), 400 / 16, "control");
        let mut again = data.clone();
        let result = pair.b.decapsulate(underlay(), &mut again, now, &mut []);
        assert_eq!(result, Err(TunnelError::Crypto));
        assert!(shown(&again) <= shown(&data));
        std::mem::swap(&mut pair.a, &mut pair.b);
    }
}

/// A tunnel that was made anew does not know which initiations were seen: it answers old ones. As many as there are, the
/// session that is in use goes on, in both directions.
fn what_nobody_confirms_takes_no_place(factory: &dyn TunnelFactory) {
    for begun_by_a in [true, false] {
        let mut pair = Pair::new(factory);
        let recorded: Vec<_> = (0..20).map(|_| pair.initiate()).collect();
        if begun_by_a {
            pair.shake_hands();
        } else {
            std::mem::swap(&mut pair.a, &mut pair.b);
            let mut out = vec![0; 2048];
            let len = pair.a.initiate(pair.now, &mut out).unwrap();
            let answered = open(&mut pair.b, &out[..len], pair.now).unwrap();
            let Opened::Response { len } = answered.0 else {
                panic!("{answered:?}");
            };
            let keepalive = pair.establish(&answered.1[..len]);
            assert!(open(&mut pair.b, &keepalive, pair.now).is_ok());
            std::mem::swap(&mut pair.a, &mut pair.b);
        }
        let mut answered = 0;
        for (number, old) in recorded.iter().enumerate() {
            if number % 3 == 0 {
                // One of its own goes unanswered.
                assert!(pair.b.initiate(pair.now, &mut [0; 2048]).is_ok());
            }
            answered += usize::from(open(&mut pair.b, old, pair.now).is_ok());
            let there = seal(&mut pair.a, &inner(60), pair.now).unwrap();
            assert_eq!(packet(&mut pair.b, &there, pair.now), Ok(inner(60)));
            let back = seal(&mut pair.b, &inner(60), pair.now).unwrap();
            assert_eq!(packet(&mut pair.a, &back, pair.now), Ok(inner(60)));
        }
        // With an attempt of its own under way, what is forged neither ends the session nor keeps the answer out.
        let mut own = vec![0; 2048];
        let len = pair.b.initiate(pair.now, &mut own).unwrap();
        for old in &recorded {
            let mut forged = old.clone();
            forged[100] ^= 1;
            assert!(open(&mut pair.b, &forged, pair.now).is_err());
        }
        let there = seal(&mut pair.a, &inner(60), pair.now).unwrap();
        assert_eq!(packet(&mut pair.b, &there, pair.now), Ok(inner(60)));
        let (opened, response) = open(&mut pair.a, &own[..len], pair.now).unwrap();
        let Opened::Response { len } = opened else {
            panic!("{opened:?}");
        };
        let established = open(&mut pair.b, &response[..len], pair.now);
        assert!(matches!(established, Ok((Opened::Established { .. }, _))));
        // Who knows which are old by a newer one answers none.
        assert_eq!(answered, if begun_by_a { 0 } else { recorded.len() });
        // And a handshake in earnest still works.
        pair.shake_hands();
        let there = seal(&mut pair.a, &inner(60), pair.now).unwrap();
        assert_eq!(packet(&mut pair.b, &there, pair.now), Ok(inner(60)));
    }
}

fn age_is_looked_at_on_every_message(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    pair.pass(Duration::from_secs(179));
    let late = seal(&mut pair.a, &inner(60), pair.now).unwrap();
    let too_late = seal(&mut pair.a, &inner(60), pair.now).unwrap();
    assert_eq!(packet(&mut pair.b, &late, pair.now), Ok(inner(60)));
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.a.session(pair.now), None);
    assert_eq!(
        seal(&mut pair.a, &inner(60), pair.now),
        Err(TunnelError::NoSession)
    );
    assert_eq!(
        open(&mut pair.b, &too_late, pair.now),
        Err(TunnelError::NoSession)
    );
    assert_eq!(pair.a.expires(), Some(pair.now));
    pair.a.maintain(pair.now);
    pair.b.maintain(pair.now);
    assert_eq!((pair.a.expires(), pair.b.expires()), (None, None));
    pair.shake_hands();
    assert!(seal(&mut pair.a, &inner(60), pair.now).is_ok());
}

fn erased_sessions_are_gone(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let now = pair.now;
    let initiation = pair.initiate();
    let data = seal(&mut pair.a, &inner(60), now).unwrap();
    let lifetime = Duration::from_secs(180);
    assert_eq!(pair.b.expires(), Some(now.saturating_add(lifetime)));
    pair.b.erase();
    pair.a.erase();
    assert_eq!((pair.a.expires(), pair.b.expires()), (None, None));
    assert!(open(&mut pair.b, &data, now).is_err());
    assert_eq!(
        seal(&mut pair.a, &inner(60), now),
        Err(TunnelError::NoSession)
    );
    // Handshakes go on, and what was seen of them before stays seen.
    pair.respond(&initiation);
    pair.b.erase();
    assert!(open(&mut pair.b, &initiation, now).is_err());
    pair.shake_hands();
}

fn contents_are_padded_within_the_mtu(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let now = pair.now;
    for (len, sealed_len) in [(28, 32), (32, 32), (33, 48), (1400, 1408)] {
        let sealed = seal(&mut pair.a, &inner(len), now).unwrap();
        assert_eq!(sealed.len(), sealed_len + OVERHEAD, "{len}");
        assert_eq!(packet(&mut pair.b, &sealed, now), Ok(inner(len)));
    }
    let sealed = seal(&mut pair.a, &inner(OVERLAY_MTU - 3), now).unwrap();
    assert_eq!(sealed.len(), OVERLAY_MTU + OVERHEAD);
    let sealed = seal(&mut pair.a, &inner(OVERLAY_MTU + 3), now).unwrap();
    assert_eq!(sealed.len(), OVERLAY_MTU + 3 + OVERHEAD);
}

fn a_late_message_does_not_bring_an_old_session_back(factory: &dyn TunnelFactory) {
    let mut pair = Pair::connected(factory);
    let late = seal(&mut pair.b, &inner(60), pair.now).unwrap();
    pair.pass(Duration::from_secs(120));
    pair.shake_hands();
    let renewed = pair.now;
    assert_eq!(packet(&mut pair.a, &late, pair.now), Ok(inner(60)));
    let data = seal(&mut pair.a, &inner(60), pair.now).unwrap();
    assert_eq!(pair.a.session(pair.now).unwrap().established, renewed);
    pair.pass(Duration::from_secs(100));
    assert_eq!(
        packet(&mut pair.b, &data, pair.now),
        Ok(inner(60)),
        "sealed with the new session, which lives"
    );
}

fn the_gate_tells_whose_it_is(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let initiation = pair.initiate();
    let gate = factory.gate(&WgSecret::from_bytes([2; 32]));
    assert!(gate.is_ours(&initiation));
    assert_eq!(
        gate.sender(&initiation),
        Some(WgSecret::from_bytes([1; 32]).public())
    );
    let other = factory.gate(&WgSecret::from_bytes([4; 32]));
    assert!(!other.is_ours(&initiation));
    let response = pair.respond(&initiation);
    let ours = factory.gate(&WgSecret::from_bytes([1; 32]));
    assert!(ours.is_ours(&response));
    assert!(!gate.is_ours(&response));
}

fn an_answer_is_awaited_until_it_comes(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let initiation = pair.initiate();
    let response = pair.respond(&initiation);
    assert!(pair.a.awaits(&response));
    let mut other = response.clone();
    if let Some(index) = other.get_mut(8) {
        *index ^= 1;
    }
    assert!(!pair.a.awaits(&other));
    assert!(!pair.b.awaits(&response), "it has begun nothing");
    pair.establish(&response);
    assert!(!pair.a.awaits(&response));
}

/// Whether or not anybody has looked after the tunnel meanwhile; an answer may be played by somebody who held it back.
fn an_answer_comes_in_time_or_never(factory: &dyn TunnelFactory) {
    let second = Duration::from_secs(1);
    for (after, is_taken) in [(ANSWER_WITHIN - second, true), (ANSWER_WITHIN, false)] {
        for is_maintained in [false, true] {
            for number in [1, 2, 3] {
                let mut pair = Pair::new(factory);
                // The last of so many is answered.
                let initiation = (0..number).map(|_| pair.initiate()).last().unwrap();
                let response = pair.respond(&initiation);
                pair.pass(after);
                if is_maintained {
                    pair.a.maintain(pair.now);
                    assert_eq!(pair.a.expires().is_some(), is_taken);
                    assert_eq!(pair.a.awaits(&response), is_taken);
                }
                let opened = open(&mut pair.a, &response, pair.now);
                assert_eq!(opened.is_ok(), is_taken, "{opened:?} after {after:?}");
                assert_eq!(pair.a.session(pair.now).is_some(), is_taken);
                pair.shake_hands();
            }
        }
    }
    // What was erased is not answered any more, either.
    let mut pair = Pair::new(factory);
    let initiation = pair.initiate();
    let response = pair.respond(&initiation);
    pair.a.erase();
    assert_eq!(pair.a.expires(), None);
    assert!(!pair.a.awaits(&response));
    assert!(open(&mut pair.a, &response, pair.now).is_err());
    pair.shake_hands();
}

fn what_is_made_ahead_works_whenever_it_is_sent(factory: &dyn TunnelFactory) {
    for after in [0, 1, 60, 80, 200, 3_600].map(Duration::from_secs) {
        let mut pair = Pair::new(factory);
        pair.a.prepare(pair.now);
        pair.b.prepare(pair.now);
        assert_eq!((pair.a.expires(), pair.a.session(pair.now)), (None, None));
        pair.pass(after);
        pair.shake_hands();
        let made = pair.a.session(pair.now).unwrap().established;
        assert_eq!(made, pair.now);
        for _ in 0..2 {
            let sealed = seal(&mut pair.a, &inner(60), pair.now).unwrap();
            assert_eq!(packet(&mut pair.b, &sealed, pair.now), Ok(inner(60)));
            // The next one is of today, too.
            pair.pass(Duration::from_secs(121));
            pair.shake_hands();
        }
        // What the one that answered had made is not what it begins with now.
        std::mem::swap(&mut pair.a, &mut pair.b);
        let mut out = vec![0; 2048];
        let len = pair.a.initiate(pair.now, &mut out).unwrap();
        let (answered, response) = open(&mut pair.b, &out[..len], pair.now).unwrap();
        let Opened::Response { len } = answered else {
            panic!("{answered:?} after {after:?}");
        };
        pair.establish(&response[..len]);
    }
}

fn short_buffers_are_refused(factory: &dyn TunnelFactory) {
    let mut pair = Pair::new(factory);
    let now = pair.now;
    let mut short = [0; HANDSHAKE_ROOM - 1];
    assert_eq!(pair.a.initiate(now, &mut short), Err(TunnelError::Room));
    let mut initiation = pair.initiate();
    let refused = pair
        .b
        .decapsulate(underlay(), &mut initiation, now, &mut short);
    assert_eq!(refused, Err(TunnelError::Room));
    let mut response = pair.respond(&initiation);
    let refused = pair
        .a
        .decapsulate(underlay(), &mut response, now, &mut short);
    assert_eq!(refused, Err(TunnelError::Room));
    pair.establish(&response);
    let bytes = inner(600);
    let sealed = pair
        .a
        .encapsulate(&permit(&bytes), &bytes, now, &mut [0; 600]);
    assert_eq!(sealed, Err(TunnelError::Room));
    // Data needs none.
    let mut data = seal(&mut pair.a, &bytes, now).unwrap();
    let opened = pair.b.decapsulate(underlay(), &mut data, now, &mut []);
    assert!(matches!(opened, Ok(Opened::Packet { .. })), "{opened:?}");
}
