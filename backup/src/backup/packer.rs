//! Fills packs and uploads them while the next one fills.
//!
//! Memory: the pack that fills, its frame while it is closed, and [`UPLOADS_MAX`] on their way. Dropping a packer
//! aborts its uploads; packs that arrived are garbage until a manifest names them.

use bytes::Bytes;
use holdfast_model::ByteCount;
use tokio::task::JoinSet;

use super::BackupError;
use crate::chunk::{ChunkName, ChunkRef};
use crate::key::{BackupId, PackId};
use crate::pack::PackBuilder;
use crate::store::{Store, StoreError};

/// Large enough that requests cost little beside their bytes, small enough that a few fit in memory.
const PACK_BYTES: usize = 32 << 20;
const UPLOADS_MAX: usize = 2;
/// Room for the last chunk and the entries, so that a pack does not outgrow its memory at the very end.
const PACK_SLACK: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Packer {
    store: Store,
    backup: BackupId,
    filling: PackBuilder,
    uploads: JoinSet<Result<(), StoreError>>,
    packed: u64,
}

impl Packer {
    pub(crate) fn new(store: Store, backup: BackupId) -> Self {
        let filling = PackBuilder::new(PackId::random(backup));
        Self { store, backup, filling, uploads: JoinSet::new(), packed: 0 }
    }

    pub(crate) async fn add(
        &mut self,
        name: ChunkName,
        plain: u32,
        stored: &[u8],
    ) -> Result<ChunkRef, BackupError> {
        if self.filling.len() == 0 {
            self.filling.reserve(PACK_BYTES + PACK_SLACK);
        }
        let chunk = self.filling.add(name, plain, stored);
        if self.filling.len() >= PACK_BYTES {
            self.close().await?;
        }
        Ok(chunk)
    }

    async fn close(&mut self) -> Result<(), BackupError> {
        let full = std::mem::replace(&mut self.filling, PackBuilder::new(PackId::random(self.backup)));
        while self.uploads.len() >= UPLOADS_MAX {
            self.await_upload().await?;
        }
        if let Some((key, object)) = full.finish() {
            self.packed += object.len() as u64;
            let store = self.store.clone();
            self.uploads.spawn(async move { store.put(&key, Bytes::from(object)).await });
        }
        Ok(())
    }

    async fn await_upload(&mut self) -> Result<bool, BackupError> {
        let Some(ended) = self.uploads.join_next().await else { return Ok(false) };
        ended.map_err(BackupError::Panicked)??;
        Ok(true)
    }

    /// Uploads what is left; afterwards every chunk that was added is in the repository.
    pub(crate) async fn flush(&mut self) -> Result<ByteCount, BackupError> {
        self.close().await?;
        while self.await_upload().await? {}
        Ok(ByteCount::new(self.packed))
    }
}
