//! Takes out of a text what is nobody else's business: addresses, people, keys, invites.
//!
//! A text is cut into words; a word goes as a whole where it looks like one of these. It is better to
//! lose a word too many than to send a secret.

use std::net::IpAddr;

/// A word of at least this many characters that could be hexadecimal, base32 or base64 goes.
const KEY: usize = 24;

/// `text` without what should not leave the machine.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if is_between(c) {
            clean.push_str(&checked(&word));
            word.clear();
            clean.push(c);
        } else {
            word.push(c);
        }
    }
    clean.push_str(&checked(&word));
    clean
}

/// What no address, name or key holds.
fn is_between(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\'' | '\\' | '(' | ')' | ',' | ';' | '<' | '>' | '{' | '}' | '|' | '`'
        )
}

fn checked(word: &str) -> String {
    if word.is_empty() {
        return String::new();
    }
    // A log line's field: the name may stay.
    if let Some((name, value)) = word.split_once('=')
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        && !value.trim_end_matches('=').is_empty()
    {
        return format!("{name}={}", checked(value));
    }
    if word.starts_with("gatereeve-invite") {
        return "[invite]".to_owned();
    }
    if word.contains('@') && !word.starts_with('@') {
        return "[person]".to_owned();
    }
    if is_address(word) {
        return "[address]".to_owned();
    }
    if is_key(word) {
        return "[key]".to_owned();
    }
    word.to_owned()
}

/// An IP address, bare or with a port, a prefix length, brackets or a full stop behind it.
fn is_address(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| matches!(c, '.' | ':' | '!' | '?' | '*'));
    let unspecified = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
    let parsed = |text: &str| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        let text = text.split_once('%').map_or(text, |(address, _)| address);
        text.parse::<IpAddr>().ok()
    };
    let host = bare.rsplit_once(':').map_or(bare, |(host, _)| host);
    let prefix = bare.split_once('/').map_or(bare, |(address, _)| address);
    [bare, host, prefix]
        .into_iter()
        .filter_map(parsed)
        .any(|ip| !unspecified(ip))
}

/// A run of characters as keys and their encodings have them, in a path or behind a colon too.
fn is_key(word: &str) -> bool {
    word.split(['/', ':', '.'])
        .chain([word])
        .any(|part| part.len() >= KEY && has_key_shape(part))
}

fn has_key_shape(part: &str) -> bool {
    let in_alphabet =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_');
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let upper = part.bytes().filter(u8::is_ascii_uppercase).count();
    // Words of a language are long, too, in names of modules and services; they have hardly a digit
    // or a capital letter.
    part.bytes().all(in_alphabet) && digits.saturating_add(upper) >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_people_and_addresses_go() {
        let key = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq8A=";
        let hex = "deadbeef00112233445566778899aabbccddeeff00112233445566778899aabb";
        for secret in [
            key,
            hex,
            "gatereeve-invite-1.abc.def",
            "alice@example.com",
            "192.0.2.7",
            "192.0.2.7:8443",
            "192.0.2.0/24",
            "2001:db8::1",
            "[2001:db8::1]:8443",
            "fe80::1%eth0",
        ] {
            for text in [
                secret.to_owned(),
                format!("peer {secret}, and more"),
                format!("field={secret}"),
                format!("{{\"a\":\"{secret}\"}}"),
                format!("({secret})."),
            ] {
                let clean = redact(&text);
                assert!(!clean.contains(secret), "{text} became {clean}");
                assert!(clean.contains('['), "{text} became {clean}");
            }
        }
    }

    #[test]
    fn quotes_that_are_escaped_hide_nothing() {
        for secret in [
            "192.0.2.7",
            "deadbeef00112233445566778899aabbccddeeff00112233445566778899aabb",
        ] {
            let text =
                format!("{{\"error\": \"peer \\\"{secret}\\\" is gone\\nand {secret}\\n\"}}");
            let left = redact(&text);
            assert!(!left.contains(secret), "{left}");
            assert!(left.contains("is gone"), "{left}");
        }
    }

    #[test]
    fn what_helps_stays() {
        for text in [
            "2026-11-25T18:00:00Z WARN gatereeve_controller::store::keeper: tables were not written",
            "the journal takes 12.5 MiB, 3 devices connected, version 0.1.0",
            "cannot open /var/lib/gatereeve-controller/tables: Permission denied (os error 13)",
            "listening on 0.0.0.0:8443 and [::]:8443",
            "error=\"the disk is full\" bytes=123456789",
            "Linux 6.18.0-rc5-amd64 x86_64",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
