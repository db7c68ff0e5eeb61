//! Disks as the rest of the agent sees them: what a device is, what was found on it, who a volume belongs to.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ByteCount, ClusterId, Incarnation, NodeName, Zone};

/// How the volume's device is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// Local NVMe, found by model pattern and serial.
    Nvme,
    /// Block devices named by path; loop devices in tests.
    Block,
    /// A directory; no root needed, for development.
    Directory,
}

/// The file system that format makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// XFS, the default.
    #[default]
    Xfs,
    /// ext4, by choice.
    Ext4,
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        })
    }
}

/// Which device, unmistakably: names such as `nvme1n1` move between boots, these do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceId {
    /// Where it is now, e.g. `/dev/nvme1n1`.
    pub path: PathBuf,
    /// NVMe model, or `loop`, or `directory`.
    pub model: String,
    /// NVMe serial; for loop devices the backing file's device and inode; for directories the path.
    pub serial: String,
    /// `BLKGETDISKSEQ`: changes whenever another medium appears under the same name. 0 for directories.
    pub diskseq: u64,
    /// Capacity.
    pub size: ByteCount,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {}, {})", self.path.display(), self.model, self.serial, self.size)
    }
}

/// Written into a volume when it is formatted, read back through the mount before anything trusts the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeIdentity {
    /// Whose data; `None` until bootstrap or restore binds the volume to a cluster id.
    pub cluster: crate::ClusterName,
    /// The cluster's full id, once known.
    pub cluster_id: Option<ClusterId>,
    /// The machine.
    pub node: NodeName,
    /// This formatting of the disk.
    pub incarnation: Incarnation,
    /// Where the machine stands.
    pub zone: Zone,
    /// The engine whose data it holds: `postgres` or `mysql`.
    pub engine: String,
    /// Serials of the devices below the file system.
    pub serials: Vec<String>,
    /// UUID of the file system; all zero for directories.
    pub fs_uuid: uuid::Uuid,
    /// When it was formatted, RFC 3339, for people only.
    pub created: String,
    /// `/proc/sys/kernel/random/boot_id` at that time.
    pub boot_id: String,
}

/// What a device is to this node. Only [`Verdict::Blank`], or a wipe token, leads to mkfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// No signature at either end, no partitions, holders or loop backing, zeros wherever it was sampled.
    Blank,
    /// Formatted by this node for this cluster.
    Ours {
        /// UUID of its file system.
        fs_uuid: uuid::Uuid,
    },
    /// Formatted by this node for this cluster, but the device or the record says that it is an older one.
    Stale {
        /// What does not match.
        why: String,
    },
    /// Formatted by holdfast for another node or another cluster.
    Theirs {
        /// Who it says it belongs to.
        owner: String,
    },
    /// In use, or holds something that is not ours.
    Foreign {
        /// What was found.
        why: String,
    },
    /// It cannot be read throughout.
    Sick {
        /// The error.
        why: String,
    },
    /// It is not there.
    Gone {
        /// The error.
        why: String,
    },
}

impl Verdict {
    /// The word alone, as the command line and RPCs carry it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Ours { .. } => "ours",
            Self::Stale { .. } => "stale",
            Self::Theirs { .. } => "theirs",
            Self::Foreign { .. } => "foreign",
            Self::Sick { .. } => "sick",
            Self::Gone { .. } => "gone",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank"),
            Self::Ours { fs_uuid } => write!(f, "ours (file system {fs_uuid})"),
            Self::Stale { why } => write!(f, "stale: {why}"),
            Self::Theirs { owner } => write!(f, "theirs: belongs to {owner}"),
            Self::Foreign { why } => write!(f, "foreign: {why}"),
            Self::Sick { why } => write!(f, "sick: {why}"),
            Self::Gone { why } => write!(f, "gone: {why}"),
        }
    }
}

/// One device with what was found on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceVerdict {
    /// The device.
    pub device: DeviceId,
    /// What it is to this node.
    pub verdict: Verdict,
}

/// How a mounted volume's device is doing. Only a write that returned in time proves life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health", rename_all = "snake_case")]
pub enum DiskHealth {
    /// The last probe write returned in time.
    Healthy,
    /// A probe write is past its deadline.
    Stalled {
        /// How long it has been waiting, in milliseconds.
        for_ms: u64,
    },
    /// A write failed: nothing on it is trusted until it was remounted and verified.
    Sick {
        /// The error.
        why: String,
    },
    /// The device is no longer there.
    Gone {
        /// How that showed.
        why: String,
    },
    /// The file system went read-only by itself.
    ReadOnly,
    /// The file system was shut down.
    ShutDown,
}

impl DiskHealth {
    /// Whether writes may go on.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// The word alone, for metrics and logs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stalled { .. } => "stalled",
            Self::Sick { .. } => "sick",
            Self::Gone { .. } => "gone",
            Self::ReadOnly => "read_only",
            Self::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for DiskHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled { for_ms } => write!(f, "stalled for {for_ms} ms"),
            Self::Sick { why } => write!(f, "sick: {why}"),
            Self::Gone { why } => write!(f, "gone: {why}"),
            Self::Healthy | Self::ReadOnly | Self::ShutDown => f.write_str(self.word()),
        }
    }
}

/// Free space against the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Capacity of the file system.
    pub total: ByteCount,
    /// Free for the engine.
    pub free: ByteCount,
    /// Below the point at which clients become read-only.
    pub nearly_full: bool,
}
