//! Distribution and version, from os-release(5).

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

/// The facts `os` and `os_version`.
pub(in super::super) fn collect(host: &dyn Host) -> Vec<CollectedFact> {
    // os-release(5): /etc first, /usr/lib behind it.
    let (source, text) = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| host.read(path).ok().map(|text| (path, text)))
        .unwrap_or(("/etc/os-release", String::new()));
    let fact = |id: &str, key: &str| {
        let value = field(&text, key).map_or_else(
            || FactValue::Unknown(format!("{source} has no {key}")),
            FactValue::Text,
        );
        CollectedFact::new(id, value, source)
    };
    vec![fact(names::OS, "ID"), fact(names::OS_VERSION, "VERSION_ID")]
}

/// The value of `KEY=value`, with or without quotes; `None` where absent or empty.
fn field(text: &str, key: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim();
    let unquoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    (!unquoted.is_empty()).then(|| unquoted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn values(os_release: &str) -> Vec<FactValue> {
        let fixture = Fixture::new().file("/etc/os-release", os_release);
        collect(&fixture)
            .into_iter()
            .map(|fact| fact.value)
            .collect()
    }

    #[test]
    fn quotes_are_taken_off() {
        let text = |value: &str| FactValue::Text(value.into());
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(values(debian), [text("debian"), text("12")]);
        assert_eq!(
            values("ID='ubuntu'\nVERSION_ID=22.04"),
            [text("ubuntu"), text("22.04")]
        );
    }

    #[test]
    fn what_a_rolling_distribution_does_not_say_is_unknown() {
        let values = values("ID=arch\nVERSION_ID=\n");
        assert_eq!(values[0], FactValue::Text("arch".into()));
        assert!(matches!(values[1], FactValue::Unknown(_)));
    }
}
