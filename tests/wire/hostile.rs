//! Decoders under bytes that nobody meant well: no panic, no allocation out of proportion.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;

use gatereeve_shared::invite::Invite;
use gatereeve_shared::limits;
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate};
use gatereeve_shared::wire::controller::ControllerMessage;
use gatereeve_shared::wire::frame::{FrameHeader, HEADER_LEN, WireError};

use super::samples;

/// Counts what the current thread holds and the most it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[expect(
    unsafe_code,
    reason = "an allocator that counts is the only way to see what a decoder takes"
)]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` held at once.
fn peak_of(work: impl FnOnce()) -> isize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

/// What one frame of a client may make a controller allocate.
const CLIENT_PEAK: isize = 2 << 20;
/// What one frame of a controller may make a client allocate.
const CONTROLLER_PEAK: isize = 8 << 20;

fn decode_both(kind: u16, body: &[u8]) {
    let taken = peak_of(|| drop(ClientMessage::from_body(kind, body)));
    assert!(
        taken <= CLIENT_PEAK,
        "client kind {kind} took {taken} bytes for {}",
        body.len()
    );
    let taken = peak_of(|| drop(ControllerMessage::from_body(kind, body)));
    assert!(
        taken <= CONTROLLER_PEAK,
        "controller kind {kind} took {taken} bytes for {}",
        body.len()
    );
}

fn bodies() -> Vec<(u16, Vec<u8>)> {
    let client = samples::client()
        .into_iter()
        .map(|(_, m)| (m.kind(), m.to_frame().unwrap()));
    let controller = samples::controller()
        .into_iter()
        .map(|(_, m)| (m.kind(), m.to_frame().unwrap()));
    client
        .chain(controller)
        .map(|(kind, frame)| (kind, frame[HEADER_LEN..].to_vec()))
        .collect()
}

/// One change to a body.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
    Huge(prop::sample::Index, u64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (
            any::<prop::sample::Index>(),
            prop::collection::vec(any::<u8>(), 1..40)
        )
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        any::<prop::sample::Index>().prop_map(Mutation::Cut),
        (any::<prop::sample::Index>(), any::<u64>()).prop_map(|(at, n)| Mutation::Huge(at, n)),
    ]
}

fn mutate(body: &mut Vec<u8>, mutation: Mutation) {
    if body.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => {
            let at = at.index(body.len());
            body[at] = byte;
        }
        Mutation::Insert(at, bytes) => {
            let at = at.index(body.len());
            body.splice(at..at, bytes);
        }
        Mutation::Cut(at) => body.truncate(at.index(body.len())),
        // A length of nine bytes where a small one may have been.
        Mutation::Huge(at, n) => {
            let at = at.index(body.len());
            let bytes = [253].into_iter().chain(n.to_le_bytes());
            body.splice(at..=at, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn random_bodies_are_refused_or_read(
        kind in 0u16..14,
        body in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        decode_both(kind, &body);
    }

    #[test]
    fn mutated_bodies_are_refused_or_read(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let all = bodies();
        let (kind, mut body) = all[which.index(all.len())].clone();
        for mutation in mutations {
            mutate(&mut body, mutation);
        }
        decode_both(kind, &body);
    }

    #[test]
    fn headers_are_held_to_their_limit(header in any::<[u8; HEADER_LEN]>(), limit in 0usize..2_000_000) {
        if let Ok(parsed) = FrameHeader::parse(header, limit) {
            prop_assert!(parsed.length <= limit);
            prop_assert_eq!(header[0], 1);
        }
    }

    #[test]
    fn random_invites_are_refused(text in ".{0,200}") {
        prop_assert!(text.parse::<Invite>().is_err());
        let with_prefix = format!("gatereeve-invite-1.{text}");
        prop_assert!(with_prefix.parse::<Invite>().is_err());
    }
}

#[test]
fn every_truncation_is_refused() {
    for (name, message) in samples::client() {
        let frame = message.to_frame().unwrap();
        let body = &frame[HEADER_LEN..];
        assert_eq!(
            ClientMessage::from_body(message.kind(), body).as_ref(),
            Ok(&message)
        );
        for end in 0..body.len() {
            let result = ClientMessage::from_body(message.kind(), &body[..end]);
            assert!(
                matches!(result, Err(WireError::Body { .. })),
                "{name} cut at {end}: {result:?}"
            );
        }
    }
    for (name, message) in samples::controller() {
        let frame = message.to_frame().unwrap();
        let body = &frame[HEADER_LEN..];
        assert_eq!(
            ControllerMessage::from_body(message.kind(), body).as_ref(),
            Ok(&message)
        );
        for end in 0..body.len() {
            let result = ControllerMessage::from_body(message.kind(), &body[..end]);
            assert!(
                matches!(result, Err(WireError::Body { .. })),
                "{name} cut at {end}: {result:?}"
            );
        }
    }
}

#[test]
fn bytes_left_over_are_refused() {
    for (name, message) in samples::client() {
        let mut body = message.to_frame().unwrap()[HEADER_LEN..].to_vec();
        body.push(0);
        let result = ClientMessage::from_body(message.kind(), &body);
        assert!(
            matches!(result, Err(WireError::Body { .. })),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn the_worst_claims_take_what_is_allowed_and_no_more() {
    // The counter works: a large allocation shows.
    assert!(peak_of(|| drop(vec![1_u8; 1 << 20])) >= 1 << 20);
    for (kind, body) in bodies() {
        for at in 0..body.len() {
            for claim in [u64::from(u16::MAX), 1 << 20, 1 << 31, 1 << 59, u64::MAX] {
                let mut body = body.clone();
                body.splice(at..=at, [253].into_iter().chain(claim.to_le_bytes()));
                decode_both(kind, &body);
            }
        }
    }
    // Bodies of the full length with the cheapest elements there are.
    for filler in [0, 1, 3] {
        for kind in 1..12 {
            decode_both(kind, &vec![filler; limits::CLIENT_FRAME]);
            decode_both(kind, &vec![filler; limits::CONTROLLER_FRAME]);
        }
    }
}

#[test]
fn nothing_over_the_limit_is_sent_or_taken() {
    let address = "192.0.2.1:1".parse().unwrap();
    let message = |endpoints: usize| {
        ClientMessage::Endpoints(EndpointUpdate {
            listen_port: 1,
            endpoints: vec![address; endpoints],
        })
    };
    assert!(message(16).to_frame().is_ok());
    assert!(message(limits::CLIENT_FRAME).to_frame().is_err());
    let body = vec![0; limits::CLIENT_FRAME + 1];
    assert!(matches!(
        ClientMessage::from_body(6, &body),
        Err(WireError::Body { .. })
    ));
    let header = |length: u32| {
        let mut bytes = [1, 0, 6, 0, 0, 0, 0];
        bytes[3..].copy_from_slice(&length.to_be_bytes());
        FrameHeader::parse(bytes, limits::CLIENT_FRAME)
    };
    let limit = u32::try_from(limits::CLIENT_FRAME).unwrap();
    assert!(header(limit).is_ok());
    for length in [limit + 1, 1 << 31, u32::MAX] {
        assert!(matches!(header(length), Err(WireError::TooLong { .. })));
    }
}
