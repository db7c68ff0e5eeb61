//! Signatures that other software leaves on disks, at either end. Pure.
//!
//! An own table rather than libblkid's: it covers the ends of a disk, has no cache or database that could be
//! stale, and cannot be configured away. Offsets and bytes are those of each format's public documentation or
//! kernel header. A device may hold something that is not listed; that is why blankness also means zeros.
//!
//! Invariants: `every_listed_signature_is_found`, `zeros_have_no_signature`.

use crate::content::Ends;

/// Where a signature lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Bytes from the start.
    Start(u64),
    /// Bytes before the end.
    End(u64),
    /// Bytes before the end, after the end was rounded down to a multiple of the first number.
    RoundedEnd(u64, u64),
}

use Place::{End, RoundedEnd, Start};

const MD: &[u8] = &[0xFC, 0x4E, 0x2B, 0xA9];
const MD_SWAPPED: &[u8] = &[0xA9, 0x2B, 0x4E, 0xFC];
const SWAP: &[u8] = b"SWAPSPACE2";
const SWAP_1: &[u8] = b"SWAP-SPACE";
const HIBERNATED: &[u8] = b"S1SUSPEND";
const LVM: &[u8] = b"LABELONE";
const LUKS: &[u8] = b"LUKS\xBA\xBE";
const LUKS_COPY: &[u8] = b"SKUL\xBA\xBE";
const GPT: &[u8] = b"EFI PART";
const OCFS2: &[u8] = b"OCFSV2";

const TABLE: &[(&str, Place, &[u8])] = &[
    // partition tables
    ("gpt partition table", Start(512), GPT),
    ("gpt partition table", Start(4096), GPT),
    ("gpt partition table (backup)", End(512), GPT),
    ("gpt partition table (backup)", End(4096), GPT),
    ("dos partition table or boot sector", Start(510), &[0x55, 0xAA]),
    ("apple partition map", Start(512), b"PM\0\0"),
    // RAID and volume managers
    ("md raid (1.1)", Start(0), MD),
    ("md raid (1.2)", Start(4096), MD),
    ("md raid (1.0)", RoundedEnd(4096, 8192), MD),
    ("md raid (0.90)", RoundedEnd(65536, 65536), MD),
    ("md raid (0.90)", RoundedEnd(65536, 65536), MD_SWAPPED),
    ("intel matrix raid", End(1024), b"Intel Raid ISM Cfg Sig. "),
    ("ddf raid", End(512), &[0xDE, 0x11, 0xDE, 0x11]),
    ("ddf raid", End(512), &[0x11, 0xDE, 0x11, 0xDE]),
    ("lvm physical volume", Start(0), LVM),
    ("lvm physical volume", Start(512), LVM),
    ("lvm physical volume", Start(1024), LVM),
    ("lvm physical volume", Start(1536), LVM),
    ("drbd", RoundedEnd(4096, 4096 - 60), &[0x83, 0x74, 0x02, 0x6B]),
    ("drbd", RoundedEnd(4096, 4096 - 60), &[0x83, 0x74, 0x02, 0x6C]),
    ("drbd", RoundedEnd(4096, 4096 - 60), &[0x83, 0x74, 0x02, 0x6D]),
    ("bcache or bcachefs", Start(4120), &[0xC6, 0x85, 0x73, 0xF6]),
    ("stratis", Start(528), b"!Stra0tis\x86\xFF\x02^\x0Arh"),
    ("vdo", Start(0), b"dmvdo001"),
    ("dm-integrity", Start(0), b"integrt\0"),
    ("dm-verity", Start(0), b"verity\0\0"),
    // encryption
    ("luks", Start(0), LUKS),
    ("luks", Start(0x4000), LUKS_COPY),
    ("luks", Start(0x8000), LUKS_COPY),
    ("luks", Start(0x1_0000), LUKS_COPY),
    ("luks", Start(0x2_0000), LUKS_COPY),
    ("luks", Start(0x4_0000), LUKS_COPY),
    ("luks", Start(0x8_0000), LUKS_COPY),
    ("luks", Start(0x10_0000), LUKS_COPY),
    ("luks", Start(0x20_0000), LUKS_COPY),
    ("luks", Start(0x40_0000), LUKS_COPY),
    ("bitlocker", Start(3), b"-FVE-FS-"),
    // swap, for each page size
    ("swap", Start(4096 - 10), SWAP),
    ("swap", Start(8192 - 10), SWAP),
    ("swap", Start(16384 - 10), SWAP),
    ("swap", Start(65536 - 10), SWAP),
    ("swap", Start(4096 - 10), SWAP_1),
    ("hibernation image", Start(4096 - 10), HIBERNATED),
    // file systems and stores
    ("xfs", Start(0), b"XFSB"),
    ("ext2, ext3 or ext4", Start(1080), &[0x53, 0xEF]),
    ("btrfs", Start(65600), b"_BHRfS_M"),
    ("f2fs", Start(1024), &[0x10, 0x20, 0xF5, 0xF2]),
    ("ceph bluestore", Start(0), b"bluestore block device"),
    ("oracle asm", Start(32), b"ORCLDISK"),
    ("vmfs volume", Start(0x10_0000), &[0x0D, 0xD0, 0x01, 0xC0]),
    ("vmfs", Start(0x20_0000), &[0x5E, 0xF1, 0xAB, 0x2F]),
    ("ntfs", Start(3), b"NTFS    "),
    ("exfat", Start(3), b"EXFAT   "),
    ("fat", Start(54), b"FAT1"),
    ("fat", Start(82), b"FAT32"),
    ("apfs", Start(32), b"NXSB"),
    ("hfs+", Start(1024), b"H+"),
    ("hfsx", Start(1024), b"HX"),
    ("jfs", Start(32768), b"JFS1"),
    ("reiserfs", Start(65588), b"ReIsEr"),
    ("gfs2", Start(65536), &[0x01, 0x16, 0x19, 0x70]),
    ("ocfs2", Start(1024), OCFS2),
    ("ocfs2", Start(2048), OCFS2),
    ("ocfs2", Start(4096), OCFS2),
    ("nilfs2", Start(1030), &[0x34, 0x34]),
    ("erofs", Start(1024), &[0xE2, 0xE1, 0xF5, 0xE0]),
    ("squashfs", Start(0), b"hsqs"),
    ("iso9660", Start(32769), b"CD001"),
    ("udf", Start(32769), b"BEA01"),
];

