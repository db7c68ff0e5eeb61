//! Mounts a claimed volume of ours, sets up what is on it, and unmounts it again.
//!
//! The device is held open while it is mounted, so that its name cannot come to mean another one, and `st_dev` is
//! checked after. The bare mount point is made unwritable (mode 0000, immutable where the file system below can),
//! so that nothing lands on the root disk while the volume is away.
//!
//! A volume without an identity record was not finished: the record follows the stamp, so it is written now, if
//! and only if nothing was ever stored on the file system.
//!
//! Every step can run twice. A crash between mounting and the record leaves a mounted volume that the next call
//! completes.
//!
//! Invariants: `tests/devices/format.rs` and `tests/devices/mount.rs`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_model::volume::{DeviceId, Filesystem, VolumeIdentity};
use holdfast_storage_io::root::Root;
use holdfast_storage_io::{IoError, ioctl};
use nix::mount::{MntFlags, MsFlags};
use tracing::{debug, warn};

use crate::device::HoldError;
use crate::identity::{self, IdentityError};
use crate::mountinfo::{DevNumber, Mounts};
use crate::places;
use crate::probe::{Claimed, Ours};
use crate::spec::VolumeSpec;
use crate::sysfs::Sysfs;

/// How often XFS tries a failed metadata write before it shuts down; its default is for ever.
const XFS_EIO_RETRIES: &str = "3";
/// More mounts than this on one mount point are not taken off.
const STACKED_MAX: u32 = 16;

