//! Answers as tables and sentences for people.

use comfy_table::{ContentArrangement, Table, presets};
use gatereeve_controller_core::command::{Committed, Reply, StatusReply};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::text::bytes;
use gatereeve_shared::time::UnixMillis;

mod device;
mod policy;

/// The text of any answer.
pub(super) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Status(status) => status_text(status),
        Reply::Invite {
            id,
            invite,
            expires,
        } => device::invite(*id, invite, *expires),
        Reply::Invites { invites } => device::invites(invites),
        Reply::Devices { devices } => device::devices(devices),
        Reply::Device(device) => device::device(device),
        Reply::Committed(committed) => committed_text(committed),
        Reply::PolicyChecked { rules, tests, .. } => {
            format!("The policy is good: {rules} rules, {tests} tests passed.\n")
        }
        Reply::Plan(plan) => policy::plan(plan),
        Reply::Policy { revision, text } => policy::text(*revision, text),
        Reply::History { revisions } => policy::history(revisions),
        Reply::Tests { results } => policy::tests(results),
        Reply::Explained(explained) => policy::explained(explained),
        Reply::Reach(reach) => policy::reach(reach),
        Reply::Posture(posture) => device::posture(posture),
    }
}

/// A table without lines.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    table
}

/// The table without the padding that ends its lines.
fn finish(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// The texts behind each other, or a dash.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(", ")
    }
}

fn ports(ports: &[PortSpec]) -> String {
    list(ports)
}

/// The text, or a dash.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn when(at: UnixMillis) -> String {
    at.to_string()
}

fn status_text(status: &StatusReply) -> String {
    let policy = if status.policy_revision == 0 {
        "none: nothing may reach anything".to_owned()
    } else {
        format!("revision {}", status.policy_revision)
    };
    let uptime = std::time::Duration::from_secs(status.uptime_ms / 1000);
    let mut text = format!(
        "Network      {} ({})\n\
         Version      {}, up {}\n\
         Addresses    {} and {}\n\
         Generation   {}\n\
         Policy       {policy}\n\
         Devices      {} ({} connected, {} wait for approval)\n\
         Lagging      {}\n\
         Unknown keys {} attempts since the start\n",
        status.network,
        status.fingerprint,
        status.version,
        humantime::format_duration(uptime),
        status.prefixes.v4,
        status.prefixes.v6,
        status.generation,
        status.devices,
        status.connected,
        status.pending,
        list(&status.lagging),
        status.unknown_keys,
    );
    if let Some(sandbox) = &status.sandbox {
        text.push_str(&format!("Sandbox      {sandbox}\n"));
    }
    if let Some(disk) = status.disk {
        text.push_str(&format!(
            "Journal      {}, {} left on its disk\n",
            bytes(disk.journal),
            bytes(disk.free)
        ));
    }
    for warning in &status.warnings {
        text.push_str(&format!("Warning      {warning}\n"));
    }
    text
}

fn committed_text(committed: &Committed) -> String {
    let mut text = format!(
        "{} (generation {}, {})\n",
        committed.summary,
        committed.generation,
        when(committed.at)
    );
    if let Some(revision) = committed.revision {
        text.push_str(&format!("Policy revision {revision} is in force.\n"));
    }
    if committed.gained_pairs > 0 || committed.lost_pairs > 0 {
        text.push_str(&format!(
            "Device pairs: {} gained something, {} lost something.\n",
            committed.gained_pairs, committed.lost_pairs
        ));
    }
    if !committed.waited {
        return text;
    }
    text.push_str(&format!(
        "Enforced by {} connected devices.\n",
        committed.confirmed.len()
    ));
    if committed.unconfirmed.is_empty() {
        return text;
    }
    text.push_str("Not confirmed:\n");
    let mut rows = table(&["DEVICE", "CONNECTED", "LEASES END"]);
    for device in &committed.unconfirmed {
        rows.add_row([
            device.name.to_string(),
            yes_no(device.connected),
            device
                .leases_end
                .map_or_else(|| "it has none".to_owned(), when),
        ]);
    }
    text.push_str(&finish(&rows));
    text
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
