//! Invites, devices and their posture.

use gatereeve_controller_core::command::{DeviceView, InviteView, PostureView};
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::ids::InviteId;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::{CheckOutcome, Verdict};
use gatereeve_shared::time::UnixMillis;

use super::{finish, list, or_dash, table, when, yes_no};

pub(super) fn invite(id: InviteId, invite: &str, expires: UnixMillis) -> String {
    // The invite alone on its line, so that it can be copied whole.
    format!(
        "{invite}\n\nInvite {id}, good until {}. It is shown only now.\n",
        when(expires)
    )
}

pub(super) fn invites(invites: &[InviteView]) -> String {
    if invites.is_empty() {
        return "No invite can be used.\n".to_owned();
    }
    let mut rows = table(&[
        "ID",
        "USES LEFT",
        "EXPIRES",
        "TAGS",
        "USER",
        "EPHEMERAL",
        "APPROVAL",
    ]);
    for invite in invites {
        rows.add_row([
            invite.id.to_string(),
            invite.uses_left.to_string(),
            when(invite.expires),
            list(&invite.tags),
            or_dash(invite.user.as_ref()),
            yes_no(invite.ephemeral),
            yes_no(invite.approve),
        ]);
    }
    finish(&rows)
}

pub(super) fn devices(devices: &[DeviceView]) -> String {
    if devices.is_empty() {
        return "There is no device yet; `invite create` lets one in.\n".to_owned();
    }
    let mut rows = table(&[
        "NAME",
        "STATUS",
        "CONNECTED",
        "IPV4",
        "TAGS",
        "USER",
        "POSTURE",
        "ID",
    ]);
    for device in devices {
        rows.add_row([
            device.name.to_string(),
            status(device.status).to_owned(),
            yes_no(device.connected),
            or_dash(device.addresses.map(|addresses| addresses.v4)),
            list(&device.tags),
            or_dash(device.user.as_ref()),
            posture_summary(&device.posture),
            device.id.to_string(),
        ]);
    }
    finish(&rows)
}

pub(super) fn device(device: &DeviceView) -> String {
    let addresses = device.addresses.map_or_else(
        || "-".to_owned(),
        |addresses| format!("{} and {}", addresses.v4, addresses.v6),
    );
    let mut text = format!(
        "Name         {}\n\
         ID           {}\n\
         Status       {}\n\
         Addresses    {addresses}\n\
         Tags         {}\n\
         User         {}\n\
         Ephemeral    {}\n\
         Connected    {}\n\
         Last seen    {}\n\
         Key expires  {}\n\
         WireGuard    {}\n\
         Client       {}\n\
         Confirmed    {}\n\
         Peers        {}\n",
        device.name,
        device.id,
        status(device.status),
        list(&device.tags),
        or_dash(device.user.as_ref()),
        yes_no(device.ephemeral),
        yes_no(device.connected),
        or_dash(device.last_seen),
        device.key_expires.map_or_else(|| "never".to_owned(), when),
        or_dash(device.wg_key.as_ref()),
        or_dash(device.software.as_ref()),
        or_dash(device.confirmed),
        device.peers,
    );
    text.push_str(&checks(&device.posture));
    text
}

pub(super) fn posture(posture: &PostureView) -> String {
    let mut text = match posture.received {
        Some(received) => format!("{} reported at {}.\n", posture.device, when(received)),
        None => format!("{} has not reported.\n", posture.device),
    };
    if !posture.facts.is_empty() {
        let mut rows = table(&["FACT", "VALUE", "FROM", "OBSERVED"]);
        for fact in &posture.facts {
            rows.add_row([
                fact.id.clone(),
                value(&fact.value),
                fact.source.clone(),
                when(fact.observed),
            ]);
        }
        text.push('\n');
        text.push_str(&finish(&rows));
    }
    if posture.checks.is_empty() {
        text.push_str("\nThe policy has no posture checks.\n");
    } else {
        text.push('\n');
        text.push_str(&checks(&posture.checks));
    }
    text
}

fn status(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Pending => "pending",
        DeviceStatus::Approved => "approved",
        DeviceStatus::Quarantined => "quarantined",
        DeviceStatus::Revoked => "revoked",
    }
}

fn value(value: &FactValue) -> String {
    match value {
        FactValue::Bool(value) => value.to_string(),
        FactValue::Int(value) => value.to_string(),
        FactValue::Text(value) => value.clone(),
        FactValue::Unknown(why) => format!("unknown: {why}"),
    }
}

fn posture_summary(checks: &[CheckOutcome]) -> String {
    let failing: Vec<&str> = checks
        .iter()
        .filter(|check| matches!(check.verdict, Verdict::NonCompliant { .. }))
        .map(|check| check.check.as_str())
        .collect();
    if checks.is_empty() {
        "-".to_owned()
    } else if failing.is_empty() {
        "ok".to_owned()
    } else {
        format!("fails {}", failing.join(", "))
    }
}

fn checks(checks: &[CheckOutcome]) -> String {
    let mut text = String::new();
    for check in checks {
        match &check.verdict {
            Verdict::Compliant { until } => {
                text.push_str(&format!(
                    "Check {}: met until {}\n",
                    check.check,
                    when(*until)
                ));
            }
            Verdict::NonCompliant { failures } => {
                text.push_str(&format!("Check {}: not met\n", check.check));
                for failure in failures {
                    text.push_str(&format!(
                        "  wants {}, found {}\n",
                        failure.wanted, failure.found
                    ));
                }
            }
        }
    }
    text
}
