//! Names and identifiers. Each is its own type, valid from construction on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

use crate::text;

/// Why a text is not the identifier it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not {what}: {why}")]
pub struct IdError {
    /// The text, with control characters replaced and cut at 80 characters.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// The rule it breaks.
    pub why: &'static str,
}

impl IdError {
    fn new(text: &str, what: &'static str, why: &'static str) -> Self {
        Self {
            text: text::printable(text).chars().take(80).collect(),
            what,
            why,
        }
    }
}

/// A device: the first 20 bytes of the SHA-256 of its public identity key.
///
/// Text form: 32 characters of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 20]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base32(&self.0))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        text::from_base32(s)
            .and_then(|bytes| <[u8; 20]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| IdError::new(s, "a device ID", "it takes 32 characters of a-z and 2-7"))
    }
}

text::serde_as_text_or_bytes!(DeviceId, [u8; 20]);

/// An invite's public number; its secret is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 8]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base32(&self.0))
    }
}

impl FromStr for InviteId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        text::from_base32(s)
            .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| IdError::new(s, "an invite ID", "it takes 13 characters of a-z and 2-7"))
    }
}

text::serde_as_text_or_bytes!(InviteId, [u8; 8]);

/// A newtype over a text that `$check` has found valid.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Takes ", $what, ", or says why the text is none.")]
            ///
            /// # Errors
            /// [`IdError`] names the rule that the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(IdError::new(&text, $what, why)),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// A device's name: a DNS label in lower case, unique in the network.
    DeviceName, "a device name", check_device_name
);
checked_text!(
    /// A tag without its `tag:`: the role of a device that nobody sits at.
    TagName, "a tag name", check_label
);
checked_text!(
    /// A group's name without its `group:`.
    GroupName, "a group name", check_label
);
checked_text!(
    /// The name of a posture check.
    CheckName, "the name of a posture check", check_label
);
checked_text!(
    /// The `id` of a rule of the policy.
    RuleId, "a rule ID", check_label
);
checked_text!(
    /// A user: `name@domain`, in lower case.
    UserName, "a user", check_user
);

/// Names that a device may not take: resolvers, proxies and our own roles give them a meaning.
const RESERVED: [&str; 9] = [
    "localhost",
    "wpad",
    "isatap",
    "controller",
    "relay",
    "gateway",
    "broadcasthost",
    "local",
    "invalid",
];

fn check_device_name(text: &str) -> Result<(), &'static str> {
    check_dns_label(text)?;
    if RESERVED.contains(&text) {
        return Err("the name is reserved");
    }
    if text.starts_with("xn--") {
        return Err("encoded international names can look like other names");
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a name of digits alone reads as a number");
    }
    Ok(())
}

fn check_dns_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it takes 1 to 63 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err("it takes a-z, 0-9 and - only");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it may not begin or end with -");
    }
    Ok(())
}

fn check_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it takes 1 to 63 characters");
    }
    let mut bytes = text.bytes();
    if !bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    {
        return Err("it begins with a-z or 0-9");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err("it takes a-z, 0-9, -, _ and . only");
    }
    Ok(())
}

fn check_user(text: &str) -> Result<(), &'static str> {
    if text.len() > 254 {
        return Err("it takes at most 254 characters");
    }
    let Some((name, domain)) = text.split_once('@') else {
        return Err("it takes the form name@domain");
    };
    let name_is_plain = name.bytes().all(|b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b'+')
    });
    if name.is_empty() || name.len() > 64 || !name_is_plain {
        return Err("before the @ it takes a-z, 0-9, ., -, _ and +");
    }
    if domain.is_empty()
        || domain
            .split('.')
            .any(|label| check_dns_label(label).is_err())
    {
        return Err("behind the @ it takes a domain in lower case");
    }
    Ok(())
}

impl DeviceName {
    /// The nearest valid name to what a host calls itself: first label, lower case, everything
    /// else turned into `-`. `None` where nothing usable is left or the name is reserved.
    #[must_use]
    pub fn normalized(wish: &str) -> Option<Self> {
        let first = wish.trim().split('.').next().unwrap_or_default();
        let mut name = String::new();
        for c in first.chars().take(63) {
            let c = c.to_ascii_lowercase();
            let c = if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            };
            if c != '-' || !(name.is_empty() || name.ends_with('-')) {
                name.push(c);
            }
        }
        Self::new(name.trim_end_matches('-')).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_reads_back_from_its_text() {
        let id = DeviceId([7; 20]);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("d".parse::<DeviceId>().is_err());
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "../../etc/x",
            "a\nb",
            "",
            ".",
            "a\0",
            "\u{202e}x",
            "-a",
            "a-",
            "localhost",
            "12",
        ] {
            assert!(DeviceName::new(name).is_err(), "{name:?}");
        }
        assert!(DeviceName::new("a".repeat(64)).is_err());
        assert!(DeviceName::new("web-1").is_ok());
    }

    #[test]
    fn host_names_are_normalised() {
        let name = |wish: &str| DeviceName::normalized(wish).map(|n| n.to_string());
        assert_eq!(
            name("Alice's MacBook.local"),
            Some("alice-s-macbook".into())
        );
        assert_eq!(name("WEB_01.example.com"), Some("web-01".into()));
        assert_eq!(name("../../etc"), None);
        assert_eq!(name("localhost"), None);
        assert_eq!(name("\u{202e}"), None);
    }

    #[test]
    fn users_take_the_form_of_an_address() {
        assert!(UserName::new("alice@example.com").is_ok());
        for user in [
            "alice",
            "@example.com",
            "alice@",
            "Alice@example.com",
            "a b@example.com",
            "a@b@c",
        ] {
            assert!(UserName::new(user).is_err(), "{user:?}");
        }
    }

    #[test]
    fn json_goes_through_the_same_checks() {
        assert!(serde_json::from_str::<DeviceName>("\"web\"").is_ok());
        assert!(serde_json::from_str::<DeviceName>("\"Web\"").is_err());
    }
}
