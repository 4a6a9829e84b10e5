//! Text forms of bytes: base32 in lower case for what people read, base64 for WireGuard keys.

use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding, Specification};
use std::sync::LazyLock;

/// RFC 4648 base32, lower case, no padding.
static BASE32: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().ok()
});

/// `bytes` in lower-case base32 without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    BASE32
        .as_ref()
        .map(|encoding| encoding.encode(bytes))
        .unwrap_or_default()
}

/// The bytes of a lower-case base32 text, or `None` where it is malformed.
#[must_use]
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    BASE32.as_ref()?.decode(text.as_bytes()).ok()
}

/// `bytes` in standard base64 with padding, as `wg` prints keys.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of a standard base64 text, or `None` where it is malformed.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

/// `bytes` in URL-safe base64 without padding.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// The bytes of a URL-safe base64 text, or `None` where it is malformed.
#[must_use]
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// serde for a newtype of bytes: its text where people read, the bytes themselves on the wire.
macro_rules! serde_as_text_or_bytes {
    ($name:ty, $bytes:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?
                        .parse()
                        .map_err(serde::de::Error::custom)
                } else {
                    <$bytes>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

pub(crate) use serde_as_text_or_bytes;

/// `text` with control and direction-changing characters replaced, so that outside text cannot
/// break a line or drive a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || bidi { '\u{fffd}' } else { c }
        })
        .collect()
}

/// A number of bytes with a binary unit, rounded for people: `1.5 GiB`.
#[expect(clippy::cast_precision_loss, reason = "rounded for people anyway")]
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or("KiB");
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_rfc_4648_in_lower_case() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(from_base32("mzxw6ytboi"), Some(b"foobar".to_vec()));
        assert_eq!(from_base32("MZXW6YTBOI"), None);
    }

    #[test]
    fn printable_keeps_lines_whole() {
        assert_eq!(
            printable("a\nb\u{1b}[31m\u{202e}c"),
            "a\u{fffd}b\u{fffd}[31m\u{fffd}c"
        );
    }
}
