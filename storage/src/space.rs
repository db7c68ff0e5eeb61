//! Free space on a mounted volume, and the reserve that is kept back.
//!
//! A full file system cannot even be cleaned up: the engine cannot start without writing log. So a file of fixed
//! size is allocated when there is plenty and removed to make a full volume work again. Clients become read-only
//! before that.
//!
//! Invariants: `the_reserve_takes_space_and_gives_it_back`, `nearly_full_is_judged_against_the_reserve`.

use std::os::fd::AsFd;
use std::path::Path;

use holdfast_model::ByteCount;
use holdfast_model::volume::Space;
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::{BlockingIo, BulkIo};
use holdfast_storage_io::root::Root;

use crate::places::RESERVE;

/// Free space of the volume; nearly full when no more than `low_water` is free for the engine.
///
/// # Errors
/// [`IoError`]. Success proves nothing about the device: `statfs` answers from memory.
pub fn measure(root: &Root, low_water: ByteCount) -> Result<Space, IoError> {
    let stat = nix::sys::statvfs::fstatvfs(root.as_fd()).map_err(IoError::at("measure", root.name()))?;
    let bytes = |blocks: u64| ByteCount::new(blocks.saturating_mul(stat.fragment_size()));
    let free = bytes(stat.blocks_available());
    Ok(Space { total: bytes(stat.blocks()), free, nearly_full: free <= low_water })
}

/// Allocates the reserve, if it is not there in this size already.
///
/// # Errors
/// [`IoError`]; `ENOSPC` leaves no reserve behind.
pub fn reserve(root: &Root, size: ByteCount) -> Result<(), IoError> {
    let path = Path::new(RESERVE);
    if root.look(path)?.is_some_and(|entry| entry.size == size.bytes()) {
        return Ok(());
    }
    let io = BlockingIo::new(root.clone());
    let made = io.create(path, size.bytes(), 0o600).and_then(|file| io.sync_file(&file));
    if made.is_err() {
        root.remove_file(path)?;
    }
    made
}

/// Gives the reserve back.
///
/// # Errors
/// [`IoError`].
pub fn release(root: &Root) -> Result<(), IoError> {
    let path = Path::new(RESERVE);
    root.remove_file(path)?;
    root.sync_dir(path.parent().unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_takes_space_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".holdfast")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for size in [ByteCount::mib(2), ByteCount::mib(2), ByteCount::mib(1)] {
            reserve(&root, size).unwrap();
            let file = dir.path().join(RESERVE).metadata().unwrap();
            assert_eq!(file.len(), size.bytes());
            assert!(std::os::unix::fs::MetadataExt::blocks(&file) * 512 >= size.bytes(), "really allocated");
        }
        release(&root).unwrap();
        release(&root).unwrap();
        assert!(!dir.path().join(RESERVE).exists());
    }

    #[test]
    fn nearly_full_is_judged_against_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(!measure(&root, ByteCount::ZERO).unwrap().nearly_full);
        let all = measure(&root, ByteCount::ZERO).unwrap().total;
        assert!(measure(&root, all).unwrap().nearly_full);
    }
}
