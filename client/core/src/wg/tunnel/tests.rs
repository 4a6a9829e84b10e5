use std::net::IpAddr;

use gatereeve_cipher::Key;

use super::*;
use crate::packet::samples;
use crate::wg::CONTENTS_AT;
use crate::wg::contract::permit;
use crate::wg::ledger::ReceiverKey;

/// Two tunnels, of which the first belongs to who answers.
fn pair() -> [NoiseTunnel; 2] {
    let [answers, begins] = [1, 2].map(|byte| WgSecret::from_bytes([byte; 32]));
    let make = |ours: &WgSecret, theirs: &WgSecret, index| NoiseTunnel {
        local: ours.clone(),
        remote: theirs.public(),
        index,
        live: None,
    };
    [make(&answers, &begins, 1), make(&begins, &answers, 2)]
}

/// A handshake that the second begins, up to where both may send.
fn shake([answers, begins]: &mut [NoiseTunnel; 2], now: Now) {
    let from = SocketAddr::from(([192, 0, 2, 1], 1));
    let (mut sent, mut answer) = ([0; 256], [0; 256]);
    let len = begins.initiate(now, &mut sent).unwrap();
    let opened = answers.decapsulate(from, &mut sent[..len], now, &mut answer);
    let Ok(Opened::Response { len }) = opened else {
        panic!("{opened:?}");
    };
    let opened = begins.decapsulate(from, &mut answer[..len], now, &mut sent);
    let Ok(Opened::Established { len }) = opened else {
        panic!("{opened:?}");
    };
    let opened = answers.decapsulate(from, &mut sent[..len], now, &mut answer);
    assert_eq!(opened, Ok(Opened::Keepalive { first: true }));
}

#[test]
#[ignore = "takes over three minutes, for the library has a clock of its own"]
fn a_session_lasts_that_was_made_long_after_an_attempt_of_ours() {
    lasts([95, 95], |pair, now| {
        pair[0].initiate(now, &mut [0; 256]).unwrap();
    });
}

#[test]
#[ignore = "takes over three minutes, for the library has a clock of its own"]
fn a_session_lasts_that_was_made_with_an_initiation_made_long_before() {
    lasts([70, 120], |pair, now| pair[1].prepare(now));
}

/// A handshake so many seconds after `before`, and messages of that session, in both directions, so many later, which come
/// when there is a newer one.
fn lasts([first, second]: [u64; 2], before: impl FnOnce(&mut [NoiseTunnel; 2], Now)) {
    let at = |secs| Now::default().after(Duration::from_secs(secs));
    let pass = |secs| std::thread::sleep(Duration::from_secs(secs));
    let (mut tried, mut control) = (pair(), pair());
    before(&mut tried, at(0));
    pass(first);
    let now = at(first);
    let late = [&mut tried, &mut control].map(|pair| {
        shake(pair, now);
        [1, 0].map(|from| {
            let mut sealed = vec![0; 256];
            let len = pair[from].keepalive(now, &mut sealed).unwrap();
            sealed.truncate(len);
            sealed
        })
    });
    pass(second);
    let now = at(first + second);
    let mut opened = Vec::new();
    for (pair, late) in [&mut tried, &mut control].into_iter().zip(late) {
        shake(pair, now);
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        let [mut to_first, mut to_second] = late;
        opened.push([
            pair[0].decapsulate(from, &mut to_first, now, &mut [0; 256]),
            pair[1].decapsulate(from, &mut to_second, now, &mut [0; 256]),
        ]);
    }
    let all = [(); 2].map(|()| Ok(Opened::Keepalive { first: false }));
    assert_eq!(opened[1], all, "control");
    assert_eq!(opened[0], all);
}

