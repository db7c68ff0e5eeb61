//! Loop devices: a file attached as a block device. Tests, demonstrations and development use them as disks that
//! can vanish and stall; probing asks them what they are backed by.
//!
//! Invariants: `a_loop_device_is_detached_when_it_is_dropped`, `a_vanished_device_comes_back_whole`,
//! `a_device_whose_file_was_truncated_shrinks_when_it_is_told`.

#![expect(unsafe_code, reason = "ioctls take raw pointers")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::libc;

/// How often attaching tries again when somebody else took the free device first.
const ATTACH_TRIES: u32 = 64;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

impl LoopInfo64 {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

mod raw {
    use super::{LoopConfig, LoopInfo64};
    nix::ioctl_none_bad!(loop_clr_fd, 0x4C01);
    nix::ioctl_write_ptr_bad!(loop_set_status64, 0x4C04, LoopInfo64);
    nix::ioctl_read_bad!(loop_get_status64, 0x4C05, LoopInfo64);
    nix::ioctl_none_bad!(loop_set_capacity, 0x4C07);
    nix::ioctl_write_int_bad!(loop_set_direct_io, 0x4C08);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, LoopConfig);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
}

/// What a loop device is backed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backing {
    /// Device number of the file system that holds the backing file.
    pub device: u64,
    /// Inode of the backing file.
    pub inode: u64,
    /// Device number of the backing block device; 0 when the backing is a plain file.
    pub rdevice: u64,
}

/// What backs `device`; `None` if it is a loop device without backing, or no loop device.
///
/// # Errors
/// The kernel's.
pub fn backing(device: impl AsFd) -> io::Result<Option<Backing>> {
    match status(device) {
        Ok(info) => Ok(Some(Backing { device: info.device, inode: info.inode, rdevice: info.rdevice })),
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENXIO | libc::ENOTTY | libc::EINVAL)) => Ok(None),
        Err(err) => Err(err),
    }
}

