//! UEFI Secure Boot, from efivars.

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

/// The EFI global variable namespace (UEFI specification, section 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// The fact `secure_boot`: `SecureBoot` is 1 and `SetupMode`, in which anyone may enroll keys, is 0.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let value = match (variable(host, "SecureBoot"), variable(host, "SetupMode")) {
        (Some(1), Some(0)) => FactValue::Bool(true),
        (Some(0), _) | (Some(1), Some(_)) => FactValue::Bool(false),
        _ if !host.path("/sys/firmware/efi").exists() => {
            FactValue::Unknown("the machine was not started by UEFI, or does not show it".into())
        }
        _ => FactValue::Unknown(format!(
            "{EFIVARS} has no readable SecureBoot and SetupMode"
        )),
    };
    CollectedFact::new(
        names::SECURE_BOOT,
        value,
        format!("{EFIVARS}/SecureBoot-{GLOBAL}"),
    )
}

/// The value of a one-byte variable: four bytes of attributes come first.
fn variable(host: &dyn Host, name: &str) -> Option<u8> {
    match std::fs::read(host.path(&format!("{EFIVARS}/{name}-{GLOBAL}")))
        .ok()?
        .as_slice()
    {
        [_, _, _, _, value] => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn with(secure_boot: &[u8], setup_mode: &[u8]) -> FactValue {
        let fixture = Fixture::new()
            .file(&format!("{EFIVARS}/SecureBoot-{GLOBAL}"), secure_boot)
            .file(&format!("{EFIVARS}/SetupMode-{GLOBAL}"), setup_mode);
        collect(&fixture).value
    }

    #[test]
    fn only_secure_boot_out_of_setup_mode_is_good() {
        let on = [6, 0, 0, 0, 1];
        let off = [6, 0, 0, 0, 0];
        assert_eq!(with(&on, &off), FactValue::Bool(true));
        assert_eq!(with(&off, &off), FactValue::Bool(false));
        assert_eq!(with(&on, &on), FactValue::Bool(false));
        for malformed in [
            &[][..],
            &[6, 0, 0, 0],
            &[6, 0, 0, 0, 1, 1],
            &[6, 0, 0, 0, 7],
        ] {
            assert!(
                matches!(with(malformed, &off), FactValue::Unknown(_)),
                "{malformed:?}"
            );
        }
    }
}
