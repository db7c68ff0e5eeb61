//! Makes a backup.
//!
//! ```text
//! copy()    begin/<id> -> list condemned/ -> newest parent -> walk, dedupe, pack, upload     -> Copied
//! seal()    the engine has stopped backing up: late files, last packs                        -> Sealed
//! publish() log of [start, stop] is in the repository -> manifest/<id>, create-only          -> Manifest
//! ```
//! Nothing refers to what was uploaded until `publish`: whatever is cut short before that leaves garbage and no harm.
//! A backup that was cut short is not continued but made anew.
//!
//! Invariants, tests in `tests/backup.rs`:
//! * `a_backup_cut_short_at_any_request_leaves_no_backup_and_the_next_one_works`.
//! * `nothing_is_published_before_its_log_is_shipped`.
//! * `a_tombstone_stops_a_late_publication`.
//!
//! Cancel-safety: every future here may be dropped at any point; `publish` may then have happened, and repeating it
//! tells.
//!
//! Not here: which files belong into a backup, and talking to the engine. See [`Source`].

use std::sync::Arc;

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};
use holdfast_model::{ByteCount, Lsn, Member};
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;
use tracing::{info, warn};

use crate::key::BackupId;
use crate::kind;
use crate::log::LogError;
use crate::manifest::{Encryption, EngineFacts, LateEntry, Manifest, ManifestRecord};
use crate::meter::Meter;
use crate::path::{PathError, RelPath};
use crate::repository::{FetchError, Repository};
use crate::restore::RESERVED;
use crate::store::{Created, StoreError};

mod catalog;
mod draft;
mod packer;
mod parent;
mod source;
mod walk;

pub use catalog::{Backup, CatalogError};
pub use source::{Source, SourceEntry, SourceError, SourceFile};

use draft::Draft;
use packer::Packer;
use parent::{Condemned, Parent};

const LATE_FILES_MAX: usize = 16;
const LATE_BYTES_MAX: usize = 16 << 20;

/// What is known of a backup when it begins.
#[derive(Debug, Clone)]
pub struct BackupSpec {
    /// Its name; see [`BackupId::random`]. A name is used once.
    pub id: BackupId,
    /// Whose data.
    pub member: Member,
    /// Now, RFC 3339, for people only.
    pub created: String,
    /// The engine.
    pub engine: EngineFacts,
    /// Bytes expected, for progress; 0 if unknown.
    pub expected: ByteCount,
}

/// What the engine said when the backup ended.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// Log is needed up to here.
    pub stop: Lsn,
    /// Now, RFC 3339, for people only.
    pub finished: String,
    /// Files that could only be read or made now, e.g. Postgres' `backup_label` and `global/pg_control`. No entry of
    /// the source may have such a path.
    pub files: Vec<LateFile>,
}

