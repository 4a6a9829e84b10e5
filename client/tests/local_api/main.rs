//! `docs/local-api.json` says what the types say: every kind of request and reply, with every field filled
//! and with every field empty, is valid by it; and it has no path, schema or word beyond them.
//!
//! A new variant does not compile here until it has a sample; a new field is refused by the schema of its
//! object, none of which takes fields that it does not name.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

mod samples;
mod schema;

use std::collections::BTreeSet;

use gatereeve_client::daemon::{OPERATIONS, address};
use gatereeve_client_core::drop_reason::DropReason;
use serde_json::{Value, json};

use schema::Document;

#[test]
fn every_request_is_valid_and_every_path_has_one() {
    let document = Document::load();
    let mut seen = BTreeSet::new();
    for request in samples::requests() {
        let (path, body) = address(&request).unwrap();
        document
            .check(&document.request(&path), &body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"));
        seen.insert(path);
    }
    assert_eq!(seen, document.paths());
    let operations: BTreeSet<String> = OPERATIONS.map(|name| format!("/v1/{name}")).into();
    assert_eq!(seen, operations);
}

#[test]
fn every_reply_is_valid_where_it_is_promised() {
    let document = Document::load();
    for (operation, reply) in samples::replies() {
        let path = format!("/v1/{operation}");
        let body = serde_json::to_value(&reply).unwrap();
        document
            .check(&document.response(&path, "200"), &body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"));
    }
    let error = serde_json::to_value(samples::error()).unwrap();
    for path in document.paths() {
        for status in ["400", "404", "409", "500", "503"] {
            document
                .check(&document.response(&path, status), &error)
                .unwrap();
        }
    }
}

#[test]
fn every_reason_for_a_drop_is_explained() {
    let page = include_str!("../../docs/local-api.md");
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|reasons| reasons.trim_end_matches('`').split("` · `"))
        .collect();
    // What the shell counts besides.
    let beside = ["tun_unreadable", "udp_path_mtu", "udp_unsent"];
    let reasons = DropReason::ALL.map(DropReason::name).into_iter();
    assert_eq!(rows, reasons.chain(beside).collect());
}

#[test]
fn only_changes_and_what_others_do_can_be_refused() {
    let document = Document::load();
    for path in document.paths() {
        let is_change = ["join", "leave", "up", "down", "repair", "flows"]
            .iter()
            .any(|name| path.ends_with(&format!("/{name}")));
        assert_eq!(document.has_response(&path, "403"), is_change, "{path}");
    }
}

#[test]
fn nothing_is_described_that_no_sample_has() {
    let document = Document::load();
    for request in samples::requests() {
        let (path, body) = address(&request).unwrap();
        document.check(&document.request(&path), &body).unwrap();
    }
    for (operation, reply) in samples::replies() {
        let body = serde_json::to_value(&reply).unwrap();
        let schema = document.response(&format!("/v1/{operation}"), "200");
        document.check(&schema, &body).unwrap();
    }
    let error = serde_json::to_value(samples::error()).unwrap();
    document
        .check(&document.response("/v1/up", "403"), &error)
        .unwrap();
    assert_eq!(document.unused(), Vec::<String>::new());
}

#[test]
fn what_differs_from_the_types_is_found() {
    let document = Document::load();
    let schema = document.response("/v1/down", "200");
    let good = json!({"kind": "done", "message": "down", "standing": null});
    document.check(&schema, &good).unwrap();
    for bad in [
        json!({"kind": "done", "message": "down"}),
        json!({"kind": "done", "message": "down", "standing": null, "more": 1}),
        json!({"kind": "done", "message": 7, "standing": null}),
        json!({"kind": "done", "message": "down", "standing": "odd"}),
        json!({"kind": "status", "message": "down", "standing": null}),
        Value::Null,
    ] {
        assert!(document.check(&schema, &bad).is_err(), "{bad}");
    }
}
