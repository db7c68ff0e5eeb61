//! Reads the superblocks of the two file systems that we make. Pure.
//!
//! Layouts: `struct xfs_dsb` (fs/xfs/libxfs/xfs_format.h, big-endian, checksum little-endian) and
//! `struct ext4_super_block` (fs/ext4/ext4.h, little-endian). Both are checksummed with CRC-32C; ext4 leaves out
//! the final inversion.
//!
//! Invariants: `flipping_any_byte_of_a_superblock_is_noticed`, and against real mkfs in `tests/devices/format.rs`.

use holdfast_model::volume::Filesystem;
use uuid::Uuid;

use crate::content::Ends;

/// What a superblock says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Which file system.
    pub filesystem: Filesystem,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its label.
    pub label: String,
    /// How many bytes of the device it uses.
    pub size: u64,
    /// Whether it can be believed.
    pub state: SuperblockState,
}

/// Whether a superblock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperblockState {
    /// Whole.
    Sound,
    /// mkfs has not finished.
    InProgress,
    /// The checksum does not match, or there is none.
    BadChecksum,
}

/// The XFS or ext4 superblock at the start of a device, if there is one of either.
#[must_use]
pub fn read(ends: &Ends) -> Option<Superblock> {
    read_xfs(ends).or_else(|| read_ext4(ends))
}

fn read_xfs(ends: &Ends) -> Option<Superblock> {
    const CHECKSUM_AT: usize = 224;
    let first = ends.at(0, 512)?;
    if &first[..4] != b"XFSB" {
        return None;
    }
    let sector = usize::from(u16::from_be_bytes(array(first, 102)));
    let block_size = u64::from(u32::from_be_bytes(array(first, 4)));
    let blocks = u64::from_be_bytes(array(first, 8));
    let sum_holds = (512..=32768).contains(&sector)
        && ends.at(0, sector).is_some_and(|whole| {
            let sum = crc32c::crc32c(&whole[..CHECKSUM_AT]);
            let sum = crc32c::crc32c_append(sum, &[0; 4]);
            let sum = crc32c::crc32c_append(sum, &whole[CHECKSUM_AT + 4..]);
            sum == u32::from_le_bytes(array(whole, CHECKSUM_AT))
        });
    let state = match (sum_holds, first[126]) {
        (true, 0) => SuperblockState::Sound,
        (true, _) => SuperblockState::InProgress,
        (false, _) => SuperblockState::BadChecksum,
    };
    Some(Superblock {
        filesystem: Filesystem::Xfs,
        uuid: Uuid::from_bytes(array(first, 32)),
        label: text(&first[108..120]),
        size: blocks.saturating_mul(block_size),
        state,
    })
}

fn read_ext4(ends: &Ends) -> Option<Superblock> {
    const CHECKSUM_AT: usize = 1020;
    const METADATA_CSUM: u32 = 0x400;
    let sb = ends.at(1024, 1024)?;
    if sb[56..58] != [0x53, 0xEF] {
        return None;
    }
    let le32 = |at| u32::from_le_bytes(array(sb, at));
    let blocks = u64::from(le32(4)) | u64::from(le32(336)) << 32;
    let block_size = 1024_u64.checked_shl(le32(24)).unwrap_or(0);
    let has_sum = le32(100) & METADATA_CSUM != 0;
    let sum_holds = has_sum && le32(CHECKSUM_AT) == !crc32c::crc32c(&sb[..CHECKSUM_AT]);
    Some(Superblock {
        filesystem: Filesystem::Ext4,
        uuid: Uuid::from_bytes(array(sb, 104)),
        label: text(&sb[120..136]),
        size: blocks.saturating_mul(block_size),
        state: if sum_holds { SuperblockState::Sound } else { SuperblockState::BadChecksum },
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn xfs(uuid: Uuid, label: &str) -> Vec<u8> {
        let mut sb = vec![0; 512];
        sb[..4].copy_from_slice(b"XFSB");
        sb[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        sb[8..16].copy_from_slice(&1000_u64.to_be_bytes());
        sb[32..48].copy_from_slice(uuid.as_bytes());
        sb[102..104].copy_from_slice(&512_u16.to_be_bytes());
        sb[108..108 + label.len()].copy_from_slice(label.as_bytes());
        let sum = crc32c::crc32c(&sb);
        sb[224..228].copy_from_slice(&sum.to_le_bytes());
        sb
    }

    fn ext4(uuid: Uuid) -> Vec<u8> {
        let mut sb = vec![0; 2048];
        sb[1024 + 4] = 9;
        sb[1024 + 24] = 2;
        sb[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xEF]);
        sb[1024 + 100..1024 + 104].copy_from_slice(&0x400_u32.to_le_bytes());
        sb[1024 + 104..1024 + 120].copy_from_slice(uuid.as_bytes());
        let sum = !crc32c::crc32c(&sb[1024..2044]);
        sb[2044..].copy_from_slice(&sum.to_le_bytes());
        sb
    }

    #[test]
    fn sound_superblocks_are_read() {
        let uuid = Uuid::from_u128(7);
        let read_xfs = read(&Ends::of(&xfs(uuid, "hf-1"))).unwrap();
        assert_eq!(
            (read_xfs.filesystem, read_xfs.uuid, read_xfs.label.as_str()),
            (Filesystem::Xfs, uuid, "hf-1")
        );
        assert_eq!((read_xfs.size, read_xfs.state), (4096 * 1000, SuperblockState::Sound));
        let read_ext4 = read(&Ends::of(&ext4(uuid))).unwrap();
        assert_eq!((read_ext4.filesystem, read_ext4.uuid), (Filesystem::Ext4, uuid));
        assert_eq!((read_ext4.size, read_ext4.state), (9 * 4096, SuperblockState::Sound));
        assert_eq!(read(&Ends::of(&[0; 4096])), None);
    }

    #[test]
    fn flipping_any_byte_of_a_superblock_is_noticed() {
        for (whole, range) in [(xfs(Uuid::from_u128(7), ""), 0..512), (ext4(Uuid::from_u128(7)), 1024..2048)]
        {
            for at in range {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                let state = read(&Ends::of(&flipped)).map(|sb| sb.state);
                assert_ne!(state, Some(SuperblockState::Sound), "byte {at}");
            }
        }
    }
}
