//! Golden bytes of every message: nobody changes the wire by accident.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::ControllerMessage;
use gatereeve_shared::wire::frame::{FrameHeader, HEADER_LEN, WireError};

use super::samples;

/// The committed bytes; its head says how to add to it.
const GOLDEN: &str = include_str!("golden.txt");

fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let mut frames = BTreeMap::new();
    for line in GOLDEN
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, hex) = line.split_once(' ').expect("name and hex");
        assert!(
            frames.insert(name, from_hex(hex)).is_none(),
            "{name} is there twice"
        );
    }
    frames
}

fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Checks samples against golden bytes in both directions; returns what golden.txt lacks.
fn check<M: PartialEq + std::fmt::Debug>(
    side: &str,
    samples: Vec<(&'static str, M)>,
    encode: impl Fn(&M) -> Vec<u8>,
    decode: impl Fn(u16, &[u8]) -> Result<M, WireError>,
    limit: usize,
) -> Vec<String> {
    let golden = golden();
    let mut missing = Vec::new();
    for (name, message) in samples {
        let name = format!("{side}.{name}");
        let frame = encode(&message);
        let Some(expected) = golden.get(name.as_str()) else {
            missing.push(format!("{name} {}", to_hex(&frame)));
            continue;
        };
        assert_eq!(
            to_hex(&frame),
            to_hex(expected),
            "{name} has changed on the wire: released clients and controllers could not read it. \
             Give the new form a new kind instead."
        );
        let (header, body) = expected.split_first_chunk::<HEADER_LEN>().expect("header");
        let header = FrameHeader::parse(*header, limit).expect("header");
        assert_eq!(header.length, body.len(), "{name}");
        assert_eq!(decode(header.kind, body).as_ref(), Ok(&message), "{name}");
    }
    missing
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let mut missing = check(
        "client",
        samples::client(),
        |message| message.to_frame().unwrap(),
        ClientMessage::from_body,
        ClientMessage::LIMIT,
    );
    missing.extend(check(
        "controller",
        samples::controller(),
        |message| message.to_frame().unwrap(),
        ControllerMessage::from_body,
        ControllerMessage::LIMIT,
    ));
    assert!(
        missing.is_empty(),
        "golden.txt lacks these lines; append them, and never change one that is there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_line_has_its_sample_and_every_kind_its_line() {
    let names: Vec<String> = samples::client()
        .iter()
        .map(|(name, _)| format!("client.{name}"))
        .chain(
            samples::controller()
                .iter()
                .map(|(name, _)| format!("controller.{name}")),
        )
        .collect();
    for name in golden().keys() {
        assert!(
            names.iter().any(|n| n == name),
            "{name} was taken out of the samples"
        );
    }
    let client: Vec<u16> = samples::client()
        .iter()
        .map(|(_, message)| message.kind())
        .collect();
    let controller: Vec<u16> = samples::controller()
        .iter()
        .map(|(_, message)| message.kind())
        .collect();
    for kind in 0..=u16::MAX {
        let known = ClientMessage::from_body(kind, &[]) != Err(WireError::Kind(kind));
        assert_eq!(known, client.contains(&kind), "client kind {kind}");
        let known = ControllerMessage::from_body(kind, &[]) != Err(WireError::Kind(kind));
        assert_eq!(known, controller.contains(&kind), "controller kind {kind}");
    }
}