#[test]
fn what_was_made_ahead_is_sent_once_and_while_it_is_young() {
    let at = |secs| Now::default().after(Duration::from_secs(secs));
    let ready = |pair: &[NoiseTunnel; 2]| pair[1].live.as_ref().and_then(|live| live.ready);
    let initiate = |pair: &mut [NoiseTunnel; 2], now| {
        let mut sent = [0; HANDSHAKE_ROOM];
        assert_eq!(pair[1].initiate(now, &mut sent), Ok(HANDSHAKE_ROOM));
        sent
    };
    let young = READY_FOR.as_secs() - 1;
    for (age, is_sent) in [(0, true), (young, true), (young + 1, false), (1_000, false)] {
        let mut pair = pair();
        pair[1].prepare(at(0));
        let made = ready(&pair).expect("an initiation");
        pair[1].prepare(at(0));
        assert_eq!(ready(&pair), Some(made));
        assert_eq!(
            pair[1].initiate(at(age), &mut [0; 8]),
            Err(TunnelError::Room)
        );
        assert_eq!(initiate(&mut pair, at(age)) == made, is_sent, "{age}");
        assert_ne!(initiate(&mut pair, at(age)), made, "once");
    }
    // One of the peer's in between is answered, and ends it.
    let mut pair = pair();
    pair[1].prepare(at(0));
    let made = ready(&pair).expect("an initiation");
    pair.reverse();
    shake(&mut pair, at(1));
    pair.reverse();
    assert_ne!(initiate(&mut pair, at(1)), made);
    // So does one that is made in its place, sent or not: where it is the session in use that would have to give way.
    let mut pair = self::pair();
    pair[1].prepare(at(0));
    let made = ready(&pair).expect("an initiation");
    pair.reverse();
    shake(&mut pair, at(1));
    pair.reverse();
    let from = SocketAddr::from(([192, 0, 2, 1], 1));
    for number in 0..8 {
        let mut theirs = [0; HANDSHAKE_ROOM];
        pair[0].initiate(at(2), &mut theirs).unwrap();
        theirs[100] ^= u8::from(number == 7);
        let opened = pair[1].decapsulate(from, &mut theirs, at(2), &mut [0; 256]);
        assert_eq!(opened.is_ok(), number < 7, "{opened:?}");
    }
    assert!(pair[1].live.as_ref().unwrap().attempt.is_some());
    assert_ne!(initiate(&mut pair, at(3)), made);
    // There is nothing to be made ahead for who has had a handshake.
    pair[1].prepare(at(2));
    assert_eq!(ready(&pair), None);
}

#[test]
fn the_library_gives_up_nothing_that_counts() {
    let at = |secs: u64| Mono(secs * 1_000_000_000);
    let attempt = |since, last| {
        let attempt = Attempt::new(&[0; 8], at(since));
        Some(attempt.repeated(&[0; 8], at(last)))
    };
    for has_session in [false, true] {
        assert!(may_set_time(None, has_session, at(500)));
        assert!(may_set_time(attempt(0, 0), has_session, at(5)));
        assert!(may_set_time(attempt(0, 80), has_session, at(85)));
        // Somebody may answer.
        assert!(!may_set_time(attempt(0, 89), has_session, at(91)));
        // Nobody will.
        for (last, now) in [(80, 86), (0, 300)] {
            let may = may_set_time(attempt(0, last), has_session, at(now));
            assert_eq!(may, !has_session);
        }
    }
}

/// When the library gives an attempt up goes by when that began, and not by when it was repeated.
#[test]
fn an_attempt_beside_a_session_keeps_its_beginning() {
    let at = |secs| Now::default().after(Duration::from_secs(secs));
    let [_, begins] = &mut pair();
    let mut out = [0; 256];
    begins.initiate(at(0), &mut out).unwrap();
    let begins = begins.live().unwrap();
    begins.ledger.add([0x200, 70], true, None, at(0).mono);
    for secs in [80, 86, 95, 120] {
        begins.initiate(at(secs), &mut out).unwrap();
        let attempt = begins.attempt.unwrap();
        assert_eq!((attempt.since, attempt.last), (at(0).mono, at(secs).mono));
        assert_eq!(attempt.index, index_at(&out, 4));
        let may = may_set_time(begins.attempt, true, at(secs + 1).mono);
        assert_eq!(may, secs < 85, "{secs}");
    }
}

