//! Disk encryption of the root and home volumes: dm-crypt somewhere below each of them.
//!
//! Read from sysfs, without opening a device: a device-mapper target of dm-crypt carries a uuid that
//! begins with `CRYPT-` (cryptsetup sets it); LVM and RAID on top of it are followed through `slaves`.

use std::path::{Path, PathBuf};

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Layers of device mapper and RAID that are followed.
const MAX_DEPTH: usize = 8;

/// The fact `disk_encrypted`: false where one volume lies in the clear, unknown where one cannot be
/// told, true only where all are encrypted.
pub(in super::super) fn collect(host: &dyn Host) -> CollectedFact {
    let (value, source) = match host.read(MOUNTINFO) {
        Err(why) => (FactValue::Unknown(why), MOUNTINFO.to_owned()),
        Ok(text) => judge(host, &volumes(&text)),
    };
    CollectedFact::new(names::DISK_ENCRYPTED, value, source)
}

/// A mounted volume.
#[derive(Debug, PartialEq, Eq)]
struct Volume {
    mount_point: String,
    device: String,
    filesystem: String,
    mount_source: String,
}

/// Root, home, and what is mounted directly below home. Of two mounts at one point the later one,
/// which covers the other.
fn volumes(mountinfo: &str) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for volume in mountinfo.lines().filter_map(volume) {
        let point = volume.mount_point.as_str();
        let below_home = point
            .strip_prefix("/home/")
            .is_some_and(|rest| !rest.contains('/'));
        if point == "/" || point == "/home" || below_home {
            volumes.retain(|earlier| earlier.mount_point != volume.mount_point);
            volumes.push(volume);
        }
    }
    volumes
}

/// One line of proc_pid_mountinfo(5).
fn volume(line: &str) -> Option<Volume> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let mut right = right.split(' ');
    Some(Volume {
        device: left.next()?.to_owned(),
        mount_point: left.nth(1)?.to_owned(),
        filesystem: right.next()?.to_owned(),
        mount_source: right.next()?.to_owned(),
    })
}

fn judge(host: &dyn Host, volumes: &[Volume]) -> (FactValue, String) {
    let mut unknown = None;
    let mut seen = Vec::new();
    if !volumes.iter().any(|volume| volume.mount_point == "/") {
        unknown = Some("no root volume is mounted".to_owned());
    }
    for volume in volumes {
        let Some(block) = block_device(host, volume) else {
            unknown.get_or_insert_with(|| {
                format!(
                    "{} is {}, which has no block device to follow",
                    volume.mount_point, volume.filesystem
                )
            });
            continue;
        };
        seen.push(format!(
            "{} on {}",
            volume.mount_point,
            block.file_name().unwrap_or_default().to_string_lossy()
        ));
        match is_encrypted(&block, 0) {
            Some(true) => {}
            Some(false) => return (FactValue::Bool(false), seen.join(", ")),
            None => {
                unknown.get_or_insert_with(|| {
                    format!("{} cannot be followed in sysfs", volume.mount_point)
                });
            }
        }
    }
    let source = if seen.is_empty() {
        MOUNTINFO.to_owned()
    } else {
        seen.join(", ")
    };
    (
        unknown.map_or(FactValue::Bool(true), FactValue::Unknown),
        source,
    )
}

/// The volume's directory in sysfs. Filesystems with numbers of their own (btrfs) are found by the
/// device that was mounted.
fn block_device(host: &dyn Host, volume: &Volume) -> Option<PathBuf> {
    if !volume.device.starts_with("0:") {
        return fs_dir(&host.path(&format!("/sys/dev/block/{}", volume.device)));
    }
    let name = volume.mount_source.strip_prefix("/dev/")?;
    let Some(mapped) = name.strip_prefix("mapper/") else {
        return fs_dir(&host.path(&format!("/sys/class/block/{}", name.replace('/', "!"))));
    };
    let blocks = std::fs::read_dir(host.path("/sys/class/block")).ok()?;
    blocks
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            std::fs::read_to_string(path.join("dm/name")).is_ok_and(|text| text.trim() == mapped)
        })
        .and_then(|path| fs_dir(&path))
}

