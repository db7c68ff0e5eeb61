//! What the configuration says about the volume, in the form in which every verb takes it.

use std::path::PathBuf;

use holdfast_model::volume::{Filesystem, VolumeKind};
use holdfast_model::{ClusterName, NodeName, Zone};
use serde::{Deserialize, Serialize};

/// The volume that this node wants. Made by the helper from its own configuration, so that a privileged verb
/// never acts on paths or names that came over a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// How devices are found.
    pub kind: VolumeKind,
    /// Kind `block`: candidates, in order of preference.
    pub devices: Vec<PathBuf>,
    /// Kind `nvme`: model patterns besides the built-in table; `*` stands for anything.
    pub models: Vec<String>,
    /// Kind `nvme`: only these serials, when there are any.
    pub serials: Vec<String>,
    /// Kind `directory`: the parent of the volume directories.
    pub path: Option<PathBuf>,
    /// Where the volume is mounted; for kind `directory` a symbolic link to the directory in use.
    pub mount: PathBuf,
    /// What format makes.
    pub filesystem: Filesystem,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This machine.
    pub node: NodeName,
    /// Where it stands.
    pub zone: Zone,
    /// `postgres` or `mysql`.
    pub engine: String,
    /// Who may read and write what on the volume.
    pub access: Access,
    /// Root-owned directory off the volume, for wipe tokens.
    pub token_dir: PathBuf,
}

/// Numeric owners of what is on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// User of the daemon and the volume worker; owns `.holdfast/`.
    pub daemon_uid: u32,
    /// Its group.
    pub daemon_gid: u32,
    /// User of the engine; owns the database directory.
    pub engine_uid: u32,
    /// Its group.
    pub engine_gid: u32,
}
