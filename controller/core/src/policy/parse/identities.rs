//! `[groups]`, `[tags]`, and principals that speak of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gatereeve_shared::ids::{DeviceId, DeviceName, GroupName, TagName, UserName};

use super::reader::{Fields, fields, short, strings, table};
use crate::policy::Policy;
use crate::policy::principal::Principal;
use crate::policy::problem::Problems;

pub(super) fn read(file: &Fields<'_, '_>, policy: &mut Policy, problems: &mut Problems<'_>) {
    groups(file, policy, problems);
    tags(file, policy, problems);
}

fn groups(file: &Fields<'_, '_>, policy: &mut Policy, problems: &mut Problems<'_>) {
    let Some(section) = file.get("groups").and_then(|value| table(problems, value)) else {
        return;
    };
    for (key, members) in section {
        let name = match GroupName::new(key.get_ref().as_ref()) {
            Ok(name) => name,
            Err(error) => {
                let help = key
                    .get_ref()
                    .strip_prefix("group:")
                    .map(|name| format!("here it is `{}` alone", short(name)));
                problems.error(key.span(), error.to_string(), help);
                continue;
            }
        };
        let mut users = BTreeSet::new();
        for (text, span) in strings(problems, members) {
            match UserName::new(text) {
                Ok(user) => {
                    users.insert(user);
                }
                Err(error) => {
                    let help = text
                        .starts_with("group:")
                        .then(|| "a group has users as members, not groups".to_owned());
                    problems.error(span, error.to_string(), help);
                }
            }
        }
        policy.groups.insert(name, users);
    }
}

fn tags(file: &Fields<'_, '_>, policy: &mut Policy, problems: &mut Problems<'_>) {
    let Some(section) = file.get("tags").and_then(|value| table(problems, value)) else {
        return;
    };
    for (key, value) in section {
        let Some(name) = key.get_ref().strip_prefix("tag:") else {
            problems.error(
                key.span(),
                format!("`{}` is no tag", short(key.get_ref())),
                Some(format!("write `[tags.\"tag:{}\"]`", short(key.get_ref()))),
            );
            continue;
        };
        match TagName::new(name) {
            Ok(tag) => {
                policy.tags.insert(tag);
            }
            Err(error) => problems.error(key.span(), error.to_string(), None),
        }
        // Who may give the tag to their own devices, once users can sign in. Until then only
        // administrators give tags, which is less than what the owners are promised.
        let Some(fields) = fields(problems, value, "a tag", ["owners"]) else {
            continue;
        };
        if let Some(owners) = fields.get("owners") {
            for (text, span) in strings(problems, owners) {
                let owner = principal(problems, text, span.clone(), policy, &BTreeMap::new());
                if let Some(Principal::Any | Principal::Tag(_) | Principal::Device(..)) = owner {
                    problems.error(span, "a tag is owned by users and groups", None);
                }
            }
        }
    }
}

/// Reads one principal. Groups, tags and devices must be known; a device is pinned.
pub(super) fn principal(
    problems: &mut Problems<'_>,
    text: &str,
    span: Range<usize>,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
) -> Option<Principal> {
    if text == "*" {
        return Some(Principal::Any);
    }
    match text.split_once(':') {
        None => user(problems, text, span),
        Some(("group", name)) => {
            let found = policy.groups.keys().find(|group| group.as_str() == name);
            if found.is_none() {
                let known = policy.groups.keys().map(GroupName::as_str);
                let otherwise = format!("add `{}` to [groups]", short(name));
                let message = format!("there is no group `{}`", short(name));
                problems.unknown(span, message, name, known, Some(otherwise));
            }
            found.cloned().map(Principal::Group)
        }
        Some(("tag", name)) => {
            let found = policy.tags.iter().find(|tag| tag.as_str() == name);
            if found.is_none() {
                let known = policy.tags.iter().map(TagName::as_str);
                let otherwise = format!("declare it: `[tags.\"tag:{}\"]`", short(name));
                let message = format!("there is no tag `{}`", short(name));
                problems.unknown(span, message, name, known, Some(otherwise));
            }
            found.cloned().map(Principal::Tag)
        }
        Some(("device", name)) => {
            let found = names.iter().find(|(device, _)| device.as_str() == name);
            if found.is_none() {
                let known = names.keys().map(DeviceName::as_str);
                let otherwise = "devices must have joined before a policy names them".to_owned();
                let message = format!("there is no device `{}`", short(name));
                problems.unknown(span, message, name, known, Some(otherwise));
            }
            let (name, id) = found?;
            policy.pins.insert(name.clone(), *id);
            Some(Principal::Device(name.clone(), *id))
        }
        Some((kind @ ("segment" | "subnet"), _)) => {
            problems.error(
                span,
                format!("`{kind}:` is not supported yet"),
                Some("use tags".into()),
            );
            None
        }
        Some((kind, _)) => {
            let message = format!("`{}` is no principal", short(text));
            let otherwise = "use name@domain, group:NAME, tag:NAME, device:NAME or *; rules speak of \
                 identities, not addresses";
            problems.unknown(
                span,
                message,
                kind,
                ["group", "tag", "device"],
                Some(otherwise.into()),
            );
            None
        }
    }
}

fn user(problems: &mut Problems<'_>, text: &str, span: Range<usize>) -> Option<Principal> {
    match UserName::new(text) {
        Ok(user) => Some(Principal::User(user)),
        Err(error) if text.contains('@') => {
            problems.error(span, error.to_string(), None);
            None
        }
        Err(_) => {
            problems.error(
                span,
                format!("`{}` is no principal", short(text)),
                Some("use name@domain, group:NAME, tag:NAME, device:NAME or *".into()),
            );
            None
        }
    }
}
