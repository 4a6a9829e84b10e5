//! The only place that prints: tables for people, one JSON object for machines.

use std::fmt::Write as _;
use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use gatereeve_client_core::api::{
    BlackholeView, Connection, LocalFact, LocalReply, NamesState, NamesView, OffloadView, PathView,
    PeerView, RuleStatus, StatusView, WhyView,
};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::{CheckOutcome, Verdict};
use gatereeve_shared::text::bytes;
use gatereeve_shared::text::printable;
use gatereeve_shared::wire::controller::Standing;

use super::Failure;

/// Writes replies to standard output, progress and errors to standard error.
#[derive(Debug)]
pub struct Printer {
    json: bool,
}

impl Printer {
    /// A printer of JSON or of tables.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn reply(&mut self, reply: &LocalReply) -> Result<(), Failure> {
        if self.json {
            return self.json(reply);
        }
        print(&table(reply))
    }

    /// Prints an object for machines, or a text for people.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn show(
        &mut self,
        value: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return self.json(value);
        }
        print(&text())
    }

    /// Prints `value` as JSON, whatever the flags say.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| Failure::failed(&error.into()))?;
        print(&text)
    }

    /// Prints `text` as it is, whatever the flags say.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        print(text)
    }

    /// Prints progress.
    pub fn progress(&mut self, text: &str) {
        // Progress that cannot be shown is no reason to stop.
        drop(writeln!(std::io::stderr().lock(), "{}", printable(text)));
    }

    /// Prints why the command failed.
    pub fn error(&mut self, text: &str) {
        drop(writeln!(
            std::io::stderr().lock(),
            "gatereeve: {}",
            printable(text)
        ));
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())
        .and_then(|()| out.flush())
        .map_err(|error| {
            Failure::failed(&anyhow::Error::from(error).context("cannot write the answer"))
        })
}

