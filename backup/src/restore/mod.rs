//! Restores a backup into an empty directory.
//!
//! ```text
//! plan()  reads and judges the whole manifest, writes nothing
//! run()   pin/<id> -> record `running` -> per page: files, chunks, fsync, record -> late files -> record `verified`
//! ```
//! A restore that was cut short is continued by calling `run` again: pages that are recorded as done are on disk; of
//! the page after them, each chunk that is there and matches its name is kept.
//!
//! Invariants, tests in `tests/restore.rs`:
//! * `a_restore_cut_short_at_any_request_is_continued`.
//! * `only_the_last_step_writes_verified`.
//! * `a_damaged_chunk_is_never_written`.
//! * `a_directory_that_holds_anything_else_is_refused`.
//!
//! Cancel-safety: the future of `run` may be dropped at any point; call it again.
//!
//! Not here: log after the base (`log`), starting an engine on what was restored.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_model::record;
use holdfast_model::{ByteCount, Member};
use holdfast_storage_io::IoError;
use holdfast_storage_io::bulk::BulkIo;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;
use tracing::{info, warn};

use crate::backup::CatalogError;
use crate::key::{self, BackupId};
use crate::kind;
use crate::manifest::walk::{WalkError, read_page};
use crate::meter::Meter;
use crate::repository::{FetchError, Repository};
use crate::store::StoreError;

mod fetch;
#[cfg(test)]
mod hostile;
mod page;
mod plan;
mod record_file;

pub use plan::{HistoryError, RestorePlan, check_history, plan};
pub use record_file::{RECORD, RESERVED, RestoreState, Restoring, StateError};

use page::{PageRestorer, blocking};

