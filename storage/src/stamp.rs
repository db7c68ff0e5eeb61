//! The stamp: who formats, or formatted, a device, written on the device itself, beyond the file system.
//!
//! The file system leaves the last two MiB of a device alone. One MiB before the end lies the stamp: a framed
//! record with the volume's identity and whether formatting was finished. It answers without mounting whose disk
//! this is, and after a crash at any point of formatting that the remains are ours. A state file on another disk
//! could do neither: instance stores are emptied behind its back, and disks move.
//!
//! File system UUID and label are derived from cluster, node and incarnation, so that stamp and file system vouch
//! for each other.
//!
//! Invariants: `a_stamp_survives_a_round_trip`, `a_damaged_or_newer_stamp_is_never_read_as_none`; that mkfs leaves
//! the stamp alone: `tests/devices/format.rs`.

use holdfast_model::record::{self, RecordError, RecordKind};
use holdfast_model::volume::VolumeIdentity;
use holdfast_model::{ByteCount, ClusterName, Incarnation, NodeName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::content::Ends;

const KIND: RecordKind = RecordKind { tag: *b"vstp", version: 1, name: "volume stamp" };
/// The stamp's place, in bytes from the end.
const FROM_END: u64 = 1 << 20;
/// What the file system leaves alone at the end, in bytes.
const FS_LEAVES: u64 = 2 << 20;
/// Room for the stamp in bytes: one direct write.
pub const LEN: usize = 4096;
const ALIGN: u64 = 4096;
/// Namespace of file system UUIDs. Changing it orphans every volume.
const NAMESPACE: Uuid = Uuid::from_u128(0x7c1f_52b0_3d86_4c0e_a6f4_9b8e_d2c0_61a5);

/// How far formatting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// mkfs may have written anything; nothing was ever stored on the file system.
    Formatting,
    /// The file system was made and verified.
    Formatted,
}

/// Whose device this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// How far formatting has come.
    pub step: Step,
    /// Capacity of the device when it was formatted.
    pub device_size: ByteCount,
    /// What the identity record on the file system says, or will say.
    pub identity: VolumeIdentity,
}

/// Where the stamp lies on a device of `size` bytes.
#[must_use]
pub const fn offset(size: u64) -> u64 {
    (size - size % ALIGN).saturating_sub(FROM_END)
}

/// How many bytes of a device of `size` bytes the file system gets: whole MiB.
#[must_use]
pub const fn fs_size(size: u64) -> u64 {
    (size - size % (1 << 20)).saturating_sub(FS_LEAVES)
}

/// UUID of the file system of this member.
#[must_use]
pub fn fs_uuid(cluster: &ClusterName, node: &NodeName, incarnation: Incarnation) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{cluster}/{node}/{incarnation}").as_bytes())
}

/// Label of the file system with this UUID: 11 bytes, of the 12 that XFS allows.
#[must_use]
pub fn label(fs_uuid: Uuid) -> String {
    format!("hf-{:08x}", fs_uuid.as_fields().0)
}

/// The stamp on a device; `None` where there is nothing of ours.
///
/// # Errors
/// [`RecordError`] for a stamp that is damaged or too new: it was ours, so the device is not blank.
pub fn read(ends: &Ends) -> Result<Option<Stamp>, RecordError> {
    let Some(bytes) = ends.at(offset(ends.size()), LEN) else { return Ok(None) };
    match record::decode(KIND, bytes) {
        Ok(stamp) => Ok(Some(stamp)),
        Err(RecordError::Magic { .. }) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The bytes to write at [`offset`].
#[must_use]
pub fn encode(stamp: &Stamp) -> Vec<u8> {
    let mut bytes = record::encode(KIND, stamp);
    assert!(bytes.len() <= LEN, "names, serials and times are short");
    bytes.resize(LEN, 0);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::identity::tests::example;

    pub(crate) fn stamp(step: Step, size: u64) -> Stamp {
        let mut identity = example();
        identity.fs_uuid = fs_uuid(&identity.cluster, &identity.node, identity.incarnation);
        Stamp { step, device_size: ByteCount::new(size), identity }
    }

    pub(crate) fn put(bytes: &mut [u8], stamp: &Stamp) {
        let at = usize::try_from(offset(bytes.len() as u64)).unwrap();
        bytes[at..at + LEN].copy_from_slice(&encode(stamp));
    }

    #[test]
    fn a_stamp_survives_a_round_trip() {
        let mut bytes = vec![0; 4 << 20];
        assert_eq!(read(&Ends::of(&bytes)).unwrap(), None);
        let written = stamp(Step::Formatting, 4 << 20);
        put(&mut bytes, &written);
        assert_eq!(read(&Ends::of(&bytes)).unwrap(), Some(written));
    }

    #[test]
    fn a_damaged_or_newer_stamp_is_never_read_as_none() {
        let size = 4_u64 << 20;
        let mut bytes = vec![0; 4 << 20];
        put(&mut bytes, &stamp(Step::Formatted, size));
        let at = usize::try_from(offset(size)).unwrap();
        for byte in [8, 12, 25, 100] {
            let mut damaged = bytes.clone();
            damaged[at + byte] ^= 0x7F;
            assert!(read(&Ends::of(&damaged)).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn the_file_system_ends_before_the_stamp() {
        for size in [3 << 20, (320 << 20) + 512, 375_809_638_400_u64, u64::from(u32::MAX) * 513] {
            assert!(fs_size(size) <= offset(size));
            assert!(offset(size) + LEN as u64 <= size);
            assert_eq!(offset(size) % 4096, 0);
        }
    }

    #[test]
    fn the_label_fits_xfs() {
        assert_eq!(label(Uuid::from_u128(0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0)), "hf-12345678");
    }
}
