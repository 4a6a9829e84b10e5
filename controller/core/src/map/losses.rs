//! What a device was told to let go of and is not known to have let go of yet.

use std::collections::BTreeMap;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::UnixMillis;

use crate::state::Touched;

/// One thing that it may still let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Who enforces this generation, or a later one, has let go of it.
    pub(crate) generation: Generation,
    /// It ends by itself at this time.
    pub(crate) until: UnixMillis,
}

impl Loss {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            generation: self.generation.max(other.generation),
            until: self.until.max(other.until),
        }
    }
}

/// All of it for one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    /// By the peer that it is about.
    of: BTreeMap<DeviceId, Loss>,
    /// It was sent all there is, and what it had before is not known.
    unknown: Option<Loss>,
}

impl Losses {
    /// A device about which nothing is known was sent all of `generation`; what it can have ends at `until`.
    pub(crate) fn unknown(generation: Generation, until: UnixMillis) -> Self {
        Self {
            of: BTreeMap::new(),
            unknown: Some(Loss { generation, until }),
        }
    }

    /// Generation `generation` takes what it has of these peers until then.
    pub(crate) fn add(
        &mut self,
        generation: Generation,
        lost: &BTreeMap<DeviceId, UnixMillis>,
        now: UnixMillis,
    ) {
        self.of.retain(|_, loss| now < loss.until);
        for (peer, until) in lost {
            let loss = Loss {
                generation,
                until: *until,
            };
            let earlier = self.of.get(peer).copied().unwrap_or(loss);
            self.of.insert(*peer, loss.and(earlier));
        }
    }

    /// The device's data path enforces `generation`.
    pub(crate) fn confirm(&mut self, generation: Generation) {
        let is_open = |loss: &Loss| generation < loss.generation;
        self.of.retain(|_, loss| is_open(loss));
        self.unknown = self.unknown.filter(is_open);
    }

    /// What `holder`, whose losses these are, may still let through at `now` of what `touched` is about.
    pub(crate) fn about(
        &self,
        holder: &DeviceId,
        touched: &Touched,
        now: UnixMillis,
    ) -> Option<Loss> {
        if touched.devices.is_empty() && !touched.everything {
            return None;
        }
        let is_all = touched.everything || touched.devices.contains(holder);
        let of = self.of.iter();
        let of = of.filter(|(peer, _)| is_all || touched.devices.contains(*peer));
        of.map(|(_, loss)| *loss)
            .chain(self.unknown)
            .filter(|loss| now < loss.until)
            .reduce(Loss::and)
    }
}
