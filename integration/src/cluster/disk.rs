//! The disks of a cluster's nodes: most of them vanish when told to, some stall or fail.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::loop_disk::{FailingDisk, LoopDisk, StallingDisk};
use crate::scratch::Scratch;

/// What can happen to a disk besides vanishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Vanishing,
    /// Writes hang.
    Stalling,
    /// Writes fail.
    Failing,
}

/// A disk of a node.
#[derive(Debug)]
pub enum Disk {
    /// It can vanish.
    Vanishing(LoopDisk),
    /// It can stall too.
    Stalling(StallingDisk),
    /// It can fail writes too.
    Failing(FailingDisk),
}

impl Disk {
    /// A blank one.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn blank(scratch: &Scratch, name: &str, bytes: u64, fate: Fate) -> Result<Self> {
        Ok(match fate {
            Fate::Vanishing => Self::Vanishing(LoopDisk::blank(scratch, name, bytes)?),
            Fate::Stalling => Self::Stalling(StallingDisk::blank(scratch, name, bytes)?),
            Fate::Failing => Self::Failing(FailingDisk::blank(scratch, name, bytes)?),
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &LoopDisk {
        match self {
            Self::Vanishing(disk) => disk,
            Self::Stalling(disk) => disk.disk(),
            Self::Failing(disk) => disk.disk(),
        }
    }
}

/// Whether the device `device` is what is mounted on `mount`.
///
/// # Errors
/// The device is not there, or there is no `/proc`.
pub fn is_mounted_on(device: &Path, mount: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let number = fs::metadata(device).context("look at a device")?.rdev();
    let number = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    // proc(5): the third field is the device, the fifth where it is mounted.
    Ok(mounts.lines().any(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(2) == Some(&number.as_str()) && fields.get(4).is_some_and(|at| Path::new(at) == mount)
    }))
}
