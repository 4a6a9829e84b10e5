//! What may be lost: last reports and when a device was last heard of. Lost is unknown.

use std::collections::BTreeMap;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::device::StoredReport;
use super::tables::{read, value};

/// Soft state of all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// By device.
    pub devices: BTreeMap<DeviceId, SoftDevice>,
}

/// Soft state of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftDevice {
    /// Its last posture report.
    pub report: Option<StoredReport>,
    /// When it was last heard of.
    pub last_seen: Option<UnixMillis>,
    /// Its client's version.
    pub software: Option<String>,
}

impl SoftState {
    /// The soft state behind its rows. Unreadable rows are dropped.
    #[must_use]
    pub fn from_rows<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let devices = rows
            .into_iter()
            .filter_map(|(key, bytes)| {
                let (table, id) = key.as_ref().split_first()?;
                let id = DeviceId(id.try_into().ok()?);
                (*table == b's')
                    .then(|| Some((id, read(key.as_ref(), bytes.as_ref()).ok()?)))
                    .flatten()
            })
            .collect();
        Self { devices }
    }

    /// The write that stores, or deletes, one device's row.
    #[must_use]
    pub fn write(&self, device: &DeviceId) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = [b"s".as_slice(), &device.0].concat();
        (key, self.devices.get(device).and_then(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_broken_ones_are_unknown() {
        let id = DeviceId([1; 20]);
        let mut soft = SoftState::default();
        soft.devices.insert(
            id,
            SoftDevice {
                last_seen: Some(UnixMillis(7)),
                ..SoftDevice::default()
            },
        );
        let (key, bytes) = soft.write(&id);
        let bytes = bytes.unwrap();
        assert_eq!(SoftState::from_rows([(&key, &bytes)]), soft);
        assert_eq!(
            SoftState::from_rows([(&key, &bytes[..1]), (&vec![], &bytes[..])]),
            SoftState::default()
        );
    }
}