/// Why a restore failed. Unless said otherwise, calling `run` again continues it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The manifest cannot be had.
    #[error("read what is to be restored")]
    Manifest(#[from] CatalogError),
    /// The manifest cannot be used: damaged or hostile. Nothing of it was written.
    #[error("refuse the manifest")]
    Refused(#[from] WalkError),
    /// Object storage failed.
    #[error("restore from repository")]
    Store(#[from] StoreError),
    /// A chunk is missing or damaged: this backup cannot be restored, an older one perhaps can.
    #[error("restore a chunk")]
    Chunk(#[source] Box<FetchError>),
    /// The disk failed or is full.
    #[error("write what is restored")]
    Disk(#[from] IoError),
    /// The record of the restore cannot be read or written.
    #[error("keep record of the restore")]
    State(#[from] StateError),
    /// The files need more space than there is.
    #[error("backup {backup} needs {bytes}, and there are {space}")]
    TooLarge {
        /// Which backup.
        backup: BackupId,
        /// What it needs, or more.
        bytes: ByteCount,
        /// What there is.
        space: ByteCount,
    },
    /// It was cut otherwise than this repository cuts.
    #[error("backup {backup} declares chunks of {chunk_size} bytes, which is not what its repository uses")]
    ChunkSize {
        /// Which backup.
        backup: BackupId,
        /// What it declares.
        chunk_size: u32,
    },
    /// The directory holds something that no restore of ours put there.
    #[error("{} is not empty: it holds {found}", root.display())]
    NotEmpty {
        /// The directory.
        root: std::path::PathBuf,
        /// One thing that is in it.
        found: String,
    },
    /// The directory belongs to another restore, begun or done.
    #[error("the directory holds a restore of backup {} for member {}", .there.backup, .there.member)]
    OtherRestore {
        /// What is there.
        there: Box<Restoring>,
    },
    /// The manifest changed since it was planned.
    #[error("the manifest of backup {backup} is not the one that was planned: plan again")]
    Changed {
        /// Which backup.
        backup: BackupId,
    },
    /// A bug: a task of the restore panicked.
    #[error("restore on another thread")]
    Panicked(#[source] JoinError),
}

impl From<FetchError> for RestoreError {
    fn from(error: FetchError) -> Self {
        Self::Chunk(Box::new(error))
    }
}

/// `pin/<backup>-<random>`: somebody restores this backup; its packs must stay.
#[derive(Debug, Serialize, Deserialize)]
struct Pin {
    backup: BackupId,
    member: Member,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of all files.
    pub bytes: ByteCount,
    /// Pages that an earlier try had brought to disk.
    pub pages_kept: u64,
}

/// Restores into the root of `io`, which must be empty or hold this very restore, cut short. On success the directory
/// is whole, verified, on disk, and says so ([`RestoreState::Verified`]).
///
/// # Errors
/// [`RestoreError`].
pub async fn run(
    plan: &RestorePlan,
    io: Arc<dyn BulkIo>,
    member: &Member,
    meter: &Meter,
) -> Result<Restored, RestoreError> {
    let repository = &plan.repository;
    let what = Restoring {
        cluster: repository.cluster().clone(),
        backup: plan.backup(),
        manifest: plan.hash,
        member: member.clone(),
    };
    let at = Arc::clone(&io);
    let expected = what.clone();
    let (pin, pages_kept) = match blocking(move || look(&*at, &expected)).await?? {
        Progress::Done => {
            return Ok(Restored { bytes: plan.bytes(), pages_kept: plan.manifest.pages.len() as u64 });
        }
        Progress::Fresh => (format!("pin/{}", key::unique(plan.backup())), None),
        Progress::CutShort { pin, pages_done } => (pin, Some(pages_done)),
    };
    let record = Pin { backup: plan.backup(), member: member.clone() };
    repository.store().create(&pin, Bytes::from(record::encode(kind::PIN, &record))).await?;
    // Only now is it certain that nothing of this backup is deleted: look again.
    let (_, hash) = plan::load(repository, plan.backup()).await?;
    if hash != plan.hash {
        return Err(RestoreError::Changed { backup: plan.backup() });
    }
    meter.phase("restoring files", plan.bytes());
    let job = Job { plan, io, what, pin, meter };
    job.pages(pages_kept).await?;
    job.finish().await?;
    Ok(Restored { bytes: plan.bytes(), pages_kept: pages_kept.unwrap_or(0) })
}

enum Progress {
    Fresh,
    CutShort { pin: String, pages_done: u64 },
    Done,
}

fn look(io: &dyn BulkIo, expected: &Restoring) -> Result<Progress, RestoreError> {
    let other = |there: Restoring| Err(RestoreError::OtherRestore { there: Box::new(there) });
    match RestoreState::read(io.root())? {
        Some(RestoreState::Running { what, pin, pages_done }) if what == *expected => {
            Ok(Progress::CutShort { pin, pages_done })
        }
        Some(RestoreState::Verified { what, .. }) if what == *expected => Ok(Progress::Done),
        Some(RestoreState::Running { what, .. } | RestoreState::Verified { what, .. }) => other(what),
        None => {
            let entries = io.list(Path::new(""))?;
            let foreign =
                entries.iter().find(|entry| !RESERVED.iter().any(|name| Path::new(name) == entry.path));
            match foreign {
                None => Ok(Progress::Fresh),
                Some(entry) => {
                    let root = io.root().name().to_owned();
                    Err(RestoreError::NotEmpty { root, found: entry.path.display().to_string() })
                }
            }
        }
    }
}

struct Job<'a> {
    plan: &'a RestorePlan,
    io: Arc<dyn BulkIo>,
    what: Restoring,
    pin: String,
    meter: &'a Meter,
}

impl Job<'_> {
    fn repository(&self) -> &Repository {
        &self.plan.repository
    }

    async fn record(&self, state: RestoreState) -> Result<(), RestoreError> {
        let io = Arc::clone(&self.io);
        Ok(blocking(move || state.write(io.root())).await??)
    }

    /// `kept` is `None` if nothing was written yet, else the number of pages that are on disk.
    async fn pages(&self, kept: Option<u64>) -> Result<(), RestoreError> {
        let running =
            |pages_done| RestoreState::Running { what: self.what.clone(), pin: self.pin.clone(), pages_done };
        if kept.is_none() {
            self.record(running(0)).await?;
        }
        let done = AtomicU64::new(0);
        let wrote = |bytes: u64| {
            let sum = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.meter.at(ByteCount::new(sum));
        };
        let restorer = PageRestorer { repository: self.repository().clone(), io: Arc::clone(&self.io) };
        for index in 0..self.plan.manifest.pages.len() {
            let entries = read_page(self.repository(), &self.plan.manifest, index).await?;
            let number = index as u64;
            if kept.is_some_and(|kept| number < kept) {
                wrote(entries.iter().map(crate::manifest::page::Entry::length).sum());
                continue;
            }
            // Only the first page after those that are done can have been begun before.
            Box::pin(restorer.restore(entries, kept == Some(number), &wrote)).await?;
            self.record(running(number + 1)).await?;
        }
        Box::pin(restorer.restore(plan::late_entries(&self.plan.manifest), false, &wrote)).await
    }

    async fn finish(&self) -> Result<(), RestoreError> {
        let io = Arc::clone(&self.io);
        blocking(move || io.root().sync_dir(Path::new(""))).await??;
        let bytes = self.plan.bytes();
        self.record(RestoreState::Verified { what: self.what.clone(), bytes }).await?;
        info!(backup = %self.what.backup, %bytes, "backup restored and verified");
        if let Err(error) = self.repository().store().delete(&self.pin).await {
            // A pin that stays only keeps garbage alive.
            warn!(pin = %self.pin, error = &error as &dyn std::error::Error, "pin not deleted");
        }
        Ok(())
    }
}
