//! Screen lock, where the machine's administrator has settled it.
//!
//! A user's own setting can change at any moment and lies in formats of each desktop; what counts
//! here is a setting that the user cannot change: a locked dconf key (GNOME) or an immutable key of
//! kscreenlockerrc (KDE Plasma). Anything else is unknown.

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

const GNOME_KEY: &str = "/org/gnome/desktop/screensaver/lock-enabled";
const DCONF: &str = "/etc/dconf/db";
const KDE: &str = "/etc/xdg/kscreenlockerrc";

/// The fact `screen_lock`.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let (value, source) = gnome(host)
        .map(|value| (FactValue::Bool(value), DCONF))
        .or_else(|| kde(host).map(|value| (FactValue::Bool(value), KDE)))
        .unwrap_or_else(|| {
            let why = if has_desktop(host) {
                "no locked setting of GNOME or KDE Plasma tells"
            } else {
                "there is no desktop"
            };
            (FactValue::Unknown(why.into()), "/usr/share/xsessions")
        });
    CollectedFact::new(names::SCREEN_LOCK, value, source)
}

fn has_desktop(host: &dyn Host) -> bool {
    ["/usr/share/xsessions", "/usr/share/wayland-sessions"]
        .into_iter()
        .any(|path| {
            std::fs::read_dir(host.path(path)).is_ok_and(|mut entries| entries.next().is_some())
        })
}

/// `lock-enabled` from a database directory that also locks it. Later files win, as in dconf(7).
fn gnome(host: &dyn Host) -> Option<bool> {
    let databases = std::fs::read_dir(host.path(DCONF)).ok()?;
    for database in databases.filter_map(Result::ok) {
        let locked = sorted_texts(&database.path().join("locks"))
            .iter()
            .any(|text| text.lines().any(|line| line.trim() == GNOME_KEY));
        let value = sorted_texts(&database.path())
            .iter()
            .filter_map(|text| ini_value(text, "org/gnome/desktop/screensaver", "lock-enabled"))
            .next_back();
        if let (true, Some(value)) = (locked, value) {
            return boolean(&value);
        }
    }
    None
}

/// `Autolock` marked immutable, on the key, its group or the file, as in KDE's kiosk mode.
fn kde(host: &dyn Host) -> Option<bool> {
    let text = host.read(KDE).ok()?;
    let whole_file = text.lines().find(|line| !line.trim().is_empty())?.trim() == "[$i]";
    let immutable = ini_value(&text, "Daemon", "Autolock[$i]")
        .or_else(|| ini_value(&text, "Daemon][$i", "Autolock"))
        .or_else(|| ini_value(&text, "Daemon", "Autolock").filter(|_| whole_file))?;
    boolean(&immutable)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn sorted_texts(directory: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect()
}

fn ini_value(text: &str, section: &str, key: &str) -> Option<String> {
    let mut inside = false;
    let mut value = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            inside = name == section;
        } else if inside
            && let Some((name, right)) = line.split_once('=')
            && name.trim() == key
        {
            value = Some(right.trim().to_owned());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const SETTING: &str = "[org/gnome/desktop/screensaver]\nlock-enabled=true\n";

    #[test]
    fn gnome_counts_when_locked_only() {
        let set = Fixture::new().file("/etc/dconf/db/local.d/00-lock", SETTING);
        assert!(matches!(collect(&set).value, FactValue::Unknown(_)));
        let locked = set.file("/etc/dconf/db/local.d/locks/lock", format!("{GNOME_KEY}\n"));
        assert_eq!(collect(&locked).value, FactValue::Bool(true));
        let off = locked.file(
            "/etc/dconf/db/local.d/10-later",
            "[org/gnome/desktop/screensaver]\nlock-enabled=false\n",
        );
        assert_eq!(collect(&off).value, FactValue::Bool(false));
    }

    #[test]
    fn plasma_counts_when_immutable_only() {
        let value = |text: &str| collect(&Fixture::new().file(KDE, text)).value;
        assert!(matches!(
            value("[Daemon]\nAutolock=true\n"),
            FactValue::Unknown(_)
        ));
        assert_eq!(
            value("[Daemon]\nAutolock[$i]=true\n"),
            FactValue::Bool(true)
        );
        assert_eq!(
            value("[Daemon][$i]\nAutolock=true\n"),
            FactValue::Bool(true)
        );
        assert_eq!(
            value("[$i]\n[Daemon]\nAutolock=false\n"),
            FactValue::Bool(false)
        );
    }
}
