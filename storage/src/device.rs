//! A block device held open, so that the device that was looked at is the device that is written.
//!
//! While any descriptor of a device is open its number cannot come to mean another device, and a loop device
//! cannot be given another file. The exclusive descriptor keeps mounts, md, device mapper and swap away; mkfs and
//! mount open exclusively themselves, so it is let go just before them, and the plain one is kept.
//!
//! Invariants: `tests/devices/probe.rs` and `tests/devices/format.rs`: `a_device_swapped_between_plan_and_format_is_not_written`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_model::ByteCount;
use holdfast_model::volume::DeviceId;
use holdfast_storage_io::{ioctl, loopdev};
use nix::libc;

use crate::mountinfo::DevNumber;
use crate::sysfs::{Disk, Sysfs};

/// Why a device could not be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It is not there, or has no medium.
    #[error("open {}", path.display())]
    Gone {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is no whole block device.
    #[error("{} is not a whole block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// It does not answer as it should.
    #[error("{op} {}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is not what it was a moment ago.
    #[error("device changed: it was {was}, now it is {is}")]
    Changed {
        /// What was held.
        was: Box<DeviceId>,
        /// What is there.
        is: Box<DeviceId>,
    },
}

/// A whole block device held open for reading.
#[derive(Debug)]
pub(crate) struct Held {
    /// Open exclusively; `None` when somebody else has it so.
    exclusive: Option<File>,
    /// Open for direct reads.
    pub(crate) plain: File,
    pub(crate) number: DevNumber,
    pub(crate) id: DeviceId,
    /// As it was in sysfs when it was opened.
    pub(crate) disk: Disk,
}

impl Held {
    /// Opens `path`, exclusively if nobody else has it so.
    pub(crate) fn open(path: &Path, sysfs: &Sysfs) -> Result<Self, HoldError> {
        let io = |op| move |source| HoldError::Io { op, path: path.to_owned(), source };
        // Asked before opening: opening a tape or a terminal has effects.
        let meta = std::fs::metadata(path).map_err(|source| classify(path, source))?;
        if !meta.file_type().is_block_device() {
            return Err(HoldError::NotADisk { path: path.to_owned() });
        }
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
        let (exclusive, plain) = match open(libc::O_EXCL) {
            Ok(exclusive) => {
                let plain = reopen(&exclusive, libc::O_DIRECT, false).map_err(io("reopen"))?;
                (Some(exclusive), plain)
            }
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {
                (None, open(libc::O_DIRECT).map_err(|source| classify(path, source))?)
            }
            Err(err) => return Err(classify(path, err)),
        };
        let number = DevNumber::from_dev(plain.metadata().map_err(io("look at"))?.rdev());
        let disk = sysfs
            .disk_numbered(number)
            .map_err(io("find in sysfs"))?
            .ok_or_else(|| HoldError::NotADisk { path: path.to_owned() })?;
        let id = identify(&plain, path, &disk)?;
        Ok(Self { exclusive, plain, number, id, disk })
    }

    /// Whether nobody else has it open exclusively.
    pub(crate) const fn is_exclusive(&self) -> bool {
        self.exclusive.is_some()
    }

    /// Lets others (mkfs, mount) open it exclusively; the device stays pinned.
    pub(crate) fn share(&mut self) {
        self.exclusive = None;
    }

    /// Opens the very same device for direct, synchronous writes.
    pub(crate) fn writer(&self) -> Result<File, HoldError> {
        reopen(&self.plain, libc::O_DIRECT | libc::O_SYNC, true).map_err(|source| HoldError::Io {
            op: "open for writing",
            path: self.id.path.clone(),
            source,
        })
    }

    /// A path to the held device that cannot come to mean another one: the kernel's own name for it, which is
    /// not given to another device while this one is open, so that `df` shows something readable; or, where that
    /// node is not to be had, the descriptor.
    pub(crate) fn pinned_path(&self) -> PathBuf {
        let node = Path::new("/dev").join(&self.disk.name);
        let is_it = std::fs::metadata(&node).is_ok_and(|meta| {
            meta.file_type().is_block_device() && DevNumber::from_dev(meta.rdev()) == self.number
        });
        if is_it { node } else { fd_path(&self.plain) }
    }

    /// Refuses if number, sequence, size or serial are not what they were, or the name means another device now.
    pub(crate) fn verify(&self, sysfs: &Sysfs) -> Result<(), HoldError> {
        let now = Self::open_shared(&self.id.path, sysfs)?;
        let held = identify(&self.plain, &self.id.path, &now.disk)?;
        if now.number == self.number && now.id == self.id && held == self.id {
            return Ok(());
        }
        Err(HoldError::Changed { was: Box::new(self.id.clone()), is: Box::new(now.id) })
    }

    fn open_shared(path: &Path, sysfs: &Sysfs) -> Result<Self, HoldError> {
        let mut held = Self::open(path, sysfs)?;
        held.share();
        Ok(held)
    }
}

/// Opens what `file` has open once more, through `/proc`, whatever its name means now.
fn reopen(file: &File, flags: i32, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).custom_flags(flags).open(fd_path(file))
}

fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn classify(path: &Path, source: io::Error) -> HoldError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM | libc::ENOTDIR) => {
            HoldError::Gone { path, source }
        }
        _ => HoldError::Io { op: "open", path, source },
    }
}

fn identify(file: &File, path: &Path, disk: &Disk) -> Result<DeviceId, HoldError> {
    let io = |op| move |source| HoldError::Io { op, path: path.to_owned(), source };
    let (model, serial) = match loopdev::backing(file).map_err(io("ask for backing of"))? {
        Some(backing) => ("loop".to_owned(), format!("{:x}-{}", backing.device, backing.inode)),
        None => (disk.model.clone(), disk.serial.clone()),
    };
    Ok(DeviceId {
        path: path.to_owned(),
        model,
        serial,
        diskseq: ioctl::disk_sequence(file).map_err(io("ask for sequence number of"))?,
        size: ByteCount::new(ioctl::device_size(file).map_err(io("ask for size of"))?),
    })
}
