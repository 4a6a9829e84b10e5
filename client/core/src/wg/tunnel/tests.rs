use std::net::IpAddr;

use super::handshakes::{COOKIE_FOR, READY_FOR};
use super::*;
use crate::packet::samples;
use crate::wg::Proof;
use crate::wg::contract::permit;
use crate::wg::{CONTENTS_AT, HANDSHAKE_ROOM, OVERHEAD};

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

fn underlay() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1))
}

fn at(secs: u64) -> Mono {
    Mono::default().saturating_add(std::time::Duration::from_secs(secs))
}

fn initiate(tunnel: &mut NoiseTunnel, now: Mono) -> [u8; HANDSHAKE_ROOM] {
    let mut sent = [0; HANDSHAKE_ROOM];
    assert_eq!(tunnel.initiate(now, &mut sent), Ok(HANDSHAKE_ROOM));
    sent
}

fn answer(tunnel: &mut NoiseTunnel, initiation: &[u8], now: Mono) -> Vec<u8> {
    let (mut initiation, mut answer) = (initiation.to_vec(), vec![0; HANDSHAKE_ROOM]);
    let opened = tunnel.decapsulate(underlay(), &mut initiation, now, &mut answer);
    let Ok(Opened::Response { len }) = opened else {
        panic!("{opened:?}");
    };
    answer.truncate(len);
    answer
}

fn finish(tunnel: &mut NoiseTunnel, response: &[u8], now: Mono) -> Vec<u8> {
    let (mut response, mut keepalive) = (response.to_vec(), vec![0; HANDSHAKE_ROOM]);
    let opened = tunnel.decapsulate(underlay(), &mut response, now, &mut keepalive);
    let Ok(Opened::Established { len }) = opened else {
        panic!("{opened:?}");
    };
    keepalive.truncate(len);
    keepalive
}

/// A handshake that the second begins, up to where both may send.
fn shake([answers, begins]: &mut [NoiseTunnel; 2], now: Mono) {
    let response = answer(answers, &initiate(begins, now), now);
    let mut keepalive = finish(begins, &response, now);
    let opened = answers.decapsulate(underlay(), &mut keepalive, now, &mut []);
    assert_eq!(opened, Ok(Opened::Keepalive { first: true }));
}

fn inner() -> Vec<u8> {
    let addresses = [[100, 64, 0, 1], [100, 64, 0, 2]].map(IpAddr::from);
    samples::udp((addresses[0], 1), (addresses[1], 2), &[7; 13])
}

/// Seals a packet, and opens it on the other side.
fn pass(from: &mut NoiseTunnel, to: &mut NoiseTunnel, now: Mono) -> Result<Opened, TunnelError> {
    let mut sealed = [0; 256];
    let len = from.encapsulate(&permit(&inner()), &inner(), now, &mut sealed)?;
    let sealed = &mut sealed[..len];
    let opened = to.decapsulate(underlay(), sealed, now, &mut [])?;
    assert_eq!(sealed[CONTENTS_AT..][..inner().len()], inner());
    Ok(opened)
}

#[test]
fn what_was_made_ahead_is_sent_once_and_while_it_is_young() {
    let ready = |tunnel: &NoiseTunnel| {
        let live = tunnel.live.as_ref()?;
        live.handshakes.made_ahead()
    };
    let young = READY_FOR.as_secs() - 1;
    for (age, is_sent) in [(0, true), (young, true), (young + 1, false), (1_000, false)] {
        let [mut answers, mut begins] = pair();
        begins.prepare(at(0));
        let made = ready(&begins);
        assert!(made.is_some());
        begins.prepare(at(0));
        assert_eq!(ready(&begins), made);
        let short = begins.initiate(at(age), &mut [0; 8]);
        assert_eq!(short, Err(TunnelError::Room));
        let sent = initiate(&mut begins, at(age));
        assert_eq!(made.unwrap() == sent, is_sent, "{age}");
        assert_ne!(initiate(&mut begins, at(age)), sent, "once");
        let response = answer(&mut answers, &sent, at(age));
        finish(&mut begins, &response, at(age));
    }
    // One of the peer's in between is answered, and ends it.
    let mut pair = pair();
    pair[1].prepare(at(0));
    let made = ready(&pair[1]).unwrap();
    pair.reverse();
    shake(&mut pair, at(1));
    pair.reverse();
    assert_eq!(ready(&pair[1]), None);
    assert_ne!(initiate(&mut pair[1], at(1)), made);
    // There is nothing to be made ahead for who has had a handshake.
    pair[1].prepare(at(2));
    assert_eq!(ready(&pair[1]), None);
}

#[test]
fn an_answer_to_the_one_before_leaves_the_last_one_in_flight() {
    let now = at(0);
    let [answers, begins] = &mut pair();
    let responses = [(); 2].map(|()| {
        let initiation = initiate(begins, now);
        answer(answers, &initiation, now)
    });
    for response in &responses {
        assert!(begins.awaits(&responses[1]));
        finish(begins, response, now);
    }
    assert!(!begins.awaits(&responses[1]));
}

