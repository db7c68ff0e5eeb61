//! Reads what a device holds: both ends whole, the rest by samples, always past the page cache.
//!
//! Invariants: `ends_answer_for_both_ends_and_for_nothing_between`, `small_devices_are_read_whole`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use holdfast_storage_io::buffer::AlignedBuf;
use uuid::Uuid;

use crate::wipe::Fingerprint;

/// How much of each end is read before a device may be called blank, in bytes.
pub const END_LEN: u64 = 16 << 20;
/// Enough of each end to find our own stamp and superblock, in bytes.
pub const OWN_LEN: u64 = 2 << 20;
/// How many blocks between the ends are sampled.
const SAMPLES: u64 = 4096;
const BLOCK: usize = 4096;
const PORTION: usize = 1 << 20;
/// Namespace of the digest; any constant will do.
const DIGEST: Uuid = Uuid::from_u128(0x1b5f_0a3e_90c4_4d57_8d11_5f3a_6e0c_2a77);
/// Where the sample of a fingerprint lies: fixed, so that two looks compare.
const DIGEST_SEED: u64 = 0x686f_6c64_6661_7374;

/// The first and the last bytes of a device. They overlap when the device is small.
#[derive(Debug)]
pub struct Ends {
    size: u64,
    head: AlignedBuf,
    tail: AlignedBuf,
}

impl Ends {
    /// Reads `len` bytes from each end of `device`, which is open for direct I/O and has `size` bytes.
    ///
    /// # Errors
    /// The kernel's; any makes the device sick.
    pub fn read(device: &File, size: u64, len: u64) -> io::Result<Self> {
        let len = len.min(size);
        let mut ends = Self { size, head: zeroed(len)?, tail: zeroed(len)? };
        read_portions(device, &mut ends.head, 0)?;
        read_portions(device, &mut ends.tail, size - len)?;
        Ok(ends)
    }

    /// The ends of a device whose whole content is `bytes`.
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let len = usize::try_from(END_LEN).unwrap().min(bytes.len());
        let head = AlignedBuf::copy_of(&bytes[..len]);
        let tail = AlignedBuf::copy_of(&bytes[bytes.len() - len..]);
        Self { size: bytes.len() as u64, head, tail }
    }

    /// Capacity of the device in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The `len` bytes at `offset`, if they lie within one of the ends.
    #[must_use]
    pub fn at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let within = |part: &'_ AlignedBuf, start: u64| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            let to = from.checked_add(len)?;
            (to <= part.len()).then_some((from, to))
        };
        if let Some((from, to)) = within(&self.head, 0) {
            return Some(&self.head[from..to]);
        }
        let (from, to) = within(&self.tail, self.size - self.tail.len() as u64)?;
        Some(&self.tail[from..to])
    }

    /// Where the first byte that is not zero lies.
    #[must_use]
    pub fn first_nonzero(&self) -> Option<u64> {
        let tail_start = self.size - self.tail.len() as u64;
        nonzero(&self.head).or_else(|| nonzero(&self.tail).map(|at| tail_start + at))
    }
}

/// Where the first sampled block that is not all zero lies; `seed` chooses the sample.
///
/// # Errors
/// The kernel's; any makes the device sick.
pub fn first_nonzero_sample(device: &File, size: u64, seed: u64) -> io::Result<Option<u64>> {
    let mut found = None;
    sample(device, size, seed, |at, block| {
        if found.is_none() {
            found = nonzero(block).map(|within| at + within);
        }
    })?;
    Ok(found)
}

/// Digest of the ends and of a fixed sample of blocks.
///
/// # Errors
/// The kernel's; any makes the device sick.
pub fn fingerprint(device: &File, ends: &Ends) -> io::Result<Fingerprint> {
    let mut crcs = Vec::new();
    let mut add = |bytes: &[u8]| crcs.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    ends.head.chunks(BLOCK).chain(ends.tail.chunks(BLOCK)).for_each(&mut add);
    sample(device, ends.size, DIGEST_SEED, |_, block| add(block))?;
    crcs.extend_from_slice(&ends.size.to_le_bytes());
    Ok(Fingerprint::new(Uuid::new_v5(&DIGEST, &crcs)))
}

fn sample(device: &File, size: u64, seed: u64, mut see: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let blocks = size / BLOCK as u64;
    if blocks == 0 {
        return Ok(());
    }
    let mut buf = AlignedBuf::zeroed(BLOCK);
    let mut state = seed;
    for _ in 0..SAMPLES {
        let at = (split_mix(&mut state) % blocks) * BLOCK as u64;
        device.read_exact_at(&mut buf, at)?;
        see(at, &buf);
    }
    Ok(())
}

/// The SplitMix64 generator: spreads a sample evenly; nothing here needs secrecy.
const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn zeroed(len: u64) -> io::Result<AlignedBuf> {
    usize::try_from(len).map(AlignedBuf::zeroed).map_err(io::Error::other)
}

fn read_portions(device: &File, buf: &mut [u8], start: u64) -> io::Result<()> {
    let mut at = start;
    for portion in buf.chunks_mut(PORTION) {
        device.read_exact_at(portion, at)?;
        at += portion.len() as u64;
    }
    Ok(())
}

fn nonzero(bytes: &[u8]) -> Option<u64> {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut at = 0;
    for block in bytes.chunks(BLOCK) {
        if block != &ZEROS[..block.len()] {
            let within = block.iter().position(|b| *b != 0).unwrap_or(0);
            return Some(at + within as u64);
        }
        at += block.len() as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_answer_for_both_ends_and_for_nothing_between() {
        let len = usize::try_from(END_LEN).unwrap();
        let mut bytes = vec![0; 3 * len];
        bytes[10] = 1;
        bytes[3 * len - 1] = 2;
        let ends = Ends::of(&bytes);
        assert_eq!(ends.at(10, 2), Some([1, 0].as_slice()));
        assert_eq!(ends.at(3 * END_LEN - 2, 2), Some([0, 2].as_slice()));
        for (offset, n) in
            [(END_LEN - 1, 2), (END_LEN, 1), (2 * END_LEN - 1, 1), (3 * END_LEN - 1, 2), (u64::MAX, 1)]
        {
            assert_eq!(ends.at(offset, n), None, "at {offset}");
        }
        assert_eq!(ends.first_nonzero(), Some(10));
        bytes[10] = 0;
        assert_eq!(Ends::of(&bytes).first_nonzero(), Some(3 * END_LEN - 1));
    }

    #[test]
    fn small_devices_are_read_whole() {
        let mut bytes = vec![0; 4096];
        bytes[4000] = 9;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let ends = Ends::read(file.as_file(), 4096, END_LEN).unwrap();
        assert_eq!(ends.first_nonzero(), Some(4000));
        assert_eq!(ends.at(0, 4096), Some(bytes.as_slice()));
    }

    #[test]
    fn a_changed_sample_changes_the_fingerprint() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let look = || fingerprint(&file, &Ends::read(&file, 4 << 20, 4096).unwrap()).unwrap();
        let first = look();
        assert_eq!(look(), first);
        assert_eq!(first_nonzero_sample(&file, 4 << 20, 1).unwrap(), None);
        file.write_all_at(&[1; 1 << 20], 2 << 20).unwrap();
        assert_ne!(look(), first);
        assert!(first_nonzero_sample(&file, 4 << 20, 1).unwrap().is_some());
    }
}
