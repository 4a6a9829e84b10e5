//! What the machine gives: room, files, names.

use std::net::ToSocketAddrs as _;

use gatereeve_shared::text::bytes;

use super::Check;
use super::running::process_of;
use crate::state_dir::settings::Settings;
use crate::state_dir::{StateDir, space};
use gatereeve_runtime::words::in_words;

/// With less than this changes are about to be refused.
const FULL: u64 = 64 << 20;
/// Files that a controller should be allowed to have open: sockets, segments, admin connections.
const OPEN_FILES: u64 = 1024;

pub(super) fn disk(dir: &StateDir) -> Vec<Check> {
    let check = match space::measure(dir) {
        Ok(disk) => match space::warning(disk) {
            Some(found) if disk.free < FULL => {
                Check::problem("disk", found, "make room before changes are refused")
            }
            Some(found) => Check::warning("disk", found, "make room"),
            None => Check::ok(
                "disk",
                format!(
                    "the journal takes {}, {} are left",
                    bytes(disk.journal),
                    bytes(disk.free)
                ),
            ),
        },
        Err(error) => Check::problem(
            "disk",
            error.to_string(),
            "look at the state directory's file system",
        ),
    };
    vec![check]
}

/// Whether devices find what invites tell them.
pub(super) fn advertised(dir: &StateDir) -> Vec<Check> {
    let settings = match Settings::load(&dir.settings()) {
        Ok(settings) => settings,
        Err(error) => {
            return vec![Check::problem(
                "settings",
                in_words(&error),
                "put the file `config` in the state directory back from a backup",
            )];
        }
    };
    let mut found = Vec::new();
    let mut bad = 0usize;
    for name in &settings.advertise {
        match name.to_socket_addrs() {
            Ok(mut addresses) => match addresses.next() {
                Some(address) => found.push(format!("{name} is {}", address.ip())),
                None => {
                    bad = bad.saturating_add(1);
                    found.push(format!("{name} has no address"));
                }
            },
            Err(error) => {
                bad = bad.saturating_add(1);
                found.push(format!("{name}: {error}"));
            }
        }
    }
    let advice = "mend the name in DNS, or edit `advertise` in the state directory's file `config` and restart; \
                  invites that were made already keep the old name";
    let found = found.join("; ");
    vec![if bad == 0 {
        Check::ok("advertised", found)
    } else if bad < settings.advertise.len() {
        Check::warning("advertised", found, advice)
    } else {
        Check::problem("advertised", found, advice)
    }]
}

/// The limit of the running controller, or else of whoever asks.
pub(super) fn open_files(dir: &StateDir) -> Check {
    let (whose, path) = match process_of(dir) {
        Some(pid) => ("the controller", format!("/proc/{pid}/limits")),
        None => ("this shell", "/proc/self/limits".to_owned()),
    };
    let limit = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| soft_limit(&text));
    match limit {
        None => Check::warning(
            "open files",
            format!("cannot tell from {path}"),
            "run this as root",
        ),
        Some(limit) if limit < OPEN_FILES => Check::warning(
            "open files",
            format!("{whose} may have {limit} files open"),
            "LimitNOFILE=65536 in the unit, or ulimit -n",
        ),
        Some(limit) => Check::ok("open files", format!("{whose} may have {limit} files open")),
    }
}

/// The soft limit of open files in the text of `/proc/PID/limits`.
fn soft_limit(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63432                63432                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(
            soft_limit("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(soft_limit("Max processes 1 1"), None);
        let own = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert!(soft_limit(&own).is_some());
    }
}
