//! Looks at a mounted volume: the probe write, and whether the device is still the one that was mounted.
//!
//! [`ProbeFile`] touches the disk and belongs into a worker process that may be lost. [`device_gone`] reads sysfs
//! only, as `mountinfo::Mounts` reads `/proc` only: the daemon may call both at any time.
//!
//! The probe overwrites one preallocated block with `O_DIRECT | O_DSYNC`: no allocation, so a full disk is not
//! taken for a dead one, and no cache, so a dead one is not taken for a live one. An fsync of a clean file or a
//! read proves nothing: both succeed on a file system whose device has stalled or gone.
//!
//! Invariants: `a_probe_write_reaches_the_file`, and on real devices `tests/devices/watch.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_model::volume::DeviceId;
use holdfast_storage_io::IoError;
use holdfast_storage_io::buffer::{ALIGNMENT, AlignedBuf};
use holdfast_storage_io::root::Root;
use nix::fcntl::OFlag;
use nix::libc;

use crate::mountinfo::DevNumber;
use crate::places::PROBE;
use crate::sysfs::Sysfs;

/// A block on the volume that is overwritten to prove that writes reach the device.
#[derive(Debug)]
pub struct ProbeFile {
    file: File,
    block: AlignedBuf,
    count: u64,
}

impl ProbeFile {
    /// Makes the block if it is missing, and opens it. May hang on a stalled disk.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn open(root: &Root) -> Result<Self, IoError> {
        let path = Path::new(PROBE);
        let block = AlignedBuf::zeroed(ALIGNMENT);
        let first = root.open_file(path, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)?;
        // Written once, so that later writes convert no extents and need no log.
        first.write_all_at(&block, 0).map_err(IoError::at("write", path))?;
        first.sync_all().map_err(IoError::at("sync", path))?;
        root.sync_dir(path.parent().unwrap_or(Path::new("")))?;
        let sync = OFlag::O_WRONLY | OFlag::O_DSYNC;
        let file = match root.open_file(path, sync | OFlag::O_DIRECT, 0) {
            // File systems without direct I/O (tmpfs) serve development only.
            Err(err) if err.errno() == Some(libc::EINVAL) => root.open_file(path, sync, 0)?,
            opened => opened?,
        };
        Ok(Self { file, block, count: 0 })
    }

    /// Overwrites the block; when it returns `Ok`, the device has taken the write. May hang.
    ///
    /// # Errors
    /// The kernel's. Any error makes the volume sick: what else was lost is unknown.
    pub fn write(&mut self) -> io::Result<()> {
        self.count += 1;
        self.block[..8].copy_from_slice(&self.count.to_le_bytes());
        self.file.write_all_at(&self.block, 0)
    }
}

/// How it shows that `device` is no longer there, or no longer the medium that was mounted; `None` while it is.
#[must_use]
pub fn device_gone(sysfs: &Sysfs, number: DevNumber, device: &DeviceId) -> Option<String> {
    let Some(medium) = sysfs.medium(number) else {
        return Some(format!("device {number} is no longer there"));
    };
    if medium.diskseq != device.diskseq {
        return Some(format!("another medium is in {}", device.path.display()));
    }
    if medium.size != device.size {
        return Some(format!(
            "capacity of {} changed from {} to {}",
            device.path.display(),
            device.size,
            medium.size
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_write_reaches_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".holdfast")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for _ in 0..2 {
            let mut probe = ProbeFile::open(&root).unwrap();
            probe.write().unwrap();
            probe.write().unwrap();
            let bytes = std::fs::read(dir.path().join(PROBE)).unwrap();
            assert_eq!((bytes.len(), bytes[0]), (4096, 2));
        }
    }
}
