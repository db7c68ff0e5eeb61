//! What can go wrong below a node that serves, each made at one moment.

use std::fs::{self, File};
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use holdfast_storage_io::ioctl;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use crate::loop_disk::{FailingDisk, LoopDisk, StallingDisk};
use crate::node::Node;
use crate::process::{command, run};
use crate::scratch::Scratch;

/// Room for an engine and its log; the files are sparse.
const DISK_BYTES: u64 = 2 << 30;
/// What a nearly full volume has left: less than the 64 MiB of the configuration's reserve, more than the engine needs.
const LEFT_BYTES: u64 = 40 << 20;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The device shrinks to one sector, at once (`lo_sizelimit`).
    Vanish,
    /// The device's file is emptied and the device is told (`LOOP_SET_CAPACITY`): writes in between undo some of it.
    Truncate,
    /// The device stays, and nothing gets through to it: `EIO`. (The file behind it lies on a file system whose own disk
    /// has vanished.)
    FailWrites,
    /// The device does not answer. (The file system that the file behind it lies on is frozen.)
    Stall,
    /// The file system is shut down (`XFS_IOC_GOINGDOWN`).
    ShutDown,
    /// The file system makes itself read-only after an error (ext4, `errors=remount-ro`).
    ReadOnly,
    /// Only 40 MiB are left.
    NearlyFull,
}

/// What a node's volume lies on, with what it takes to make it fail.
#[derive(Debug)]
pub(super) enum Medium {
    Plain(LoopDisk),
    /// With ext4 instead of XFS.
    Ext4(LoopDisk),
    Stalling(StallingDisk),
    Failing(FailingDisk),
}

impl Medium {
    pub(super) fn of(fault: Fault, scratch: &Scratch) -> Result<Self> {
        Ok(match fault {
            Fault::Vanish | Fault::Truncate | Fault::ShutDown | Fault::NearlyFull => Self::plain(scratch)?,
            Fault::ReadOnly => Self::Ext4(LoopDisk::blank(scratch, "disk", DISK_BYTES)?),
            Fault::Stall => Self::Stalling(StallingDisk::blank(scratch, "disk", DISK_BYTES)?),
            Fault::FailWrites => Self::Failing(FailingDisk::blank(scratch, "disk", DISK_BYTES)?),
        })
    }

    pub(super) fn plain(scratch: &Scratch) -> Result<Self> {
        Ok(Self::Plain(LoopDisk::blank(scratch, "disk", DISK_BYTES)?))
    }

    pub(super) const fn disk(&self) -> &LoopDisk {
        match self {
            Self::Plain(disk) | Self::Ext4(disk) => disk,
            Self::Stalling(stalling) => stalling.disk(),
            Self::Failing(failing) => failing.disk(),
        }
    }

    /// Other than the default.
    pub(super) const fn filesystem(&self) -> Option<&'static str> {
        match self {
            Self::Ext4(_) => Some("ext4"),
            Self::Plain(_) | Self::Stalling(_) | Self::Failing(_) => None,
        }
    }
}

/// A fault with everything opened and computed that it needs, so that making it is one step.
#[derive(Debug)]
pub(super) enum Prepared {
    OfMedium(Fault),
    ShutDown { volume: File },
    ReadOnly { trigger: String },
    NearlyFull { filler: File, bytes: i64 },
}

impl Prepared {
    pub(super) fn new(fault: Fault, node: &Node, medium: &Medium) -> Result<Self> {
        Ok(match fault {
            Fault::Vanish | Fault::Truncate | Fault::FailWrites | Fault::Stall => Self::OfMedium(fault),
            Fault::ShutDown => Self::ShutDown { volume: File::open(&node.mount).context("open the volume")? },
            Fault::ReadOnly => {
                let device = medium.disk().path().file_name().context("a device has a name")?;
                Self::ReadOnly {
                    trigger: format!("/sys/fs/ext4/{}/trigger_fs_error", device.to_string_lossy()),
                }
            }
            Fault::NearlyFull => {
                let space = statvfs(&node.mount).context("measure the volume")?;
                let free = space.blocks_available() * space.fragment_size();
                let bytes = i64::try_from(free.saturating_sub(LEFT_BYTES)).context("a size")?;
                let filler = File::create_new(node.mount.join("filler")).context("make a filler")?;
                Self::NearlyFull { filler, bytes }
            }
        })
    }

    pub(super) fn make(&self, medium: &Medium) -> Result<()> {
        match self {
            Self::OfMedium(fault) => match (fault, medium) {
                (Fault::Stall, Medium::Stalling(stalling)) => stalling.stall(),
                (Fault::FailWrites, Medium::Failing(failing)) => failing.fail(),
                (Fault::Truncate, medium) => medium.disk().truncate(),
                (_, medium) => medium.disk().vanish(),
            },
            Self::ShutDown { volume } => {
                ioctl::shut_down_filesystem(volume).context("shut the file system down")
            }
            Self::ReadOnly { trigger } => fs::write(trigger, "1").context("report an error to ext4"),
            Self::NearlyFull { filler, bytes } => {
                fallocate(filler.as_fd(), FallocateFlags::empty(), 0, *bytes).context("fill the volume")
            }
        }
    }

    /// What the kernel says to the plainer way to the same state, where there is one that it refuses.
    pub(super) fn plainer(&self, node: &Node) -> Option<String> {
        match self {
            Self::ReadOnly { .. } => {
                let remounted = run(command("mount").args(["-o", "remount,ro"]).arg(&node.mount));
                Some(remounted.map_or_else(
                    |refused| format!("{refused:#}").lines().next().unwrap_or_default().to_owned(),
                    |_| "remounted".to_owned(),
                ))
            }
            Self::OfMedium(_) | Self::ShutDown { .. } | Self::NearlyFull { .. } => None,
        }
    }
}
