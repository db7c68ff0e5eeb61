//! What a backup is made of: the agent implements [`Source`] with the engine's knowledge of its own files.

use std::io;

use crate::path::RelPath;

/// One thing found while walking. There is no variant for symbolic links, devices and sockets: a source leaves them
/// out or refuses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEntry {
    /// A directory, before anything that is in it.
    Directory {
        /// Where.
        path: RelPath,
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Where.
        path: RelPath,
        /// Permission bits.
        mode: u32,
        /// Bytes to read at most. What a file grows by while it is read belongs to the log.
        size: u64,
    },
}

impl SourceEntry {
    /// Where it is.
    #[must_use]
    pub const fn path(&self) -> &RelPath {
        match self {
            Self::Directory { path, .. } | Self::File { path, .. } => path,
        }
    }
}

/// Why a source cannot be backed up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system failed.
    #[error("read {path}")]
    Read {
        /// What was being read, below the root.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It must not be part of a backup, and leaving it out would lose data: e.g. a tablespace outside the root.
    #[error("refuse to back up {path}: {why}")]
    Refused {
        /// What.
        path: String,
        /// Why, and what would resolve it.
        why: String,
    },
    /// A page is damaged, however often it was read.
    #[error("{path} is damaged at byte {offset}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}

/// Files to back up. All calls block; they are made on blocking threads.
pub trait Source: Send + Sync + 'static {
    /// Everything, in the order of [`RelPath`]: a depth-first walk, siblings by name, directories before their
    /// content. What vanishes during the walk is left out.
    fn entries(&self) -> Box<dyn Iterator<Item = Result<SourceEntry, SourceError>> + Send + '_>;

    /// Opens a file; `None` if it has vanished.
    ///
    /// # Errors
    /// [`SourceError`].
    fn open(&self, path: &RelPath) -> Result<Option<Box<dyn SourceFile>>, SourceError>;
}

/// An open file of a source.
pub trait SourceFile: Send + Sync + 'static {
    /// Reads at a position; fewer bytes than asked for only at the end of the file. Checks what it reads and reads
    /// it again if the engine was writing it (torn page), as often as the engine needs.
    ///
    /// # Errors
    /// [`SourceError`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError>;
}