/// An answer for people.
#[must_use]
pub fn table(reply: &LocalReply) -> String {
    match reply {
        LocalReply::Status(status) => status_table(status),
        LocalReply::Peers { peers } => peers_table(peers),
        LocalReply::Flows { flows, tracked } => super::flows::text(flows, *tracked),
        LocalReply::Pinged {
            peer,
            address,
            sent,
            round_trips_ms,
            note,
        } => ping_text(
            peer.as_str(),
            &address.to_string(),
            *sent,
            round_trips_ms,
            note.as_deref(),
        ),
        LocalReply::Why(why) => why_text(why),
        LocalReply::Posture { facts, checks } => posture_table(facts, checks),
        LocalReply::Whois {
            device,
            name,
            user,
            tags,
            is_self,
        } => {
            let mut rows = vec![("name", name.to_string()), ("device", device.to_string())];
            if let Some(user) = user {
                rows.push(("user", user.to_string()));
            }
            if !tags.is_empty() {
                rows.push((
                    "tags",
                    tags.iter()
                        .map(|tag| format!("tag:{tag}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                ));
            }
            if *is_self {
                rows.push(("this device", "yes".into()));
            }
            pairs(rows)
        }
        LocalReply::Repair(view) => super::repair::text(view),
        LocalReply::Done { message, standing } => match standing {
            Some(standing) => format!("{} ({})", printable(message), standing_word(*standing)),
            None => printable(message),
        },
    }
}

/// A standing in words.
#[must_use]
pub fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Unknown => "not enrolled",
        Standing::Pending => "waiting for an administrator's approval",
        Standing::Approved => "approved",
        Standing::Quarantined => "quarantined: reaches nothing, and nothing reaches it",
        Standing::Expired => "key expired: join again",
        Standing::Revoked => "revoked",
    }
}

fn status_table(status: &StatusView) -> String {
    let mut rows = vec![("version", status.version.clone())];
    let state = match (status.joined, status.up, status.connection) {
        (false, _, _) => "no network joined; `gatereeve join` takes part in one".to_owned(),
        (true, false, _) => "down; `gatereeve up` takes part".to_owned(),
        (true, true, Connection::Off) => "off".to_owned(),
        (true, true, Connection::Connecting) => "connecting to the controller".to_owned(),
        (true, true, Connection::Waiting) => "connected, waiting".to_owned(),
        (true, true, Connection::Synced) => "connected".to_owned(),
    };
    rows.push(("state", state));
    let mut optional = |label, value: Option<String>| {
        if let Some(value) = value {
            rows.push((label, printable(&value)));
        }
    };
    optional(
        "standing",
        status
            .standing
            .map(|standing| standing_word(standing).to_owned()),
    );
    optional("last error", status.last_error.clone());
    optional("network", status.network.clone());
    optional(
        "network key",
        status
            .fingerprint
            .map(|fingerprint| fingerprint.to_string()),
    );
    optional(
        "controllers",
        (!status.controllers.is_empty()).then(|| status.controllers.join(", ")),
    );
    optional("name", status.name.as_ref().map(ToString::to_string));
    optional("device", status.device.map(|device| device.to_string()));
    optional(
        "addresses",
        status
            .addresses
            .map(|own| format!("{}, {}", own.v4, own.v6)),
    );
    let interface = status.mtu.map_or_else(
        || status.interface.clone(),
        |mtu| format!("{}, MTU {mtu}", status.interface),
    );
    optional("interface", Some(interface));
    optional("UDP port", Some(status.listen_port.to_string()));
    optional("offloads", status.offloads.as_ref().map(offloads_text));
    optional("cipher", status.cipher.clone());
    optional("unreachable", status.blackhole.as_ref().map(blackhole_text));
    optional("names", status.names.as_ref().map(names_text));
    optional("sandbox", status.sandbox.clone());
    optional("WireGuard key", status.wg_key.clone());
    let generation = status.generation.map(|held| match status.enforced {
        Some(enforced) if enforced == held => format!("{held}, enforced"),
        Some(enforced) => format!("{held}; enforced: {enforced}"),
        None => format!("{held}, not enforced yet"),
    });
    optional("generation", generation);
    optional("leases end", status.leases_end.map(|end| end.to_string()));
    optional("peers", status.joined.then(|| status.peers.to_string()));
    let mut text = pairs(rows);
    for outcome in &status.failing_checks {
        push_outcome(&mut text, outcome);
    }
    for missing in status.offloads.iter().flat_map(|view| &view.missing) {
        push_line(&mut text, &format!("not offloaded: {missing}"));
    }
    if !status.drops.is_empty() {
        let drops: Vec<_> = status
            .drops
            .iter()
            .map(|(why, count)| format!("{why} {count}"))
            .collect();
        push_line(&mut text, &format!("dropped packets: {}", drops.join(", ")));
    }
    for warning in &status.warnings {
        push_line(&mut text, &format!("warning: {warning}"));
    }
    text
}

fn blackhole_text(view: &BlackholeView) -> String {
    format!(
        "{} (table {}), but for the tunnel, until `gatereeve down`",
        view.prefixes.join(", "),
        view.table
    )
}

/// Which names there are, and who asks for them.
fn names_text(view: &NamesView) -> String {
    let asked = match view.state {
        NamesState::Pending => "systemd-resolved is being told",
        NamesState::InUse => "through systemd-resolved",
        NamesState::Contested => "through systemd-resolved, which asks elsewhere, too",
        NamesState::Bypassed => "through systemd-resolved, which /etc/resolv.conf does not name",
        NamesState::Absent => "no systemd-resolved here",
        NamesState::Forbidden | NamesState::Failed => "systemd-resolved does not ask for them",
        NamesState::Off => "not told to systemd-resolved (client.toml)",
    };
    format!("*.{} at {}: {asked}", view.domain, view.resolver.v4)
}

/// Offloads in one line.
fn offloads_text(view: &OffloadView) -> String {
    let OffloadView {
        tun, udp, workers, ..
    } = view;
    let on = |named: &[(bool, &'static str)]| {
        let names: Vec<_> = named
            .iter()
            .filter(|(is_on, _)| *is_on)
            .map(|(_, name)| *name)
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join("+")
        }
    };
    let counted = |count: usize, name: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {name}{plural}")
    };
    format!(
        "tun {}, {}; udp {}; {}",
        on(&[(tun.tso, "tso"), (tun.uso, "uso")]),
        counted(tun.queues, "queue"),
        on(&[(udp.gso, "gso"), (udp.gro, "gro")]),
        counted(*workers, "worker"),
    )
}

/// What a path carries that is not narrow.
const FULL: u16 = 1420;

fn peers_table(peers: &[PeerView]) -> String {
    if peers.is_empty() {
        return "no peers: no rule connects this device with another, or it is not synced yet"
            .into();
    }
    let mut table = grid(&[
        "peer",
        "address",
        "user",
        "path",
        "handshake",
        "rx",
        "tx",
        "may send",
        "may receive",
    ]);
    for peer in peers {
        let path = peer.path.as_ref().map_or_else(
            || "none known".to_owned(),
            |path| match path {
                PathView::Direct { endpoint, mtu } => match mtu {
                    Some(mtu) if *mtu < FULL => format!("{endpoint}\n{mtu} bytes"),
                    Some(_) | None => endpoint.to_string(),
                },
            },
        );
        let handshake = peer
            .last_handshake_secs
            .map_or_else(|| "never".to_owned(), |secs| format!("{secs} s ago"));
        table.add_row([
            peer.name.to_string(),
            format!("{}\n{}", peer.addresses.v4, peer.addresses.v6),
            peer.user
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            path,
            handshake,
            bytes(peer.rx_bytes),
            bytes(peer.tx_bytes),
            rules(&peer.egress),
            rules(&peer.ingress),
        ]);
    }
    table.to_string()
}

fn rules(rules: &[RuleStatus]) -> String {
    let lines: Vec<_> = rules
        .iter()
        .map(|rule| {
            let ports: Vec<_> = rule.ports.iter().map(ToString::to_string).collect();
            format!("{} ({})", ports.join(" "), rule.rule)
        })
        .collect();
    if lines.is_empty() {
        "nothing".into()
    } else {
        lines.join("\n")
    }
}

fn ping_text(
    peer: &str,
    address: &str,
    sent: u32,
    round_trips: &[f64],
    note: Option<&str>,
) -> String {
    let mut text = String::new();
    for trip in round_trips {
        push_line(
            &mut text,
            &format!("answer from {peer} ({address}): {trip:.2} ms"),
        );
    }
    push_line(
        &mut text,
        &format!("{sent} sent, {} answered", round_trips.len()),
    );
    if let Some(note) = note {
        push_line(&mut text, note);
    }
    text
}

fn why_text(why: &WhyView) -> String {
    let mut text = String::new();
    let verdict = if why.allowed {
        "allowed"
    } else {
        "not allowed"
    };
    let what = if why.port == PortSpec::ANY {
        why.peer.clone()
    } else {
        format!("{} {}", why.peer, why.port)
    };
    push_line(&mut text, &format!("{what}: {verdict}"));
    for rule in &why.through {
        let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
        push_line(
            &mut text,
            &format!(
                "{} by rule {} until {}",
                ports.join(", "),
                rule.rule,
                rule.until
            ),
        );
    }
    if why.through.is_empty()
        && let Some(rule) = &why.rule
    {
        let label = if why.allowed {
            "by rule"
        } else {
            "nearest rule"
        };
        push_line(&mut text, &format!("{label}: {rule}"));
    }
    if why.through.is_empty()
        && let Some(until) = why.until
    {
        push_line(&mut text, &format!("until: {until}"));
    }
    for missing in &why.missing {
        push_line(&mut text, &format!("missing: {missing}"));
    }
    if !why.allowed && why.rule.is_none() && why.missing.is_empty() {
        push_line(
            &mut text,
            "no rule lets this device reach that destination, or there is no such device",
        );
    }
    push_line(&mut text, &format!("answered by: {}", why.answered_by));
    text
}

fn posture_table(facts: &[LocalFact], checks: &[CheckOutcome]) -> String {
    let mut table = grid(&["fact", "value", "read from", "age"]);
    for fact in facts {
        table.add_row([
            printable(&fact.id),
            printable(&value(&fact.value)),
            printable(&fact.source),
            format!("{} s", fact.age_secs),
        ]);
    }
    let mut text = table.to_string();
    text.push('\n');
    if checks.is_empty() {
        push_line(
            &mut text,
            "no check concerns this device, or the controller has not answered yet",
        );
    }
    for outcome in checks {
        push_outcome(&mut text, outcome);
    }
    text
}

fn value(value: &FactValue) -> String {
    match value {
        FactValue::Bool(true) => "yes".into(),
        FactValue::Bool(false) => "no".into(),
        FactValue::Int(number) => number.to_string(),
        FactValue::Text(text) => text.clone(),
        FactValue::Unknown(why) => format!("unknown: {why}"),
    }
}

fn push_outcome(text: &mut String, outcome: &CheckOutcome) {
    match &outcome.verdict {
        Verdict::Compliant { until } => {
            push_line(
                text,
                &format!(
                    "check {}: met, until {until} unless reported again",
                    outcome.check
                ),
            );
        }
        Verdict::NonCompliant { failures } => {
            push_line(text, &format!("check {}: not met", outcome.check));
            for failure in failures {
                push_line(
                    text,
                    &format!("  wanted {}, found {}", failure.wanted, failure.found),
                );
            }
        }
    }
}

/// Appends one line, whatever the text carries.
pub(super) fn push_line(text: &mut String, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}", printable(line));
}

fn pairs(rows: Vec<(&'static str, String)>) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 1;
    for (label, value) in rows {
        push_line(
            &mut text,
            &format!("{:<width$} {value}", format!("{label}:")),
        );
    }
    text
}

pub(super) fn grid(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(|name| name.to_uppercase()));
    table
}