fn status(device: impl AsFd) -> io::Result<LoopInfo64> {
    let mut info = LoopInfo64::EMPTY;
    // SAFETY: the kernel writes one `loop_info64`, whose layout `LoopInfo64` has, through the pointer.
    unsafe { raw::loop_get_status64(device.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// A file attached as a block device until this is dropped. A device that is still mounted or open then is
/// detached by the kernel when its last user lets go.
///
/// The device itself is opened only while something is done to it: a disk that some process has open is in use, to
/// whoever looks for a free one.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    backing: Backing,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device.
    ///
    /// # Errors
    /// The kernel's, `EPERM` without `CAP_SYS_ADMIN`; `EBUSY` when others keep taking the free device first.
    pub fn attach(file: &Path) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(true).open(file)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..ATTACH_TRIES {
            // SAFETY: takes no argument.
            let number = unsafe { raw::loop_ctl_get_free(control.as_raw_fd()) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            match configure(&device, &backing) {
                Ok(()) => {
                    let backing = backing_of(&device)?;
                    return Ok(Self { path, backing });
                }
                Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {}
                Err(err) => return Err(err),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Where the device is, e.g. `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits the device to the first `bytes` of its file; 0 lifts the limit. With 512 the disk has, to whoever
    /// uses it, vanished at once and can come back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn limit_size(&self, bytes: u64) -> io::Result<()> {
        let device = self.open()?;
        let info = LoopInfo64 { size_limit: bytes, ..status(&device)? };
        // SAFETY: the kernel reads one `loop_info64`, whose layout `LoopInfo64` has, through the pointer.
        unsafe { raw::loop_set_status64(device.as_raw_fd(), &raw const info) }?;
        Ok(())
    }

    /// Takes the size from the file again (`LOOP_SET_CAPACITY`), which was truncated, say. Not atomic with that: a write
    /// that comes in between makes the file longer again, and what was cut off then reads as zeros.
    ///
    /// # Errors
    /// The kernel's.
    pub fn size_from_file(&self) -> io::Result<()> {
        let device = self.open()?;
        // SAFETY: takes no argument.
        unsafe { raw::loop_set_capacity(device.as_raw_fd()) }?;
        Ok(())
    }

    /// Has reads and writes go past the page cache of the file system that the file lies on (`LOOP_SET_DIRECT_IO`): its
    /// errors come back at once, and nothing is left behind that can only be written there.
    ///
    /// # Errors
    /// The kernel's, `EINVAL` if that file system cannot.
    pub fn bypass_cache(&self) -> io::Result<()> {
        let device = self.open()?;
        // SAFETY: takes a number.
        unsafe { raw::loop_set_direct_io(device.as_raw_fd(), 1) }?;
        Ok(())
    }

    /// Detaches now instead of when dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach(self) -> io::Result<()> {
        clear(&self.open()?)
    }

    /// Opens the device if it still has the file that was attached to it: its name may mean another one after a detach.
    fn open(&self) -> io::Result<File> {
        let device = OpenOptions::new().read(true).write(true).open(&self.path)?;
        if backing_of(&device)? == self.backing {
            Ok(device)
        } else {
            Err(io::Error::from_raw_os_error(libc::ENXIO))
        }
    }
}

fn backing_of(device: &File) -> io::Result<Backing> {
    backing(device)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENXIO))
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // ENXIO after an explicit detach. Anything else leaves a device behind, which a drop cannot report.
        drop(self.open().and_then(|device| clear(&device)));
    }
}

fn configure(device: &File, backing: &File) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let config = LoopConfig { fd, block_size: 0, info: LoopInfo64::EMPTY, reserved: [0; 8] };
    // SAFETY: the kernel reads one `loop_config`, whose layout `LoopConfig` has, through the pointer, and takes
    // its own reference to the backing file.
    unsafe { raw::loop_configure(device.as_raw_fd(), &raw const config) }?;
    Ok(())
}

fn clear(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    unsafe { raw::loop_clr_fd(device.as_raw_fd()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioctl;

    fn image(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    #[test]
    fn a_loop_device_is_detached_when_it_is_dropped_as_root() {
        let image = image(1 << 20);
        let device = LoopDevice::attach(image.path()).unwrap();
        assert_eq!(ioctl::device_size(device.open().unwrap()).unwrap(), 1 << 20);
        assert!(backing(device.open().unwrap()).unwrap().is_some());
        let again = File::open(device.path()).unwrap();
        drop(device);
        drop(again);
        // The number may be taken by somebody else at once, so look for our file, not for the name.
        let inode = std::os::unix::fs::MetadataExt::ino(&image.as_file().metadata().unwrap());
        let still = std::fs::read_dir("/sys/block").unwrap().any(|entry| {
            let device = File::open(Path::new("/dev").join(entry.unwrap().file_name()));
            device.is_ok_and(|d| backing(&d).ok().flatten().is_some_and(|b| b.inode == inode))
        });
        assert!(!still);
    }

    #[test]
    fn a_vanished_device_comes_back_whole_as_root() {
        let image = image(1 << 20);
        let device = LoopDevice::attach(image.path()).unwrap();
        device.limit_size(512).unwrap();
        assert_eq!(ioctl::device_size(device.open().unwrap()).unwrap(), 512);
        device.limit_size(0).unwrap();
        assert_eq!(ioctl::device_size(device.open().unwrap()).unwrap(), 1 << 20);
    }

    #[test]
    fn a_device_whose_file_was_truncated_shrinks_when_it_is_told_as_root() {
        let image = image(1 << 20);
        let device = LoopDevice::attach(image.path()).unwrap();
        image.as_file().set_len(0).unwrap();
        device.size_from_file().unwrap();
        assert_eq!(ioctl::device_size(device.open().unwrap()).unwrap(), 0);
    }

    #[test]
    fn another_medium_has_another_sequence_number_as_root() {
        let (first, second) = (image(1 << 20), image(1 << 20));
        let sequence = |file: &Path| {
            let device = LoopDevice::attach(file).unwrap();
            ioctl::disk_sequence(device.open().unwrap()).unwrap()
        };
        assert_ne!(sequence(first.path()), sequence(second.path()));
    }
}
