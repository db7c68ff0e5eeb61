//! Disks for tests: loop devices over sparse files, that vanish under whoever uses them, or stall.
//!
//! A disk *vanishes* by a size limit of one sector: atomic, and reversible. (Detaching does nothing while the device is in
//! use.) It can also vanish by truncating its file, for good and not atomically: writes in between make the file longer
//! again, and what they skip reads as zeros. A disk *stalls* when the file system that its backing file lies on is
//! frozen; freezing the file system on the disk itself would stall writes only, and above the device. A disk *fails* when
//! the disk below that file system has vanished: it is all there by every sign, and writes end with an input/output
//! error.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_storage_io::ioctl;
use holdfast_storage_io::loopdev::LoopDevice;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::process::{command, run};
use crate::scratch::Scratch;

/// The size limit of a vanished disk: one sector.
const ONE_SECTOR: u64 = 512;

/// A blank disk. Needs root. This process does not keep it open: the agent refuses a disk that anybody has open.
#[derive(Debug)]
pub struct LoopDisk {
    device: LoopDevice,
    file: PathBuf,
    // Last: the scratch directory goes when its last user has gone.
    _scratch: Scratch,
}

impl LoopDisk {
    /// A disk of `bytes` zeros whose file `name` lies in `scratch`.
    ///
    /// # Errors
    /// The file or the device cannot be had.
    pub fn blank(scratch: &Scratch, name: &str, bytes: u64) -> Result<Self> {
        Self::over(scratch, &scratch.path().join(name), bytes)
    }

    fn over(scratch: &Scratch, file: &Path, bytes: u64) -> Result<Self> {
        make_sparse(file, bytes)?;
        let device = LoopDevice::attach(file).with_context(|| format!("attach {}", file.display()))?;
        Ok(Self { device, file: file.to_owned(), _scratch: scratch.clone() })
    }

    /// Where the device is, e.g. `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    /// From now on reads and writes fail, as on NVMe that was pulled. What is cached can still be read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn vanish(&self) -> Result<()> {
        self.device.limit_size(ONE_SECTOR).with_context(|| format!("let {} vanish", self.path().display()))
    }

    /// From now on reads and writes beyond the first `bytes` fail, until [`Self::come_back`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn end_at(&self, bytes: u64) -> Result<()> {
        self.device.limit_size(bytes).with_context(|| format!("let {} end at {bytes}", self.path().display()))
    }

    /// Vanishes for good, by emptying its file. Slower than [`Self::vanish`] by the time between the two system calls, in
    /// which writes can make the device long again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn truncate(&self) -> Result<()> {
        let opened = OpenOptions::new().write(true).open(&self.file);
        opened
            .and_then(|file| file.set_len(0))
            .and_then(|()| self.device.size_from_file())
            .with_context(|| format!("truncate {}", self.path().display()))
    }

    /// Undoes [`Self::vanish`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn come_back(&self) -> Result<()> {
        self.device.limit_size(0).with_context(|| format!("bring {} back", self.path().display()))
    }
}

/// A blank disk that can be made to hang. Needs root.
#[derive(Debug)]
pub struct StallingDisk {
    // Before the disk: a frozen file below would block its detaching.
    below: FrozenBelow,
    disk: LoopDisk,
}

#[derive(Debug)]
struct FrozenBelow {
    file_system: File,
}

impl StallingDisk {
    /// A disk of `bytes` zeros on a file system of its own, both in `scratch`.
    ///
    /// # Errors
    /// One of the layers cannot be made.
    pub fn blank(scratch: &Scratch, name: &str, bytes: u64) -> Result<Self> {
        let image = scratch.path().join(format!("{name}.outer"));
        make_sparse(&image, room_below(bytes))?;
        make_file_system_below(&image)?;
        let mount = scratch.folder(&format!("{name}.below"))?;
        // Unmounted and detached with the scratch directory.
        run(command("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        let file_system = File::open(&mount).context("hold the file system below the disk")?;
        let disk = LoopDisk::over(scratch, &mount.join(name), bytes)?;
        Ok(Self { below: FrozenBelow { file_system }, disk })
    }

    /// The disk on top.
    #[must_use]
    pub const fn disk(&self) -> &LoopDisk {
        &self.disk
    }

    /// From now on everything that reaches the device hangs, uninterruptibly.
    ///
    /// # Errors
    /// It is stalled already, or the kernel's.
    pub fn stall(&self) -> Result<()> {
        ioctl::freeze(&self.below.file_system).context("freeze the file system below the disk")
    }

    /// Undoes [`Self::stall`].
    ///
    /// # Errors
    /// It is not stalled, or the kernel's.
    pub fn resume(&self) -> Result<()> {
        ioctl::thaw(&self.below.file_system).context("thaw the file system below the disk")
    }
}

impl Drop for FrozenBelow {
    fn drop(&mut self) {
        // An error means that it was not frozen.
        drop(ioctl::thaw(&self.file_system));
    }
}

/// A blank disk that can be made to fail every write without vanishing. Needs root.
#[derive(Debug)]
pub struct FailingDisk {
    // Before what it lies on.
    disk: LoopDisk,
    below: LoopDisk,
}

impl FailingDisk {
    /// A disk of `bytes` zeros on a file system on a disk of its own, both in `scratch`.
    ///
    /// # Errors
    /// One of the layers cannot be made.
    pub fn blank(scratch: &Scratch, name: &str, bytes: u64) -> Result<Self> {
        let below = LoopDisk::blank(scratch, &format!("{name}.outer"), room_below(bytes))?;
        make_file_system_below(below.path())?;
        let mount = scratch.folder(&format!("{name}.below"))?;
        // Unmounted with the scratch directory.
        run(command("mount").arg(below.path()).arg(&mount))?;
        let file = mount.join(name);
        let disk = LoopDisk::over(scratch, &file, bytes)?;
        // Everything is there already, and nothing is kept in between: a write needs the disk below and nothing else.
        // What is kept in between hangs whoever has to write it out, for ever.
        let room = i64::try_from(bytes).context("a size")?;
        let opened = OpenOptions::new().write(true).open(&file).context("open the disk's file")?;
        fallocate(opened, FallocateFlags::empty(), 0, room).context("make room for the disk")?;
        disk.device.bypass_cache().context("write directly")?;
        Ok(Self { disk, below })
    }

    /// The disk on top.
    #[must_use]
    pub const fn disk(&self) -> &LoopDisk {
        &self.disk
    }

    /// From now on nothing that is written gets through, and nothing can be read but from caches above: `EIO`. The device stays,
    /// with its capacity.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fail(&self) -> Result<()> {
        self.below.vanish()
    }

    /// Undoes [`Self::fail`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn work_again(&self) -> Result<()> {
        self.below.come_back()
    }
}

/// Room for a disk of `bytes` and for ext4's own structures.
const fn room_below(bytes: u64) -> u64 {
    bytes + bytes / 8 + (64 << 20)
}

/// Without a journal, which would turn the first failed write into a file system that is read-only.
fn make_file_system_below(device: &Path) -> Result<()> {
    run(command("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(device))?;
    Ok(())
}

fn make_sparse(file: &Path, bytes: u64) -> Result<()> {
    let made = File::create_new(file).with_context(|| format!("make {}", file.display()))?;
    made.set_len(bytes).with_context(|| format!("size {}", file.display()))
}