fn fs_dir(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_dir())
}

/// Whether dm-crypt is at or below this device: of several devices below, under every one.
fn is_encrypted(block: &Path, depth: usize) -> Option<bool> {
    if depth >= MAX_DEPTH {
        return None;
    }
    if std::fs::read_to_string(block.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("CRYPT-")) {
        return Some(true);
    }
    let slaves: Vec<PathBuf> = std::fs::read_dir(block.join("slaves"))
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect()
        })
        .unwrap_or_default();
    if slaves.is_empty() {
        // A partition or a disk: nothing below it could encrypt, but a disk's own firmware could,
        // and that cannot be seen from here.
        return Some(false);
    }
    let mut verdict = Some(true);
    for slave in slaves {
        match fs_dir(&slave).and_then(|slave| is_encrypted(&slave, depth + 1)) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => verdict = None,
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const PLAIN: &str = "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n";
    const LVM_ON_LUKS: &str = "22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n";

    fn luks(fixture: Fixture) -> Fixture {
        fixture
            .file(
                "/sys/devices/virtual/block/dm-0/dm/uuid",
                "CRYPT-LUKS2-abc-luks\n",
            )
            .file("/sys/devices/virtual/block/dm-0/dm/name", "luks\n")
            .file("/sys/devices/virtual/block/dm-1/dm/uuid", "LVM-xyz\n")
            .link("/sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0")
            .link("/sys/dev/block/253:1", "../../devices/virtual/block/dm-1")
            .link("/sys/class/block/dm-0", "../../devices/virtual/block/dm-0")
            .dir("/sys/devices/pci/block/sda/sda2")
            .link("/sys/dev/block/8:2", "../../devices/pci/block/sda/sda2")
    }

    fn value(mountinfo: &str) -> FactValue {
        collect(&luks(Fixture::new().file(MOUNTINFO, mountinfo))).value
    }

    #[test]
    fn lvm_on_luks_is_followed_and_a_plain_partition_is_not_encrypted() {
        assert_eq!(value(LVM_ON_LUKS), FactValue::Bool(true));
        assert_eq!(value(PLAIN), FactValue::Bool(false));
    }

    #[test]
    fn a_plain_home_spoils_an_encrypted_root() {
        let home = "30 22 8:2 / /home rw - ext4 /dev/sda2 rw\n";
        assert_eq!(
            value(&format!("{LVM_ON_LUKS}{home}")),
            FactValue::Bool(false)
        );
        let elsewhere = "30 22 8:2 / /srv rw - ext4 /dev/sda2 rw\n";
        assert_eq!(
            value(&format!("{LVM_ON_LUKS}{elsewhere}")),
            FactValue::Bool(true)
        );
    }

    #[test]
    fn btrfs_is_found_by_what_was_mounted() {
        assert_eq!(
            value("22 1 0:25 /@ / rw - btrfs /dev/mapper/luks rw\n"),
            FactValue::Bool(true)
        );
        assert!(matches!(
            value("22 1 0:25 / / rw - btrfs /dev/mapper/gone rw\n"),
            FactValue::Unknown(_)
        ));
    }

    #[test]
    fn what_has_no_block_device_is_unknown() {
        for mountinfo in ["", "22 1 0:30 / / rw - overlay overlay rw\n", "garbage\n"] {
            assert!(
                matches!(value(mountinfo), FactValue::Unknown(_)),
                "{mountinfo:?}"
            );
        }
        let nfs_home = "30 22 0:40 / /home rw - nfs4 server:/home rw\n";
        assert!(matches!(
            value(&format!("{LVM_ON_LUKS}{nfs_home}")),
            FactValue::Unknown(_)
        ));
    }

    #[test]
    fn the_later_mount_at_a_point_counts() {
        assert_eq!(
            value(&format!("{LVM_ON_LUKS}{PLAIN}")),
            FactValue::Bool(false)
        );
        assert_eq!(
            value(&format!("{PLAIN}{LVM_ON_LUKS}")),
            FactValue::Bool(true)
        );
    }
}