/// A small file whose content came last.
#[derive(Debug, Clone)]
pub struct LateFile {
    /// Where it belongs.
    pub path: RelPath,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Bytes,
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Object storage failed.
    #[error("back up to repository")]
    Store(#[from] StoreError),
    /// A page of the parent's manifest cannot be had now.
    #[error("read manifest of the parent backup")]
    Chunk(#[source] Box<FetchError>),
    /// The files could not be read.
    #[error("read what is to be backed up")]
    Source(#[from] SourceError),
    /// A bug in the source: it did not walk in order.
    #[error("walk what is to be backed up")]
    Order(#[source] PathError),
    /// There was a backup of that name.
    #[error("backup {id} exists: a backup that was cut short is made anew under another name")]
    Exists {
        /// The name.
        id: BackupId,
    },
    /// A record of the repository cannot be read.
    #[error("read {key}")]
    Record {
        /// Which.
        key: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The manifest of an earlier backup cannot be read now.
    #[error("read manifest of earlier backup {id}")]
    Manifest {
        /// Which.
        id: BackupId,
        /// Why.
        #[source]
        source: Box<CatalogError>,
    },
    /// Late files are too many, too large, or not where files may be.
    #[error("late file {path} is refused: {why}")]
    Late {
        /// Which.
        path: RelPath,
        /// Why.
        why: &'static str,
    },
    /// The log that the backup needs is not in the repository yet; ship it and publish again.
    #[error("backup {id} needs log of term {} from {} to {stop}, which is not in the repository", .id.term(), .id.start())]
    LogIncomplete {
        /// Which backup.
        id: BackupId,
        /// Log is needed up to here.
        stop: Lsn,
        /// How far the log is, or what is wrong with it.
        #[source]
        source: Box<LogError>,
    },
    /// Somebody gave this backup up while it was being made.
    #[error("backup {id} was aborted: {why}")]
    Aborted {
        /// Which.
        id: BackupId,
        /// Who and why.
        why: String,
    },
    /// A bug: a task of the backup panicked.
    #[error("back up on another thread")]
    Panicked(#[source] JoinError),
}

/// `begin/<id>`: a backup is being made; nothing that it may refer to may be deleted.
#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    id: BackupId,
    member: Member,
    created: String,
}

/// A backup whose files are in the repository and whose end the engine has not told yet.
#[derive(Debug)]
pub struct Copied {
    repository: Repository,
    spec: BackupSpec,
    draft: Draft,
    parent: Option<BackupId>,
}

/// A backup that is whole in the repository and waits for its log.
#[derive(Debug)]
pub struct Sealed {
    repository: Repository,
    manifest: Manifest,
}

/// Copies everything in `source` that no earlier backup holds.
///
/// # Errors
/// [`BackupError`]; nothing is published then.
pub async fn copy(
    repository: &Repository,
    spec: BackupSpec,
    source: Arc<dyn Source>,
    meter: &Meter,
) -> Result<Copied, BackupError> {
    let id = spec.id;
    let begin = Begin { id, member: spec.member.clone(), created: spec.created.clone() };
    let bytes = Bytes::from(record::encode(kind::BEGIN, &begin));
    if let Created::Theirs(_) = repository.store().create(&id.begin_key(), bytes).await? {
        return Err(BackupError::Exists { id });
    }
    // Only after begin: either this backup sees a condemnation, or the one who condemns sees this backup.
    let condemned = Condemned::load(repository).await?;
    let parent = Box::pin(Parent::newest(repository, condemned, &spec.engine.engine)).await?;
    let parent_id = parent.id();
    let packer = Packer::new(repository.store().clone(), id);
    let name_key = repository.name_key().clone();
    let mut draft = Draft::new(packer, name_key.clone(), repository.chunk_size(), parent.pages());
    meter.phase("copying files", spec.expected);
    Box::pin(walk::run(source, parent, name_key, &mut draft, meter)).await?;
    Ok(Copied { repository: repository.clone(), spec, draft, parent: parent_id })
}

impl Copied {
    /// Adds what came last. The engine must have ended its backup before, so that `stop` is known.
    ///
    /// # Errors
    /// [`BackupError`]; nothing is published then.
    pub async fn seal(self, stopped: Stopped) -> Result<Sealed, BackupError> {
        let Self { repository, spec, mut draft, parent } = self;
        check_late(&stopped.files)?;
        let mut late: Vec<LateEntry> = Vec::new();
        for file in stopped.files {
            late.push(draft.late(file.path, file.mode & 0o777, &file.content).await?);
        }
        let drafted = draft.finish().await?;
        let mut packs_of: Vec<BackupId> = drafted.used.into_iter().filter(|used| *used != spec.id).collect();
        packs_of.reverse();
        let manifest = Manifest {
            id: spec.id,
            member: spec.member,
            stop: stopped.stop,
            created: spec.created,
            finished: stopped.finished,
            engine: spec.engine,
            chunk_size: repository.chunk_size(),
            pages: drafted.pages,
            late,
            totals: drafted.totals,
            packs_of,
            parent,
            encryption: Encryption::None,
        };
        Ok(Sealed { repository, manifest })
    }
}

fn check_late(files: &[LateFile]) -> Result<(), BackupError> {
    for (index, file) in files.iter().enumerate() {
        let refuse = |why| Err(BackupError::Late { path: file.path.clone(), why });
        if index >= LATE_FILES_MAX {
            return refuse("there are too many");
        }
        if file.content.len() > LATE_BYTES_MAX {
            return refuse("it is too large");
        }
        if RESERVED.contains(&file.path.as_str()) {
            return refuse("its place is reserved");
        }
    }
    Ok(())
}

impl Sealed {
    /// What will be published.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Publishes the backup once the log that it needs is in the repository. May be repeated until then.
    ///
    /// # Errors
    /// [`BackupError::LogIncomplete`]: ship log and call again. [`BackupError::Aborted`]: somebody gave it up.
    pub async fn publish(&self) -> Result<&Manifest, BackupError> {
        let (id, stop) = (self.manifest.id, self.manifest.stop);
        self.repository
            .require_log(id.term(), id.start(), stop)
            .await
            .map_err(|source| BackupError::LogIncomplete { id, stop, source: Box::new(source) })?;
        let record = ManifestRecord::Complete(Box::new(self.manifest.clone()));
        let bytes = Bytes::from(record::encode(kind::MANIFEST, &record));
        let key = id.manifest_key();
        match self.repository.store().create(&key, bytes).await? {
            Created::Ours => {}
            Created::Theirs(there) => {
                let there = record::decode(kind::MANIFEST, &there);
                return Err(match there.map_err(|source| BackupError::Record { key, source })? {
                    ManifestRecord::Aborted { why } => BackupError::Aborted { id, why },
                    ManifestRecord::Complete(_) => BackupError::Exists { id },
                });
            }
        }
        info!(backup = %id, bytes = %self.manifest.totals.bytes, new = %self.manifest.totals.new_bytes, "backup published");
        if let Err(error) = self.repository.store().delete(&id.begin_key()).await {
            // Left behind it says nothing wrong: its manifest exists.
            warn!(backup = %id, error = &error as &dyn std::error::Error, "begin record not deleted");
        }
        Ok(&self.manifest)
    }
}