/// The library keeps an initiation of ours beside one of the peer's that it answers, and gives it up for the second.
#[test]
fn what_the_library_does_not_take_any_more_is_not_awaited() {
    let now = at(0);
    let [peers, ours] = &mut pair();
    let initiation = initiate(ours, now);
    let response = answer(peers, &initiation, now);
    for is_awaited in [true, false] {
        answer(ours, &initiate(peers, now), now);
        assert_eq!(ours.awaits(&response), is_awaited);
    }
    let mut response = response;
    let refused = ours.decapsulate(underlay(), &mut response, now, &mut [0; HANDSHAKE_ROOM]);
    assert_eq!(refused, Err(TunnelError::Crypto));
}

/// Not by a rule of ours alone: the library could not answer with it, either.
#[test]
fn the_keys_of_what_was_not_answered_are_gone() {
    for (secs, are_there) in [(89, true), (90, false)] {
        for sent in [1, 2] {
            let [answers, begins] = &mut pair();
            let responses: Vec<_> = (0..sent)
                .map(|_| answer(answers, &initiate(begins, at(0)), at(0)))
                .collect();
            begins.maintain(at(secs));
            let library = &mut begins.live.as_mut().unwrap().handshakes;
            for response in &responses {
                assert_eq!(library.opens(response), are_there, "{secs}");
            }
        }
    }
}

/// Each of the two by its own time.
#[test]
fn the_older_of_two_initiations_ends_sooner() {
    let two = || {
        let [mut answers, mut begins] = pair();
        let responses = [0, 80].map(|secs| {
            let initiation = initiate(&mut begins, at(secs));
            answer(&mut answers, &initiation, at(secs))
        });
        assert_eq!(begins.expires(), Some(at(90)));
        (begins, responses)
    };
    let takes = |begins: &mut NoiseTunnel, response: &[u8], secs| {
        let mut response = response.to_vec();
        let opened = begins.decapsulate(
            underlay(),
            &mut response,
            at(secs),
            &mut [0; HANDSHAKE_ROOM],
        );
        opened.is_ok()
    };
    for (number, secs, is_taken) in [
        (0, 89, true),
        (0, 90, false),
        (1, 169, true),
        (1, 170, false),
    ] {
        for is_maintained in [false, true] {
            let (mut begins, responses) = two();
            if is_maintained {
                begins.maintain(at(secs));
            }
            assert_eq!(takes(&mut begins, &responses[number], secs), is_taken);
        }
    }
    let (mut begins, [first, second]) = two();
    begins.maintain(at(90));
    assert_eq!(begins.expires(), Some(at(170)));
    assert!(begins.awaits(&second));
    let library = &mut begins.live.as_mut().unwrap().handshakes;
    assert!(!library.opens(&first), "its key is gone");
    assert!(takes(&mut begins, &second, 100));
}

#[test]
fn what_ends_first_is_what_is_looked_after_next() {
    let [mut answers, mut begins] = pair();
    let response = answer(&mut answers, &initiate(&mut begins, at(0)), at(0));
    finish(&mut begins, &response, at(0));
    assert_eq!(begins.expires(), Some(at(180)));
    initiate(&mut begins, at(10));
    assert_eq!(begins.expires(), Some(at(100)));
    begins.maintain(at(100));
    assert_eq!(begins.expires(), Some(at(180)));
    initiate(&mut begins, at(120));
    assert_eq!(begins.expires(), Some(at(180)));
}

/// Either of the two that are on their way is gone on with, whoever has sent it first.
#[test]
fn each_of_the_last_two_initiations_may_be_confirmed() {
    for number in 0..2 {
        let now = at(0);
        let [answers, begins] = &mut pair();
        let responses = [(); 2].map(|()| {
            let initiation = initiate(begins, now);
            answer(answers, &initiation, now)
        });
        finish(begins, &responses[number], now);
        let opened = pass(begins, answers, now);
        assert!(
            matches!(opened, Ok(Opened::Packet { first: true, .. })),
            "{opened:?}"
        );
        assert!(pass(answers, begins, now).is_ok());
    }
}

#[test]
fn handshakes_at_once_leave_both_with_a_session() {
    let now = at(0);
    let [one, other] = &mut pair();
    let initiations = [initiate(one, now), initiate(other, now)];
    let to_one = answer(other, &initiations[0], now);
    let to_other = answer(one, &initiations[1], now);
    assert!(one.awaits(&to_one) && other.awaits(&to_other));
    finish(one, &to_one, now);
    finish(other, &to_other, now);
    for _ in 0..3 {
        assert!(pass(one, other, now).is_ok());
        assert!(pass(other, one, now).is_ok());
    }
}

