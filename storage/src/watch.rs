//! Looks at a mounted volume: the probe write, and whether the device is still the one that was mounted.
//!
//! [`ProbeFile`] touches the disk and belongs into a worker process that may be lost. [`Lookout`] reads sysfs and
//! the mount table only: the daemon may use it at any time.
//!
//! The probe overwrites one preallocated block with `O_DIRECT | O_DSYNC`: no allocation, so a full disk is not
//! taken for a dead one, and no cache, so a dead one is not taken for a live one. An fsync of a clean file or a
//! read proves nothing: both succeed on a file system whose device has stalled or gone.
//!
//! Invariants: `a_probe_write_reaches_the_file`, and on real devices `tests/devices/watch.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_model::volume::{DeviceId, VolumeKind};
use holdfast_storage_io::IoError;
use holdfast_storage_io::buffer::{ALIGNMENT, AlignedBuf};
use holdfast_storage_io::root::Root;
use nix::fcntl::OFlag;
use nix::libc;

use crate::mountinfo::{DevNumber, FsState, Mounts};
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

/// Where to look for what became of a mounted volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookout {
    /// A file system on a device.
    Device {
        /// What was mounted.
        device: DeviceId,
        /// Its number.
        number: DevNumber,
        /// Where.
        mount: PathBuf,
    },
    /// Kind `directory`.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

impl Lookout {
    /// For a volume that was just mounted; `None` if nothing is mounted at `mount`.
    #[must_use]
    pub fn new(kind: VolumeKind, device: &DeviceId, mount: &Path, mounts: &Mounts) -> Option<Self> {
        match kind {
            VolumeKind::Directory => Some(Self::Directory { path: device.path.clone() }),
            VolumeKind::Nvme | VolumeKind::Block => {
                let number = mounts.at(mount)?.device;
                Some(Self::Device { device: device.clone(), number, mount: mount.to_owned() })
            }
        }
    }

    /// How it shows that the device is gone, if it does, and what the mount table says; for
    /// `health::Watch::looked`.
    #[must_use]
    pub fn look(&self, sysfs: &Sysfs, mounts: &Mounts) -> (Option<String>, FsState) {
        match self {
            Self::Device { device, number, mount } => {
                let still = mounts.at(mount).is_some_and(|m| m.device == *number);
                let state = if still { mounts.state_at(mount) } else { FsState::NotMounted };
                (device_gone(sysfs, *number, device), state)
            }
            Self::Directory { path } => {
                let gone =
                    (!path.is_dir()).then(|| format!("directory {} is no longer there", path.display()));
                (gone, FsState::ReadWrite)
            }
        }
    }
}

/// How it shows that `device` is no longer there, or no longer the medium that was mounted; `None` while it is.
fn device_gone(sysfs: &Sysfs, number: DevNumber, device: &DeviceId) -> Option<String> {
    let path = device.path.display();
    let Some(medium) = sysfs.medium(number) else {
        return Some(format!("device {number} is no longer there"));
    };
    if medium.diskseq != device.diskseq {
        return Some(format!("another medium is in {path}"));
    }
    if medium.size != device.size {
        return Some(format!("capacity of {path} changed from {} to {}", device.size, medium.size));
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
