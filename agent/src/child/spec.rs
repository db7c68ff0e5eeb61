//! What a child process is to become: everything that `holdfastd exec-child` does before it execs, as data.
//!
//! The helper fills it from its own configuration; only program arguments come from the daemon. It travels as one
//! argument, so nothing secret may ever stand in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// The child before its exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildSpec {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its name in process listings, where `program` says nothing.
    pub arg0: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as; `None` keeps the user, which is right when nobody is root.
    pub run_as: Option<RunAs>,
    /// Directory of the v2 cgroup that it joins; made if missing. `None` where there is no such hierarchy.
    pub cgroup: Option<PathBuf>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000. Without `CAP_SYS_RESOURCE` it is left alone.
    pub oom_score_adj: i32,
    /// Soft and hard limit of open files, capped by the hard limit when that may not be raised.
    pub open_files: u64,
    /// What an engine has besides; workers have none.
    pub engine: Option<EngineStage>,
}

/// The part of the set-up that guards an engine against being started twice or on the wrong disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStage {
    /// Root of the mounted volume.
    pub mount: PathBuf,
    /// Whether that must be a mount point; not so for kind `directory`.
    pub must_be_mounted: bool,
    /// The data directory; it exists since the volume was formatted.
    pub data_dir: PathBuf,
    /// The lock file on the volume; its descriptor is inherited by the engine and all its children.
    pub lock: PathBuf,
    /// The log, off the data volume: appended to by descriptor, never a pipe.
    pub log: PathBuf,
    /// With whose rights lock and log are opened, so that a link planted there gains nothing. `None` without root.
    pub daemon: Option<RunAs>,
}

/// What the stage tells whoever started it, over the channel on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageReport {
    /// All set up, lock held; it waits for [`Go`] and execs then. The end of the channel means the exec worked.
    Prepared {
        /// The locked file.
        lock: super::lock::LockFile,
    },
    /// It gave up and exits; nothing was started.
    Refused(Refusal),
}

/// Lets a prepared stage exec. Without it the stage exits: a stage that was given up as late never starts an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go;

/// Why a stage started nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Some process holds the engine lock.
    #[error("engine lock is held by {}", super::lock::describe(holders))]
    LockHeld {
        /// Those that can be seen from here; empty when they are in another pid namespace.
        holders: Vec<super::process::ProcessFacts>,
    },
    /// The mount point is just a directory: the volume is not there.
    #[error("{} is not a mount point", mount.display())]
    NotMounted {
        /// The directory.
        mount: PathBuf,
    },
    /// A path of the volume is on another file system.
    #[error("{} is not on the file system mounted at {}", path.display(), mount.display())]
    ElsewhereThanVolume {
        /// The path.
        path: PathBuf,
        /// The volume.
        mount: PathBuf,
    },
    /// A step of the set-up failed.
    #[error("{step}: {error}")]
    Step {
        /// What was tried.
        step: String,
        /// What the kernel said.
        error: String,
    },
}