/// The library's own sessions are of zeros: it can neither seal for the peer, nor open what comes.
#[test]
fn the_library_has_no_keys() {
    let now = at(0);
    let mut pair = pair();
    shake(&mut pair, now);
    // Who answered has begun one, too, so that the library would send with that.
    pair.reverse();
    shake(&mut pair, now);
    for _ in 0..2 {
        pair.reverse();
        let [receives, sends] = &mut pair;
        let mut sealed = [0; 256];
        let len = sends.encapsulate(&permit(&inner()), &inner(), now, &mut sealed);
        let sealed = &mut sealed[..len.unwrap()];
        let library = &mut receives.live.as_mut().unwrap().handshakes;
        assert!(!library.opens(sealed));
        // Positive control: the session's own keys do open it.
        let opened = receives.decapsulate(underlay(), sealed, now, &mut []);
        assert!(opened.is_ok(), "{opened:?}");
        let by_library = sends.live.as_mut().unwrap().handshakes.seals(&inner());
        assert_eq!(by_library.len(), inner().len() + OVERHEAD);
        assert!(by_library[CONTENTS_AT..].iter().all(|byte| *byte == 0));
    }
}

/// Whoever is asked to prove where it is does, for as long as the peer takes that; then it shows no more that it is the same.
#[test]
fn a_cookie_is_used_while_it_is_good() {
    let proof = |message: &[u8]| message[message.len() - 16..].to_vec();
    let none = vec![0; 16];
    let [answers, begins] = &mut pair();
    let gate = NoiseTunnels.gate(&WgSecret::from_bytes([1; 32]));
    let first = initiate(begins, at(0));
    assert_eq!(proof(&first), none);
    let mut cookie = [0; HANDSHAKE_ROOM];
    let Proof::Asked { len } = gate.prove(underlay(), &first, &mut cookie) else {
        panic!("no cookie");
    };
    let mut forged = cookie;
    forged[40] ^= 1;
    let mut out = [0; HANDSHAKE_ROOM];
    let opened = begins.decapsulate(underlay(), &mut forged[..len], at(5), &mut out);
    assert_eq!(opened, Err(TunnelError::Crypto));
    assert_eq!(proof(&initiate(begins, at(5))), none);
    let last = initiate(begins, at(5));
    let Proof::Asked { len } = gate.prove(underlay(), &last, &mut cookie) else {
        panic!("no cookie");
    };
    let opened = begins.decapsulate(underlay(), &mut cookie[..len], at(5), &mut out);
    assert_eq!(opened, Ok(Opened::Cookie));
    let good = COOKIE_FOR.as_secs();
    for (secs, is_used) in [(5, true), (4 + good, true), (5 + good, false), (900, false)] {
        let message = initiate(begins, at(secs));
        assert_eq!(proof(&message) != none, is_used, "{secs}");
        let is_proved = gate.prove(underlay(), &message, &mut out) == Proof::Given;
        assert_eq!(is_proved, is_used, "{secs}");
        // A response of ours is the peer's to ask for a proof of, too.
        let response = answer(begins, &initiate(answers, at(secs)), at(secs));
        assert_eq!(proof(&response) != none, is_used, "{secs}");
        // And is good without.
        finish(answers, &response, at(secs));
    }
    // Another one is as good, for as long. One that comes again, or late, is the peer's no more.
    for (sent, after, is_taken) in [(1_000, 0, true), (2_000, 89, true), (3_000, 90, false)] {
        let sent = at(sent);
        let message = initiate(begins, sent);
        let Proof::Asked { len } = gate.prove(underlay(), &message, &mut cookie) else {
            panic!("no cookie");
        };
        let comes = sent.saturating_add(std::time::Duration::from_secs(after));
        for is_first in [true, false] {
            let mut cookie = cookie;
            let opened = begins.decapsulate(underlay(), &mut cookie[..len], comes, &mut out);
            assert_eq!(opened.is_ok(), is_taken && is_first, "{opened:?}");
        }
        let next = comes.saturating_add(COOKIE_FOR - std::time::Duration::from_secs(1));
        assert_eq!(proof(&initiate(begins, next)) != none, is_taken);
        let next = comes.saturating_add(COOKIE_FOR);
        assert_eq!(proof(&initiate(begins, next)), none);
    }
}

#[test]
fn an_initiation_that_fails_leaves_nothing() {
    let [answers, begins] = &mut pair();
    let initiation = initiate(begins, at(0));
    let mut forged = initiation;
    forged[100] ^= 1;
    let refused = answers.decapsulate(underlay(), &mut forged, at(0), &mut [0; HANDSHAKE_ROOM]);
    assert_eq!(refused, Err(TunnelError::Crypto));
    assert!(answers.live.is_none());
    answer(answers, &initiation, at(0));
    assert!(answers.live.is_some(), "control");
}

#[test]
fn erased_keys_are_not_held_anywhere() {
    let now = at(0);
    let mut pair = pair();
    shake(&mut pair, now);
    let [answers, begins] = &mut pair;
    answers.erase();
    assert_eq!(pass(begins, answers, now), Err(TunnelError::NoSession));
    begins.erase();
    assert_eq!(pass(begins, answers, now), Err(TunnelError::NoSession));
    shake(&mut pair, now);
    let [answers, begins] = &mut pair;
    assert!(pass(begins, answers, now).is_ok(), "control");
}

#[test]
fn the_handshake_ahead_of_the_first_one_works() {
    let mut buffers = [[0; WARM_UP_ROOM]; 2];
    assert_eq!(rehearse(NoiseTunnels, &mut buffers), Some(()));
}
