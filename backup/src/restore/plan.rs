//! Plans a restore: reads the whole manifest, refuses what is hostile or does not fit, and adds up the work.
//!
//! A [`RestorePlan`] is the proof that every entry was judged; only [`plan`] makes one, and `run` accepts nothing else.
//!
//! Invariants, tests in `restore/hostile.rs`:
//! * `a_hostile_manifest_is_refused_before_anything_is_written`.
//! * `a_size_bomb_is_refused_by_the_plan`.

use holdfast_model::record;
use holdfast_model::{ByteCount, Lsn, Term};

use super::RestoreError;
use super::fetch::groups;
use super::record_file::RESERVED;
use crate::chunk::{ChunkName, ChunkRef};
use crate::key::BackupId;
use crate::kind;
use crate::manifest::page::{Entry, Fragment};
use crate::manifest::walk::{Checker, read_page};
use crate::manifest::{LateEntry, Manifest, ManifestRecord};
use crate::repository::Repository;
use crate::rules::Chain;

/// What a restore will do.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    pub(super) manifest: Manifest,
    pub(super) hash: ChunkName,
    pub(super) repository: Repository,
    bytes: ByteCount,
    files: u64,
    chunks: u64,
    gets: u64,
    download: ByteCount,
}

/// Why a backup is not part of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Its term is not in the chain of rules.
    #[error("backup {id} is of term {}, which is not part of the history to restore", .id.term())]
    OtherHistory {
        /// The backup.
        id: BackupId,
    },
    /// It holds what the next reign discarded.
    #[error("backup {id} needs log up to {stop}, and term {} was cut at {cut}", .id.term())]
    Discarded {
        /// The backup.
        id: BackupId,
        /// Where it ends.
        stop: Lsn,
        /// Where its term was cut.
        cut: Lsn,
    },
}

impl RestorePlan {
    /// Which backup.
    #[must_use]
    pub const fn backup(&self) -> BackupId {
        self.manifest.id
    }

    /// What its manifest says.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The reign whose data it holds.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.manifest.id.term()
    }

    /// Bytes that will be written.
    #[must_use]
    pub const fn bytes(&self) -> ByteCount {
        self.bytes
    }

    /// Files that will be written.
    #[must_use]
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// Chunks that will be fetched.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Ranged GETs that will be made.
    #[must_use]
    pub const fn gets(&self) -> u64 {
        self.gets
    }

    /// Bytes that will be fetched.
    #[must_use]
    pub const fn download(&self) -> ByteCount {
        self.download
    }

    /// As [`check_history`].
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn check_history(&self, chain: &Chain) -> Result<(), HistoryError> {
        check_history(&self.manifest, chain)
    }

    fn count(&mut self, entries: &[Entry]) {
        let chunks: Vec<ChunkRef> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::File(fragment) => Some(fragment),
                Entry::Directory { .. } => None,
            })
            .inspect(|fragment| {
                self.bytes = self.bytes.plus(ByteCount::new(fragment.length));
                self.files += u64::from(fragment.offset == 0);
            })
            .flat_map(|fragment| fragment.chunks.iter().copied())
            .collect();
        self.chunks += chunks.len() as u64;
        for group in groups(chunks, |chunk| *chunk) {
            self.gets += 1;
            self.download = self.download.plus(ByteCount::new(group.range.end - group.range.start));
        }
    }
}

/// Checks that a backup belongs to a history: its term reigned in it, and was not cut before the backup ended.
///
/// # Errors
/// [`HistoryError`].
pub fn check_history(manifest: &Manifest, chain: &Chain) -> Result<(), HistoryError> {
    let (id, stop) = (manifest.id, manifest.stop);
    let reign = chain.reign(id.term()).ok_or(HistoryError::OtherHistory { id })?;
    match reign.end {
        Some(cut) if stop > cut => Err(HistoryError::Discarded { id, stop, cut }),
        Some(_) | None => Ok(()),
    }
}

/// Reads and judges the whole manifest of a backup; writes nothing. Memory: one page.
///
/// # Errors
/// [`RestoreError`]; `TooLarge` if the files would need more than `space`.
pub async fn plan(
    repository: &Repository,
    backup: BackupId,
    space: ByteCount,
) -> Result<RestorePlan, RestoreError> {
    let (manifest, hash) = load(repository, backup).await?;
    if manifest.chunk_size != repository.chunk_size() {
        return Err(RestoreError::ChunkSize { backup, chunk_size: manifest.chunk_size });
    }
    let mut checker = Checker::new(&manifest, &RESERVED)?;
    let late = late_entries(&manifest);
    let mut plan = RestorePlan {
        manifest,
        hash,
        repository: repository.clone(),
        bytes: ByteCount::ZERO,
        files: 0,
        chunks: 0,
        gets: 0,
        download: ByteCount::ZERO,
    };
    for index in 0..plan.manifest.pages.len() {
        let entries = read_page(repository, &plan.manifest, index).await?;
        entries.iter().try_for_each(|entry| checker.check(entry))?;
        plan.count(&entries);
        refuse_above(&plan, space)?;
    }
    plan.count(&late);
    checker.finish()?;
    refuse_above(&plan, space)?;
    Ok(plan)
}

fn refuse_above(plan: &RestorePlan, space: ByteCount) -> Result<(), RestoreError> {
    if plan.bytes <= space {
        return Ok(());
    }
    Err(RestoreError::TooLarge { backup: plan.backup(), bytes: plan.bytes, space })
}

/// The manifest with the hash of its bytes.
pub(super) async fn load(
    repository: &Repository,
    backup: BackupId,
) -> Result<(Manifest, ChunkName), RestoreError> {
    let manifest = repository.backup(backup).await?;
    let record = ManifestRecord::Complete(Box::new(manifest.clone()));
    let hash = repository.name_key().name(&record::encode(kind::MANIFEST, &record));
    Ok((manifest, hash))
}

/// Late files as if they came on a page of their own.
pub(super) fn late_entries(manifest: &Manifest) -> Vec<Entry> {
    let entry = |late: &LateEntry| {
        let length = late.chunks.iter().map(|chunk| u64::from(chunk.plain)).sum();
        let (path, mode, chunks) = (late.path.clone(), late.mode, late.chunks.clone());
        Entry::File(Fragment { path, mode, offset: 0, length, chunks })
    };
    manifest.late.iter().map(entry).collect()
}