/// Where the library has no room for an initiation it begins none, and replaces none that is waited for.
#[test]
fn setting_the_time_begins_nothing() {
    let now = Now::default();
    let [answers, begins] = &mut pair();
    let from = SocketAddr::from(([192, 0, 2, 1], 1));
    let (mut sent, mut answer) = ([0; 256], [0; 256]);
    let len = begins.initiate(now, &mut sent).unwrap();
    let live = begins.live().unwrap();
    for _ in 0..3 {
        let mut short = [0; HANDSHAKE_ROOM / 2];
        let refused = live.tunn.format_handshake_initiation(&mut short, true);
        let TunnResult::Err(WireGuardError::DestinationBufferTooSmall) = refused else {
            panic!("{refused:?}");
        };
        live.set_time(now.mono);
    }
    let opened = answers.decapsulate(from, &mut sent[..len], now, &mut answer);
    let Ok(Opened::Response { len }) = opened else {
        panic!("{opened:?}");
    };
    let opened = begins.decapsulate(from, &mut answer[..len], now, &mut sent);
    assert!(
        matches!(opened, Ok(Opened::Established { .. })),
        "{opened:?}"
    );
}

#[test]
fn an_answer_to_the_one_before_leaves_the_last_one_in_flight() {
    let now = Now::default();
    let [answers, begins] = &mut pair();
    let from = SocketAddr::from(([192, 0, 2, 1], 1));
    let mut responses = Vec::new();
    for _ in 0..2 {
        let (mut sent, mut answer) = ([0; 256], vec![0; 256]);
        let len = begins.initiate(now, &mut sent).unwrap();
        let opened = answers.decapsulate(from, &mut sent[..len], now, &mut answer);
        let Ok(Opened::Response { len }) = opened else {
            panic!("{opened:?}");
        };
        answer.truncate(len);
        responses.push(answer);
    }
    let last = responses[1].clone();
    for (number, response) in responses.iter_mut().enumerate() {
        assert!(begins.awaits(&last), "{number}");
        let opened = begins.decapsulate(from, response, now, &mut [0; 256]);
        assert!(
            matches!(opened, Ok(Opened::Established { .. })),
            "{opened:?}"
        );
    }
    assert!(!begins.awaits(&last));
}

#[test]
fn one_session_less_leaves_the_others() {
    let mut ledger = Ledger::default();
    let now = Mono(1);
    ledger.add([1, 70], true, None, now);
    ledger.add([2, 71], false, None, now);
    ledger.forget_current();
    assert!(ledger.sending(now).is_none());
    assert!(ledger.receiver(2, 0, now).is_some());
    assert!(ledger.has_live(now));
    assert!(ledger.opened(2, now));
    assert!(ledger.sending(now).is_some());
}

#[test]
fn the_handshake_ahead_of_the_first_one_works() {
    let mut buffers = [[0; WARM_UP_ROOM]; 2];
    assert_eq!(rehearse(NoiseTunnels, &mut buffers), Some(()));
}

/// Seals a packet of 40 bytes, and opens it on the other side.
fn pass(from: &mut NoiseTunnel, to: &mut NoiseTunnel, now: Now) -> Result<Opened, TunnelError> {
    let mut sealed = seal(from, now);
    open(to, &mut sealed, now)
}

fn inner() -> Vec<u8> {
    let addresses = [[100, 64, 0, 1], [100, 64, 0, 2]].map(IpAddr::from);
    samples::udp((addresses[0], 1), (addresses[1], 2), &[7; 12])
}

fn seal(from: &mut NoiseTunnel, now: Now) -> Vec<u8> {
    let mut sealed = vec![0; 256];
    let len = from.encapsulate(&permit(&inner()), &inner(), now, &mut sealed);
    sealed.truncate(len.unwrap());
    sealed
}

/// Opens a message, and if that works looks at what was in it.
fn open(to: &mut NoiseTunnel, sealed: &mut [u8], now: Now) -> Result<Opened, TunnelError> {
    let from = SocketAddr::from(([192, 0, 2, 1], 1));
    let opened = to.decapsulate(from, sealed, now, &mut [0; 256])?;
    let Opened::Packet { .. } = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(sealed[CONTENTS_AT..][..inner().len()], inner());
    Ok(opened)
}

/// Bytes of packets that the library has opened.
fn opened_by_library(tunnel: &NoiseTunnel) -> usize {
    let live = tunnel.live.as_ref().unwrap();
    live.tunn.stats().2
}

