//! The ioctls that the project needs, each behind a safe function.
//!
//! Numbers and structures are those of `linux/fs.h`, `linux/loop.h` and `fs/xfs/libxfs/xfs_fs.h`; they are part of
//! the kernel's stable interface.

#![expect(unsafe_code, reason = "ioctls take raw pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// `GOINGDOWN` without flushing the log: what was fsynced stays, nothing more reaches the device.
const GOING_DOWN_NO_LOG_FLUSH: u32 = 2;
/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: libc::c_long = 0x10;

mod raw {
    use nix::libc;

    nix::ioctl_read!(blk_get_size64, 0x12, 114, u64);
    nix::ioctl_read!(blk_get_diskseq, 0x12, 128, u64);
    nix::ioctl_read_bad!(blk_get_logical_block_size, 0x1268, libc::c_int);
    nix::ioctl_read!(going_down, b'X', 125, u32);
    nix::ioctl_readwrite!(freeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, libc::c_int);
    nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);
}

/// Capacity of a block device in bytes (`BLKGETSIZE64`).
///
/// # Errors
/// The kernel's, `ENOTTY` for what is no block device.
pub fn device_size(device: impl AsFd) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel writes one u64 (the request is declared with size_t, 64 bits here) through the pointer.
    unsafe { raw::blk_get_size64(device.as_fd().as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Sequence number of the medium (`BLKGETDISKSEQ`, Linux 5.15): another one whenever another medium, or another
/// backing file of a loop device, appears under the same name. Counts from the boot on.
///
/// # Errors
/// The kernel's, `ENOTTY` for what is no block device.
pub fn disk_sequence(device: impl AsFd) -> io::Result<u64> {
    let mut sequence = 0;
    // SAFETY: the kernel writes one u64 through the pointer.
    unsafe { raw::blk_get_diskseq(device.as_fd().as_raw_fd(), &raw mut sequence) }?;
    Ok(sequence)
}

/// Logical block size of a block device in bytes (`BLKSSZGET`).
///
/// # Errors
/// The kernel's, `ENOTTY` for what is no block device.
pub fn logical_block_size(device: impl AsFd) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: the kernel writes one int through the pointer.
    unsafe { raw::blk_get_logical_block_size(device.as_fd().as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Shuts a file system down without flushing its log (`XFS_IOC_GOINGDOWN`, which ext4 knows under the same
/// number): from here on every write fails, also those that already wait for a stalled device. What was fsynced
/// is recovered at the next mount. Does not wait for the device. `file` is anything open on the file system.
///
/// # Errors
/// The kernel's, `EPERM` without `CAP_SYS_ADMIN`.
pub fn shut_down_filesystem(file: impl AsFd) -> io::Result<()> {
    let mut how = GOING_DOWN_NO_LOG_FLUSH;
    // SAFETY: the kernel reads one u32 through the pointer (declared as a read request for historical reasons).
    unsafe { raw::going_down(file.as_fd().as_raw_fd(), &raw mut how) }?;
    Ok(())
}

/// Freezes a file system: writes to it wait until [`thaw`]. For tests of stalls.
///
/// # Errors
/// The kernel's, `EBUSY` if it is frozen already.
pub fn freeze(file: impl AsFd) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the kernel ignores the argument; it is valid for reads and writes all the same.
    unsafe { raw::freeze(file.as_fd().as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Ends [`freeze`].
///
/// # Errors
/// The kernel's, `EINVAL` if it is not frozen.
pub fn thaw(file: impl AsFd) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the kernel ignores the argument; it is valid for reads and writes all the same.
    unsafe { raw::thaw(file.as_fd().as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Sets or clears the immutable flag of a file or directory (`chattr +i`).
///
/// # Errors
/// The kernel's, `ENOTTY` or `EOPNOTSUPP` on file systems without the flag, `EPERM` without
/// `CAP_LINUX_IMMUTABLE`.
pub fn set_immutable(file: impl AsFd, immutable: bool) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    let mut flags = 0;
    // SAFETY: the kernel writes at most one long through the pointer.
    unsafe { raw::get_flags(fd, &raw mut flags) }?;
    let wanted = if immutable { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    if wanted != flags {
        // SAFETY: the kernel reads at most one long through the pointer.
        unsafe { raw::set_flags(fd, &raw const wanted) }?;
    }
    Ok(())
}
