//! Facts: one observation each, with its source and age.

use serde::{Deserialize, Serialize};

/// Names of the facts that the product collects. `process:` and `custom.` are prefixes.
pub mod names {
    /// Text: the distribution's `ID` of os-release, such as `debian`.
    pub const OS: &str = "os";
    /// Text: its `VERSION_ID`, such as `12`.
    pub const OS_VERSION: &str = "os_version";
    /// Text: the running kernel's release, such as `6.18.0-amd64`.
    pub const KERNEL: &str = "kernel";
    /// Int: security updates that are known and not installed.
    pub const PENDING_SECURITY_UPDATES: &str = "pending_security_updates";
    /// Bool: root and home volumes lie on dm-crypt.
    pub const DISK_ENCRYPTED: &str = "disk_encrypted";
    /// Bool: what is not asked for is dropped at the input hook.
    pub const FIREWALL: &str = "firewall";
    /// Bool: UEFI Secure Boot is on.
    pub const SECURE_BOOT: &str = "secure_boot";
    /// Bool: the desktop locks its screen by itself.
    pub const SCREEN_LOCK: &str = "screen_lock";
    /// Bool: a process whose executable is the path behind the prefix is running.
    pub const PROCESS_PREFIX: &str = "process:";
    /// Any: provided by the device's administrator.
    pub const CUSTOM_PREFIX: &str = "custom.";
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactValue {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// It could not be determined, and why. Never good.
    Unknown(String),
}

/// One observation of a device about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Which fact; see [`names`].
    pub id: String,
    /// The value, encoded by [`FactValue::to_bytes`]: a reader that does not know the form skips it
    /// as a whole.
    value: Vec<u8>,
    /// Where it was read, such as `/sys/block/dm-0/dm/uuid`.
    pub source: String,
    /// Milliseconds between the observation and the report, measured on the device.
    pub age_ms: u64,
}

impl Fact {
    /// A fact observed `age_ms` before it is reported.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        value: &FactValue,
        source: impl Into<String>,
        age_ms: u64,
    ) -> Self {
        Self {
            id: id.into(),
            value: value.to_bytes(),
            source: source.into(),
            age_ms,
        }
    }

    /// The value; of a form that this reader does not know, [`FactValue::Unknown`].
    #[must_use]
    pub fn value(&self) -> FactValue {
        FactValue::from_bytes(&self.value)
    }

    /// Bytes of the encoded value.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.value.len()
    }
}

impl FactValue {
    /// Tag byte and content; see [`Self::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (tag, content): (u8, Vec<u8>) = match self {
            Self::Unknown(why) => (0, why.as_bytes().to_vec()),
            Self::Bool(value) => (1, vec![u8::from(*value)]),
            Self::Int(value) => (2, value.to_be_bytes().to_vec()),
            Self::Text(value) => (3, value.as_bytes().to_vec()),
        };
        let mut bytes = vec![tag];
        bytes.extend(content);
        bytes
    }

    /// The value behind its bytes. What is malformed or of an unknown form is unknown, never good.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let malformed =
            || Self::Unknown("the report has this fact in a form that is not known here".into());
        let Some((tag, content)) = bytes.split_first() else {
            return malformed();
        };
        let text = || std::str::from_utf8(content).ok().map(str::to_owned);
        match (tag, content) {
            (0, _) => text().map_or_else(malformed, Self::Unknown),
            (1, [0]) => Self::Bool(false),
            (1, [1]) => Self::Bool(true),
            (2, _) => <[u8; 8]>::try_from(content).map_or_else(
                |_| malformed(),
                |bytes| Self::Int(i64::from_be_bytes(bytes)),
            ),
            (3, _) => text().map_or_else(malformed, Self::Text),
            _ => malformed(),
        }
    }
}

/// What a device says of itself at one time. It travels inside the authenticated control session,
/// which is what binds it to the device; the counter orders reports within a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureReport {
    /// Rises by at least one with every report of a session.
    pub counter: u64,
    /// The facts; of two with one id the report as a whole is malformed.
    pub facts: Vec<Fact>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back() {
        for value in [
            FactValue::Bool(true),
            FactValue::Int(-3),
            FactValue::Text("debian".into()),
            FactValue::Unknown("no efivars".into()),
        ] {
            assert_eq!(Fact::new("x", &value, "test", 0).value(), value);
        }
    }

    #[test]
    fn malformed_values_are_unknown() {
        for bytes in [
            &[][..],
            &[1],
            &[1, 2],
            &[1, 1, 1],
            &[2, 0],
            &[3, 0xff],
            &[9, 1],
        ] {
            assert!(
                matches!(FactValue::from_bytes(bytes), FactValue::Unknown(_)),
                "{bytes:?}"
            );
        }
    }
}
