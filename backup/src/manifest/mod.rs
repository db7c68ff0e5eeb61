//! The manifest of a backup: a small root, published last, over pages that are chunks like any other.
//!
//! The root is JSON, for people; pages are binary, because a terabyte has four million chunks. Unchanged pages are
//! shared with the parent backup by reference. A backup that was given up has a tombstone in place of its root, so
//! that its own late publication fails.
//!
//! Here: what a manifest says. Reading it as a stream is `walk`, a page's layout is `page`.

use std::collections::BTreeMap;

use holdfast_model::{ByteCount, Lsn, Member};
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkRef;
use crate::key::BackupId;
use crate::path::RelPath;

pub(crate) mod page;
pub(crate) mod walk;

/// No root is larger: it would be that of a petabyte.
pub(crate) const ROOT_BYTES_MAX: u64 = 64 << 20;
/// No page is larger, inflated.
pub(crate) const PAGE_BYTES_MAX: u32 = 4 << 20;

/// What must be known about an engine before its files are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// `postgres` or `mysql`.
    pub engine: String,
    /// Full version as the engine prints it.
    pub version: String,
    /// Major version: a data directory starts under the same one only.
    pub major: u32,
    /// Size of a page in bytes.
    pub page_size: u32,
    /// Whether pages carry checksums, so that they were checked while they were read.
    pub checksums: bool,
    /// The engine's own id of the database cluster (Postgres: system identifier), as text.
    pub system_identifier: String,
    /// Version of each collation library, e.g. `glibc` and `icu`: another one may order indexes otherwise.
    pub locale_providers: BTreeMap<String, String>,
}

/// What is at the place of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum ManifestRecord {
    /// A whole backup.
    Complete(Box<Manifest>),
    /// A tombstone: whoever still works on this backup must give up.
    Aborted {
        /// Who gave it up and why, for people.
        why: String,
    },
}

/// The root of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which backup; holds its term and start.
    pub id: BackupId,
    /// Who made it.
    pub member: Member,
    /// Log is needed from the start up to here to make it whole.
    pub stop: Lsn,
    /// When it was made, RFC 3339, for people only.
    pub created: String,
    /// When the engine ended it, RFC 3339, for people only.
    pub finished: String,
    /// The engine whose files these are.
    pub engine: EngineFacts,
    /// Files are cut into chunks of this many bytes.
    pub chunk_size: u32,
    /// The pages, in the order of the walk.
    pub pages: Vec<ChunkRef>,
    /// Files that came into being only when the backup ended; no page holds them.
    pub late: Vec<LateEntry>,
    /// Sums, for people and for planning.
    pub totals: Totals,
    /// Other backups whose packs this one refers to, newest first.
    pub packs_of: Vec<BackupId>,
    /// The backup that it was compared with.
    pub parent: Option<BackupId>,
    /// How chunks are encrypted.
    pub encryption: Encryption,
}

/// How chunks are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Encryption {
    /// Not at all.
    None,
}

/// A small file that is listed in the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateEntry {
    /// Where.
    pub path: RelPath,
    /// Permission bits.
    pub mode: u32,
    /// Its content; none for an empty file.
    pub chunks: Vec<ChunkRef>,
}

/// Sums over a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: ByteCount,
    /// Chunks of all files.
    pub chunks: u64,
    /// Bytes of chunks that no earlier backup had, before compression.
    pub new_bytes: ByteCount,
    /// Bytes of the packs that this backup wrote.
    pub packed: ByteCount,
}
