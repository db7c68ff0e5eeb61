//! Recognises what an earlier backup already holds.
//!
//! The parent's pages are streamed beside the walk: same path, same place in the file, same name = same chunk. Memory
//! is one page, whatever the size of the data. A chunk counts as absent if its pack is condemned, or if taking it
//! would make the new backup refer to the packs of too many others (restores would become random reads).
//!
//! Invariants, each a test below:
//! * `at_most_eight_other_backups_are_referred_to`.
//! * tests in `tests/backup.rs`: `a_second_backup_uploads_only_what_changed`, `condemned_packs_are_never_used_again`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_model::record;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::BackupError;
use crate::chunk::{ChunkName, ChunkRef};
use crate::key::{self, BackupId, PackId};
use crate::kind;
use crate::manifest::page::Entry;
use crate::manifest::walk::{WalkError, read_page};
use crate::manifest::{Manifest, ManifestRecord};
use crate::path::RelPath;
use crate::repository::Repository;

/// A manifest refers to the packs of at most so many other backups.
const OTHER_BACKUPS_MAX: usize = 8;
const CONDEMNED_BYTES_MAX: u64 = 64 << 20;

/// `condemned/<n>`: what a collection of garbage is about to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condemned {
    pub(crate) packs: BTreeSet<PackId>,
    pub(crate) manifests: BTreeSet<BackupId>,
}

impl Condemned {
    /// Everything that is condemned now. To be called after `begin/<id>` was created, never before.
    pub(crate) async fn load(repository: &Repository) -> Result<Self, BackupError> {
        let mut all = Self::default();
        for name in repository.store().list(key::CONDEMNED).await? {
            let key = format!("{}/{name}", key::CONDEMNED);
            // Deleted since it was listed: that collection is over, and what it deleted is in no manifest.
            let Some(bytes) = repository.store().find(&key, CONDEMNED_BYTES_MAX).await? else { continue };
            let one: Self = record::decode(kind::CONDEMNED, &bytes)
                .map_err(|source| BackupError::Record { key, source })?;
            all.packs.extend(one.packs);
            all.manifests.extend(one.manifests);
        }
        Ok(all)
    }
}

/// Chunks of an earlier backup, by path and position.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    repository: Option<Repository>,
    manifest: Option<Box<Manifest>>,
    usable: BTreeSet<BackupId>,
    condemned: BTreeSet<PackId>,
    next_page: usize,
    entries: VecDeque<Entry>,
}

impl Parent {
    /// The newest backup that is complete, of the same engine, cut alike and not condemned; nothing if there is none.
    pub(crate) async fn newest(
        repository: &Repository,
        condemned: Condemned,
        engine: &str,
    ) -> Result<Self, BackupError> {
        let mut names = repository.store().list(key::MANIFEST).await?;
        while let Some(name) = names.pop() {
            let Ok(id) = name.parse::<BackupId>() else { continue };
            if condemned.manifests.contains(&id) {
                continue;
            }
            let manifest = match repository.manifest_record(id).await {
                Ok(ManifestRecord::Complete(manifest)) => manifest,
                Ok(ManifestRecord::Aborted { .. }) => continue,
                Err(error) if error.is_transient() => {
                    return Err(BackupError::Manifest { id, source: Box::new(error) });
                }
                Err(error) => {
                    warn!(backup = %id, error = &error as &dyn std::error::Error, "manifest not usable as parent");
                    continue;
                }
            };
            if manifest.engine.engine == engine && manifest.chunk_size == repository.chunk_size() {
                let usable = usable(&manifest);
                return Ok(Self {
                    repository: Some(repository.clone()),
                    manifest: Some(manifest),
                    usable,
                    condemned: condemned.packs,
                    next_page: 0,
                    entries: VecDeque::new(),
                });
            }
        }
        Ok(Self::default())
    }

    pub(crate) fn id(&self) -> Option<BackupId> {
        self.manifest.as_ref().map(|manifest| manifest.id)
    }

    /// Pages that may be referred to again as they are.
    pub(crate) fn pages(&self) -> BTreeMap<ChunkName, ChunkRef> {
        let pages = self.manifest.iter().flat_map(|manifest| &manifest.pages);
        pages.filter(|page| self.may_use(page)).map(|page| (page.name, *page)).collect()
    }

    fn may_use(&self, chunk: &ChunkRef) -> bool {
        self.usable.contains(&chunk.pack.backup()) && !self.condemned.contains(&chunk.pack)
    }

    /// The chunk at byte `offset` of `path`. Calls must come in the order of the walk. A parent that turns out to be
    /// damaged is forgotten: everything after that is new.
    pub(crate) async fn known(
        &mut self,
        path: &RelPath,
        offset: u64,
    ) -> Result<Option<ChunkRef>, BackupError> {
        loop {
            while let Some(entry) = self.entries.front() {
                let passed = match entry {
                    Entry::Directory { path: there, .. } => there <= path,
                    Entry::File(there) => {
                        there.path < *path || (there.path == *path && there.end() <= offset)
                    }
                };
                if !passed {
                    return Ok(self.at(path, offset));
                }
                self.entries.pop_front();
            }
            if !self.load_page().await? {
                return Ok(None);
            }
        }
    }

    fn at(&self, path: &RelPath, offset: u64) -> Option<ChunkRef> {
        let Some(Entry::File(there)) = self.entries.front() else { return None };
        let size = u64::from(self.manifest.as_ref()?.chunk_size);
        if there.path != *path || offset < there.offset {
            return None;
        }
        let index = usize::try_from((offset - there.offset) / size).ok()?;
        there.chunks.get(index).filter(|chunk| self.may_use(chunk)).copied()
    }

    async fn load_page(&mut self) -> Result<bool, BackupError> {
        let (Some(repository), Some(manifest)) = (&self.repository, &self.manifest) else { return Ok(false) };
        if self.next_page == manifest.pages.len() {
            return Ok(false);
        }
        match read_page(repository, manifest, self.next_page).await {
            Ok(entries) => {
                self.entries = entries.into();
                self.next_page += 1;
                Ok(true)
            }
            Err(WalkError::Fetch { source, .. }) if source.is_transient() => Err(BackupError::Chunk(source)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(parent = %manifest.id, error, "parent backup is damaged, the rest is uploaded again");
                self.next_page = manifest.pages.len();
                Ok(false)
            }
        }
    }
}

/// The backups whose packs a child of `parent` may refer to: the parent and the newest of those that it refers to.
/// What lies in the packs of the oldest is uploaded again: a bounded part of each backup, instead of a restore that
/// is scattered over everything that ever was.
fn usable(parent: &Manifest) -> BTreeSet<BackupId> {
    let mut others: Vec<BackupId> = parent.packs_of.clone();
    others.push(parent.id);
    others.sort_unstable_by(|a, b| b.cmp(a));
    others.dedup();
    others.into_iter().take(OTHER_BACKUPS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use holdfast_model::{Lsn, Term};

    #[test]
    fn at_most_eight_other_backups_are_referred_to() {
        let id = |start| BackupId::from_parts(Term::FIRST, Lsn::from_offset(start), 0);
        let mut parent = testing::manifest();
        parent.id = id(100);
        parent.packs_of = (0..OTHER_BACKUPS_MAX as u64).map(id).collect();
        let usable = usable(&parent);
        assert_eq!(usable.len(), OTHER_BACKUPS_MAX);
        assert!(usable.contains(&parent.id), "the parent's own packs come first");
        assert!(!usable.contains(&id(0)), "the oldest is dropped");
    }
}
