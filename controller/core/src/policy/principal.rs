//! Who a rule speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gatereeve_shared::ids::{DeviceId, DeviceName, GroupName, TagName, UserName};

use crate::state::device::Device;

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// `*`: every device.
    Any,
    /// `alice@example.com`: the devices of a user.
    User(UserName),
    /// `group:NAME`: the devices of its members.
    Group(GroupName),
    /// `tag:NAME`: the devices that have the tag.
    Tag(TagName),
    /// `device:NAME`: one device, pinned when the policy was applied.
    Device(DeviceName, DeviceId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::User(user) => user.fmt(f),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Device(name, _) => write!(f, "device:{name}"),
        }
    }
}

/// Members of each group.
pub(crate) type Groups = BTreeMap<GroupName, BTreeSet<UserName>>;

/// What a principal is held against: a device, or one that a test imagines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) id: Option<DeviceId>,
    pub(crate) user: Option<UserName>,
    pub(crate) tags: BTreeSet<TagName>,
}

impl From<&Device> for Subject {
    fn from(device: &Device) -> Self {
        Self {
            id: Some(device.id),
            user: device.user.clone(),
            tags: device.tags.clone(),
        }
    }
}

impl Principal {
    /// Whether the subject is meant. A device with a user and tags is meant by either.
    pub(crate) fn matches(&self, subject: &Subject, groups: &Groups) -> bool {
        match self {
            Self::Any => true,
            Self::User(user) => subject.user.as_ref() == Some(user),
            Self::Group(group) => subject.user.as_ref().is_some_and(|user| {
                groups
                    .get(group)
                    .is_some_and(|members| members.contains(user))
            }),
            Self::Tag(tag) => subject.tags.contains(tag),
            Self::Device(_, id) => subject.id.as_ref() == Some(id),
        }
    }

    /// Whether everything that `other` means now and later is meant by this one too.
    pub(crate) fn covers(&self, other: &Self, groups: &Groups) -> bool {
        if self == other || *self == Self::Any {
            return true;
        }
        let Self::Group(wide) = self else {
            return false;
        };
        let Some(members) = groups.get(wide) else {
            return false;
        };
        match other {
            Self::User(user) => members.contains(user),
            Self::Group(narrow) => groups
                .get(narrow)
                .is_some_and(|narrow| narrow.is_subset(members)),
            Self::Any | Self::Tag(_) | Self::Device(..) => false,
        }
    }
}