fn ledger(tunnel: &mut NoiseTunnel) -> &mut Ledger {
    &mut tunnel.live.as_mut().unwrap().ledger
}

/// Has another key, or none, in the place of what the session of `sealed` has.
fn set_key(tunnel: &mut NoiseTunnel, sealed: &[u8], key: ReceiverKey, now: Now) {
    let receiver = ledger(tunnel).receiver(index_at(sealed, 4), 0, now.mono);
    receiver.unwrap().key = key;
}

#[test]
fn the_library_opens_one_message_of_a_session() {
    let now = Now::default();
    let mut both = pair();
    let size = inner().len();
    for sessions in 1..=2 {
        shake(&mut both, now);
        let [answers, begins] = &mut both;
        for _ in 0..5 {
            assert!(pass(begins, answers, now).is_ok());
            assert!(pass(answers, begins, now).is_ok());
        }
        // To who answers, an empty message has come first, which confirms the session.
        let expected = [if sessions == 1 { 0 } else { size }, size];
        assert_eq!([0, 1].map(|at| opened_by_library(&both[at])), expected);
        both.reverse();
    }
}

#[test]
fn without_a_key_the_library_opens_all() {
    let now = Now::default();
    let mut both = pair();
    shake(&mut both, now);
    let [answers, begins] = &mut both;
    for number in 1..=5 {
        let mut sealed = seal(begins, now);
        set_key(answers, &sealed, ReceiverKey::Unknown, now);
        let again = &mut sealed.clone();
        assert!(open(answers, &mut sealed, now).is_ok());
        assert_eq!(open(answers, again, now), Err(TunnelError::Crypto));
        assert_eq!(opened_by_library(answers), number * inner().len());
    }
}

#[test]
fn a_key_that_is_not_the_sessions_is_found_out() {
    let now = Now::default();
    let mut both = pair();
    shake(&mut both, now);
    let [answers, begins] = &mut both;
    let mut sealed = seal(begins, now);
    let wrong = || Key::new(&[9; 32]);
    set_key(answers, &sealed, ReceiverKey::Supposed(wrong()), now);
    assert!(open(answers, &mut sealed, now).is_ok());
    assert!(pass(begins, answers, now).is_ok());
    assert_eq!(opened_by_library(answers), 2 * inner().len());
    // Positive control: without the trial it would open nothing.
    set_key(answers, &sealed, ReceiverKey::Known(wrong()), now);
    let refused = pass(begins, answers, now);
    assert_eq!(refused, Err(TunnelError::Crypto));
}

/// It keeps which one it sends with, and so do we.
#[test]
fn the_library_sees_what_changes_the_session_in_use() {
    let now = Now::default();
    let mut both = pair();
    shake(&mut both, now);
    let late = [(); 3].map(|()| seal(&mut both[1], now));
    shake(&mut both, now);
    let answers = &mut both[0];
    let [mut first, mut second, mut third] = late;
    assert!(open(answers, &mut first, now).is_ok());
    assert_eq!(opened_by_library(answers), 0, "control");
    ledger(answers).forget_current();
    assert!(open(answers, &mut second, now).is_ok());
    assert_eq!(opened_by_library(answers), inner().len());
    assert!(open(answers, &mut third, now).is_ok());
    assert_eq!(opened_by_library(answers), inner().len());
}

#[test]
fn what_one_of_the_two_has_opened_the_other_does_not_open_again() {
    let now = Now::default();
    let mut both = pair();
    shake(&mut both, now);
    let all = [(); 2].map(|()| seal(&mut both[1], now));
    let [answers, _] = &mut both;
    for sealed in &all {
        assert!(open(answers, &mut sealed.clone(), now).is_ok());
    }
    // All that come now go to the library, which has seen none of these.
    set_key(answers, &all[0], ReceiverKey::Unknown, now);
    for sealed in &all {
        let again = open(answers, &mut sealed.clone(), now);
        assert_eq!(again, Err(TunnelError::Crypto));
    }
    assert_eq!(opened_by_library(answers), 0);
    let [answers, begins] = &mut both;
    assert!(pass(begins, answers, now).is_ok(), "control");
    assert_eq!(opened_by_library(answers), inner().len());
}