/// Why a volume was not mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Something else is mounted there.
    #[error("{} is taken: device {device} is mounted there", target.display())]
    Taken {
        /// The mount point.
        target: PathBuf,
        /// What is there.
        device: DevNumber,
    },
    /// The mount point holds files.
    #[error("mount point {} is not empty: move what is in it away", target.display())]
    NotEmpty {
        /// The mount point.
        target: PathBuf,
    },
    /// The mount point cannot be made.
    #[error("prepare mount point {}", target.display())]
    Prepare {
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{op} {}", target.display())]
    Refused {
        /// `mount` or `unmount`.
        op: &'static str,
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What is mounted is not the device that was claimed.
    #[error("{} is device {found}, not {expected}", target.display())]
    OtherDevice {
        /// The mount point.
        target: PathBuf,
        /// What was claimed.
        expected: DevNumber,
        /// What is there.
        found: DevNumber,
    },
    /// There is data but no identity record.
    #[error("volume {device} has no identity record but holds {}", found.display())]
    IdentityLost {
        /// The device.
        device: Box<DeviceId>,
        /// One of the things that it holds.
        found: PathBuf,
    },
    /// The device changed.
    #[error("hold device for mounting")]
    Hold(#[from] HoldError),
    /// The identity record cannot be used, or is not the stamp's.
    #[error("identify volume")]
    Identity(#[from] IdentityError),
    /// The file system does not answer as it should.
    #[error("set up volume")]
    Io(#[from] IoError),
}

/// A mounted volume. While `root` is open the volume cannot be unmounted except lazily, and it can be shut down
/// without touching the disk.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// The file system's top directory.
    pub root: Root,
    /// The device; for kind `directory` the directory.
    pub device: DeviceId,
    /// Whose it is.
    pub identity: VolumeIdentity,
}

impl Claimed<Ours> {
    /// Mounts the volume where `spec` says and completes it.
    ///
    /// # Errors
    /// [`MountError`]; nothing stays mounted.
    pub fn mount(mut self, spec: &VolumeSpec, sysfs: &Sysfs) -> Result<Mounted, MountError> {
        prepare_mount_point(&spec.mount)?;
        self.held.verify(sysfs)?;
        self.held.share();
        let (fstype, options) = match spec.filesystem {
            Filesystem::Xfs => ("xfs", "logbsize=256k"),
            // The watch sees a read-only remount at once; going on after an error would hide it.
            Filesystem::Ext4 => ("ext4", "errors=remount-ro"),
        };
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some(&self.held.pinned_path()), &spec.mount, Some(fstype), flags, Some(options))
            .map_err(refused("mount", &spec.mount))?;
        let mounted = settle(spec, &self.held.id, self.held.number, self.identity());
        if mounted.is_err()
            && let Err(err) = unmount(&spec.mount, Unmount::Plain)
        {
            warn!(target = %spec.mount.display(), error = %err, "unusable volume stays mounted");
        }
        limit_xfs_retries(&self.held.disk.name);
        mounted
    }
}

/// Completes a volume of ours that is mounted already. For an agent that was restarted.
///
/// # Errors
/// [`MountError`]; the volume stays mounted.
pub(crate) fn adopt(
    spec: &VolumeSpec,
    device: &DeviceId,
    stamped: &VolumeIdentity,
) -> Result<Mounted, MountError> {
    let meta = std::fs::metadata(&device.path).map_err(IoError::at("look at", &device.path))?;
    let number = DevNumber::from_dev(std::os::unix::fs::MetadataExt::rdev(&meta));
    settle(spec, device, number, stamped)
}

/// Checks that the right device is mounted, then identity and directories.
fn settle(
    spec: &VolumeSpec,
    device: &DeviceId,
    number: DevNumber,
    stamped: &VolumeIdentity,
) -> Result<Mounted, MountError> {
    let root = Root::open(&spec.mount)?;
    let stat = nix::sys::stat::fstat(root.as_fd()).map_err(refused("look at", &spec.mount))?;
    let found = DevNumber::from_dev(stat.st_dev);
    if found != number {
        return Err(MountError::OtherDevice { target: spec.mount.clone(), expected: number, found });
    }
    let identity = finish_identity(&root, device, stamped, spec)?;
    places::ensure(&root, &spec.engine, spec.access)?;
    Ok(Mounted { root, device: device.clone(), identity })
}

/// Reads the identity record, or writes the one that `stamped` promises on a volume that holds nothing yet.
pub(crate) fn finish_identity(
    root: &Root,
    device: &DeviceId,
    stamped: &VolumeIdentity,
    spec: &VolumeSpec,
) -> Result<VolumeIdentity, MountError> {
    match identity::recheck(root, stamped) {
        Ok(identity) => {
            identity::check(&identity, &spec.cluster, &spec.node)?;
            return Ok(identity);
        }
        Err(IdentityError::Missing { .. }) => {}
        Err(err) => return Err(err.into()),
    }
    if let Some(found) = places::strangers(root)?.into_iter().next() {
        return Err(MountError::IdentityLost { device: Box::new(device.clone()), found });
    }
    places::ensure(root, &spec.engine, spec.access)?;
    identity::write(root, stamped)?;
    let (uid, gid) = (spec.access.daemon_uid, spec.access.daemon_gid);
    places::give(root, Path::new(places::IDENTITY), uid, gid)?;
    Ok(stamped.clone())
}

/// Makes the bare mount point and makes it unwritable. Refuses if something is mounted there or lies in it.
///
/// # Errors
/// [`MountError`]: `Taken`, `NotEmpty` or `Prepare`.
pub fn prepare_mount_point(target: &Path) -> Result<(), MountError> {
    let prepare = |source| MountError::Prepare { target: target.to_owned(), source };
    let mounts = Mounts::of_this_process().map_err(prepare)?;
    if let Some(mount) = mounts.at(target) {
        return Err(MountError::Taken { target: target.to_owned(), device: mount.device });
    }
    std::fs::create_dir_all(target).map_err(prepare)?;
    if std::fs::read_dir(target).map_err(prepare)?.next().is_some() {
        return Err(MountError::NotEmpty { target: target.to_owned() });
    }
    let dir = std::fs::File::open(target).map_err(prepare)?;
    if dir.metadata().map_err(prepare)?.permissions().mode() & 0o7777 != 0 {
        dir.set_permissions(std::fs::Permissions::from_mode(0o000)).map_err(prepare)?;
    }
    if let Err(err) = ioctl::set_immutable(&dir, true) {
        debug!(target = %target.display(), error = %err, "mount point not made immutable");
    }
    Ok(())
}

/// Makes a bare mount point an ordinary directory again, so that it can be removed.
///
/// # Errors
/// [`MountError::Prepare`].
pub fn release_mount_point(target: &Path) -> Result<(), MountError> {
    let prepare = |source| MountError::Prepare { target: target.to_owned(), source };
    let dir = std::fs::File::open(target).map_err(prepare)?;
    if let Err(err) = ioctl::set_immutable(&dir, false) {
        debug!(target = %target.display(), error = %err, "mount point not made mutable");
    }
    dir.set_permissions(std::fs::Permissions::from_mode(0o755)).map_err(prepare)
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmount {
    /// Waits for the device; refused while anything is open on it.
    Plain,
    /// Takes it out of sight at once; the device is free when its last user is gone. For a stalled device.
    Lazy,
}

/// Unmounts whatever is mounted at `target`; nothing there is fine.
///
/// # Errors
/// [`MountError::Refused`]: `EBUSY` while something is open on it.
pub fn unmount(target: &Path, how: Unmount) -> Result<(), MountError> {
    let flags = match how {
        Unmount::Plain => MntFlags::UMOUNT_NOFOLLOW,
        Unmount::Lazy => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
    };
    for _ in 0..STACKED_MAX {
        match nix::mount::umount2(target, flags) {
            Ok(()) => {}
            // Nothing is mounted there (any more), or there is no such place.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(errno) => return Err(refused("unmount", target)(errno)),
        }
    }
    Err(refused("unmount", target)(nix::Error::EBUSY))
}

/// Makes XFS give up on failing metadata writes instead of trying for ever.
fn limit_xfs_retries(device: &str) {
    let path = format!("/sys/fs/xfs/{device}/error/metadata/EIO/max_retries");
    match std::fs::write(&path, XFS_EIO_RETRIES) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => warn!(path, error = %err, "xfs goes on trying failed writes"),
    }
}

fn refused(op: &'static str, target: &Path) -> impl FnOnce(nix::Error) -> MountError {
    let target = target.to_owned();
    move |errno| MountError::Refused { op, target, source: errno.into() }
}