/// Names of every signature found, each once, in the order of the table.
#[must_use]
pub fn find(ends: &Ends) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (name, place, magic) in TABLE {
        if !found.contains(name) && is_at(ends, *place, magic) {
            found.push(*name);
        }
    }
    if has_zfs_label(ends) {
        found.push("zfs");
    }
    found
}

/// Names of the signatures of our own kinds of file system, as [`find`] returns them.
pub const OWN_KINDS: [&str; 2] = ["xfs", "ext2, ext3 or ext4"];

fn offset(size: u64, place: Place) -> Option<u64> {
    match place {
        Start(at) => Some(at),
        End(before) => size.checked_sub(before),
        RoundedEnd(to, before) => (size - size % to).checked_sub(before),
    }
}

fn is_at(ends: &Ends, place: Place, magic: &[u8]) -> bool {
    offset(ends.size(), place).and_then(|at| ends.at(at, magic.len())) == Some(magic)
}

/// ZFS keeps four labels, two at each end, each with a ring of uberblocks that start with `0x00bab10c` in the byte
/// order of the machine that wrote them.
fn has_zfs_label(ends: &Ends) -> bool {
    const LABEL: u64 = 256 << 10;
    const RING_START: u64 = 128 << 10;
    const SLOT: u64 = 1 << 10;
    let aligned = ends.size() - ends.size() % LABEL;
    let labels = [Some(0), Some(LABEL), aligned.checked_sub(2 * LABEL), aligned.checked_sub(LABEL)];
    let is_uberblock = |at: u64| {
        ends.at(at, 8).is_some_and(|b| {
            b == 0x00BA_B10C_u64.to_le_bytes().as_slice() || b == 0x00BA_B10C_u64.to_be_bytes().as_slice()
        })
    };
    labels
        .into_iter()
        .flatten()
        .any(|label| (0..RING_START / SLOT).any(|slot| is_uberblock(label + RING_START + slot * SLOT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Odd sectors at the end, so that rounding matters.
    const SIZE: usize = (34 << 20) + 3 * 512;

    fn place(bytes: &mut [u8], at: u64, magic: &[u8]) {
        let at = usize::try_from(at).unwrap();
        bytes[at..at + magic.len()].copy_from_slice(magic);
    }

    #[test]
    fn every_listed_signature_is_found() {
        let mut bytes = vec![0; SIZE];
        for (name, at, magic) in TABLE {
            let at = offset(SIZE as u64, *at).unwrap();
            place(&mut bytes, at, magic);
            assert!(find(&Ends::of(&bytes)).contains(name), "{name} at {at}");
            place(&mut bytes, at, &vec![0; magic.len()]);
        }
    }

    #[test]
    fn zfs_is_found_by_any_of_its_labels() {
        let end = (SIZE - SIZE % (256 << 10)) as u64;
        for label in [0, 256 << 10, end - (512 << 10), end - (256 << 10)] {
            let mut bytes = vec![0; SIZE];
            place(&mut bytes, label + (128 << 10) + 5 * 1024, &0x00BA_B10C_u64.to_le_bytes());
            assert_eq!(find(&Ends::of(&bytes)), ["zfs"], "label at {label}");
        }
    }

    #[test]
    fn zeros_have_no_signature() {
        assert_eq!(find(&Ends::of(&vec![0; SIZE])), Vec::<&str>::new());
        assert_eq!(find(&Ends::of(&[0; 512])), Vec::<&str>::new());
    }
}
