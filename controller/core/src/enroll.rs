//! Becoming a device: invites, names, and those who wait for approval.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::ids::{DeviceId, DeviceName, InviteId};
use gatereeve_shared::time::{Mono, Now, UnixMillis};

use crate::session::bucket::Bucket;
use crate::session::source;

/// Devices that may wait for approval at one time.
pub(crate) const PENDING: usize = 256;
/// Of them, from one source network.
const PENDING_PER_SOURCE: usize = 8;
/// How long they wait.
const PENDING_FOR: Duration = Duration::from_secs(3600);
/// Source networks whose attempts are counted at one time.
const SOURCES: usize = 4096;

/// A device that waits for approval. In memory only: it asks again.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) identity: IdentityPublicKey,
    pub(crate) name: DeviceName,
    pub(crate) binding: KeyBinding,
    /// The invite that it brought; a use of it is held back.
    pub(crate) invite: Option<InviteId>,
    pub(crate) asked: UnixMillis,
    source: IpAddr,
    until: Mono,
}

impl Pending {
    pub(crate) fn new(
        identity: IdentityPublicKey,
        name: DeviceName,
        binding: KeyBinding,
        invite: Option<InviteId>,
        from: IpAddr,
        now: Now,
    ) -> Self {
        Self {
            identity,
            name,
            binding,
            invite,
            asked: now.unix,
            source: source(from),
            until: now.mono.saturating_add(PENDING_FOR),
        }
    }
}

/// All that wait, and how often who may ask.
#[derive(Debug)]
pub(crate) struct Enrollments {
    pending: BTreeMap<DeviceId, Pending>,
    sources: BTreeMap<IpAddr, Bucket>,
    all: Bucket,
}

impl Enrollments {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            pending: BTreeMap::new(),
            sources: BTreeMap::new(),
            all: Bucket::new(120, 60, Duration::from_secs(60), now),
        }
    }

    /// Whether an attempt without a valid invite from here may be looked at: 10 a minute for a
    /// source network, 60 for all.
    pub(crate) fn admit(&mut self, from: IpAddr, now: Mono) -> bool {
        let from = source(from);
        if !self.sources.contains_key(&from) && self.sources.len() >= SOURCES {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= SOURCES {
                return false;
            }
        }
        let bucket = self
            .sources
            .entry(from)
            .or_insert_with(|| Bucket::new(10, 10, Duration::from_secs(60), now));
        bucket.take(1, now) && self.all.take(1, now)
    }

    /// Takes one into the waiting room. Those with an invite have room of their own, so that those
    /// without cannot keep them out.
    pub(crate) fn wait(&mut self, asks: Pending, now: Mono) -> Result<(), &'static str> {
        self.pending.retain(|_, pending| now < pending.until);
        let id = asks.identity.device_id();
        let others = || {
            let same_room = |other: &Pending| other.invite.is_some() == asks.invite.is_some();
            self.pending
                .iter()
                .filter(move |(other, pending)| **other != id && same_room(pending))
                .map(|(_, pending)| pending)
        };
        if others().count() >= PENDING {
            return Err("too many devices wait for approval");
        }
        let from_there = others().filter(|other| other.source == asks.source);
        if asks.invite.is_none() && from_there.count() >= PENDING_PER_SOURCE {
            return Err("too many devices from this network wait for approval");
        }
        self.pending.insert(id, asks);
        Ok(())
    }

    pub(crate) fn get(&self, device: &DeviceId, now: Mono) -> Option<&Pending> {
        self.pending
            .get(device)
            .filter(|pending| now < pending.until)
    }

    pub(crate) fn all(&self, now: Mono) -> impl Iterator<Item = (&DeviceId, &Pending)> {
        self.pending
            .iter()
            .filter(move |(_, pending)| now < pending.until)
    }

    pub(crate) fn remove(&mut self, device: &DeviceId) -> Option<Pending> {
        self.pending.remove(device)
    }

    /// Uses of an invite that are held back for others than `device`.
    pub(crate) fn held_back(&self, invite: &InviteId, device: &DeviceId, now: Mono) -> u32 {
        let holders = self
            .all(now)
            .filter(|(id, pending)| *id != device && pending.invite.as_ref() == Some(invite));
        u32::try_from(holders.count()).unwrap_or(u32::MAX)
    }
}

/// A name for a device that wishes for `wish`.
pub(crate) enum NameChoice {
    /// It may have this one.
    Free(DeviceName),
    /// The policy speaks of the name, and nobody has it: an administrator decides.
    NeedsApproval(DeviceName),
}

/// Chooses: the wish, or the wish with the first number behind it that is free.
pub(crate) fn choose_name(
    wish: &str,
    taken: &BTreeMap<DeviceName, DeviceId>,
    mentioned: &BTreeSet<DeviceName>,
) -> Option<NameChoice> {
    let wish = DeviceName::normalized(wish).or_else(|| DeviceName::new("device").ok())?;
    if !taken.contains_key(&wish) {
        return Some(if mentioned.contains(&wish) {
            NameChoice::NeedsApproval(wish)
        } else {
            NameChoice::Free(wish)
        });
    }
    numbered(&wish)
        .find(|name| !taken.contains_key(name) && !mentioned.contains(name))
        .map(NameChoice::Free)
}

fn numbered(name: &DeviceName) -> impl Iterator<Item = DeviceName> + '_ {
    (1u32..100_000).filter_map(move |number| {
        let suffix = format!("-{number}");
        let stem: String = name
            .as_str()
            .chars()
            .take(63usize.saturating_sub(suffix.len()))
            .collect();
        DeviceName::new(format!("{}{suffix}", stem.trim_end_matches('-'))).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DeviceName {
        DeviceName::new(text).unwrap()
    }

    #[test]
    fn a_taken_name_gets_a_number_and_a_mentioned_one_an_administrator() {
        let mut taken = BTreeMap::new();
        let mut mentioned = BTreeSet::from([name("db"), name("web-1")]);
        let mut choose = |wish: &str| match choose_name(wish, &taken, &mentioned) {
            Some(NameChoice::Free(name)) => {
                taken.insert(name.clone(), DeviceId([0; 20]));
                name.to_string()
            }
            Some(NameChoice::NeedsApproval(name)) => format!("ask for {name}"),
            None => "none".into(),
        };
        assert_eq!(choose("WEB.example.com"), "web");
        assert_eq!(choose("web"), "web-2");
        assert_eq!(choose("web"), "web-3");
        assert_eq!(choose("db"), "ask for db");
        assert_eq!(choose("../../etc"), "device");
        let long = "a".repeat(80);
        assert_eq!(choose(&long).len(), 63);
        assert_eq!(choose(&long).len(), 63);
        mentioned.clear();
        assert!(matches!(
            choose_name("db", &taken, &mentioned),
            Some(NameChoice::Free(_))
        ));
    }
}
