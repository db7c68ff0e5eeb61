//! What a restore has written about itself into the directory that it fills.
//!
//! One file, [`RECORD`], replaced atomically: `Running` before the first byte of data is written, with every page
//! after which all is on disk; `Verified` as the very last step. A directory without the latter is not whole.

use std::path::Path;

use holdfast_model::record::{self, RecordError};
use holdfast_model::{ByteCount, ClusterId, Member};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkName;
use crate::key::BackupId;
use crate::kind;

/// Name of the record below the root of the restored directory.
pub const RECORD: &str = ".holdfast-restore";
/// Names below the root of a backup that are ours: never backed up, never restored.
pub const RESERVED: [&str; 2] = [RECORD, ".holdfast-restore.new"];
const RECORD_BYTES_MAX: u64 = 1 << 16;

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk failed.
    #[error("access restore record")]
    Disk(#[from] IoError),
    /// It is damaged or newer than this release.
    #[error("read restore record")]
    Record(#[from] RecordError),
}

/// How far a restore into a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RestoreState {
    /// Begun and not finished: nothing may start on this directory.
    Running {
        /// What is being restored, for whom.
        what: Restoring,
        /// Key of the pin that keeps it from being deleted.
        pin: String,
        /// So many pages of the manifest are on disk for certain.
        pages_done: u64,
    },
    /// Every chunk was verified and everything is on disk.
    Verified {
        /// What was restored, for whom.
        what: Restoring,
        /// Bytes of all files.
        bytes: ByteCount,
    },
}

/// Names one restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Whose data.
    pub cluster: ClusterId,
    /// Which backup.
    pub backup: BackupId,
    /// Hash of its manifest.
    pub manifest: ChunkName,
    /// The member that will run on it: data restored for another incarnation is not this one's.
    pub member: Member,
}

impl RestoreState {
    /// Reads the record below `root`; `None` if no restore ever began there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(root: &Root) -> Result<Option<Self>, StateError> {
        let bytes = root.read(Path::new(RECORD), RECORD_BYTES_MAX)?;
        bytes.map(|bytes| record::decode(kind::RESTORE, &bytes)).transpose().map_err(StateError::Record)
    }

    /// Durable when it returns.
    pub(super) fn write(&self, root: &Root) -> Result<(), StateError> {
        let bytes = record::encode(kind::RESTORE, self);
        root.replace(Path::new(RECORD), &bytes, 0o600).map_err(StateError::Disk)
    }
}
