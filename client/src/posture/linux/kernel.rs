//! The running kernel's release.

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

const SOURCE: &str = "/proc/sys/kernel/osrelease";

/// The fact `kernel`.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let value = match host.read(SOURCE) {
        Ok(text) if !text.trim().is_empty() => FactValue::Text(text.trim().to_owned()),
        Ok(_) => FactValue::Unknown(format!("{SOURCE} is empty")),
        Err(why) => FactValue::Unknown(why),
    };
    CollectedFact::new(names::KERNEL, value, SOURCE)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn the_release_is_read_as_it_is() {
        let fixture = Fixture::new().file(SOURCE, "6.1.0-18-amd64\n");
        assert_eq!(
            collect(&fixture).value,
            FactValue::Text("6.1.0-18-amd64".into())
        );
        assert!(matches!(
            collect(&Fixture::new()).value,
            FactValue::Unknown(_)
        ));
    }
}
