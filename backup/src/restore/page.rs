//! Restores one page of a manifest: makes its directories and files, fetches, verifies and writes their chunks, and
//! brings everything to disk.
//!
//! Memory: [`FETCHES`] groups of 8 MiB. Dropping the future leaves blocking writes that end by themselves; the page is
//! then not recorded as done.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_storage_io::IoError;
use holdfast_storage_io::buffer::AlignedBuf;
use holdfast_storage_io::bulk::{BulkFile, BulkIo};
use tokio::task::spawn_blocking;

use super::RestoreError;
use super::fetch::{Group, groups};
use crate::chunk::{self, ChunkRef, NameKey};
use crate::manifest::page::{Entry, Fragment};
use crate::repository::{FetchError, Repository};
use crate::store::StoreError;

/// Groups fetched, inflated and written at once.
const FETCHES: usize = 6;
/// Files brought to disk at once.
const SYNCS: usize = 8;

/// A chunk and where it belongs.
#[derive(Debug, Clone)]
struct Placed {
    chunk: ChunkRef,
    file: Arc<BulkFile>,
    offset: u64,
}

/// Restores pages into one directory.
#[derive(Clone)]
pub(super) struct PageRestorer {
    pub(super) repository: Repository,
    pub(super) io: Arc<dyn BulkIo>,
}

impl PageRestorer {
    /// Restores one page. With `reuse`, chunks that are there already and match their names are kept. Everything is on
    /// disk when it returns. `wrote` is told the bytes of each chunk.
    pub(super) async fn restore(
        &self,
        entries: Vec<Entry>,
        reuse: bool,
        wrote: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RestoreError> {
        let this = self.clone();
        let made = blocking(move || this.make(entries)).await??;
        let missing = if reuse { self.not_there_yet(made.chunks, wrote).await? } else { made.chunks };
        let groups = groups(missing, |placed| placed.chunk);
        stream::iter(groups.into_iter().map(|group| Ok(Box::pin(self.fetch(group)))))
            .try_buffer_unordered(FETCHES)
            .try_for_each(|bytes| async move {
                wrote(bytes);
                Ok(())
            })
            .await?;
        self.sync(made.files, made.directories).await
    }

    fn make(&self, entries: Vec<Entry>) -> Result<Made, IoError> {
        let mut made = Made::default();
        for entry in entries {
            made.directories.insert(Path::new(entry.path().parent().unwrap_or("")).to_owned());
            match entry {
                Entry::Directory { path, mode } => {
                    let path = Path::new(path.as_str());
                    self.io.root().create_dirs(path, mode | 0o700)?;
                    made.directories.insert(path.to_owned());
                }
                Entry::File(fragment) => self.make_file(fragment, &mut made)?,
            }
        }
        Ok(made)
    }

    fn make_file(&self, fragment: Fragment, made: &mut Made) -> Result<(), IoError> {
        let path = Path::new(fragment.path.as_str());
        let file = Arc::new(self.io.create(path, fragment.end(), fragment.mode | 0o600)?);
        let mut offset = fragment.offset;
        for chunk in fragment.chunks {
            made.chunks.push(Placed { chunk, file: Arc::clone(&file), offset });
            offset += u64::from(chunk.plain);
        }
        made.files.push(file);
        Ok(())
    }

    async fn not_there_yet(
        &self,
        placed: Vec<Placed>,
        wrote: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Placed>, RestoreError> {
        let mut missing = Vec::new();
        let mut looked = stream::iter(placed)
            .map(|placed| {
                let this = self.clone();
                blocking(move || {
                    let there = this.is_there(&placed)?;
                    Ok::<_, IoError>((placed, there))
                })
            })
            .buffered(FETCHES);
        while let Some(result) = looked.next().await {
            let (placed, there) = result??;
            if there { wrote(u64::from(placed.chunk.plain)) } else { missing.push(placed) }
        }
        Ok(missing)
    }

    fn is_there(&self, placed: &Placed) -> Result<bool, IoError> {
        with_buffer(placed.chunk.plain as usize, |content| {
            let read = self.io.read_at(&placed.file, placed.offset, content)?;
            Ok(read == content.len() && self.repository.name_key().name(content) == placed.chunk.name)
        })
    }

    async fn fetch(&self, group: Group<Placed>) -> Result<u64, RestoreError> {
        let first = group.items[0].chunk.name;
        let failed = |source: StoreError| FetchError::Store { name: first, source };
        let range = group.range.clone();
        let stored = self.repository.store().get_range(&group.pack.key(), range).await.map_err(failed)?;
        let bytes = group.items.iter().map(|placed| u64::from(placed.chunk.plain)).sum();
        let this = self.clone();
        let damaged = blocking(move || this.write_group(&group, &stored)).await??;
        for placed in damaged {
            // Perhaps only on the way: ask for it alone, a few times.
            let content = self.repository.fetch_chunk(&placed.chunk).await?;
            let this = self.clone();
            blocking(move || this.io.write_at(&placed.file, placed.offset, &content)).await??;
        }
        Ok(bytes)
    }

    /// Writes what is sound and returns what is not.
    fn write_group(&self, group: &Group<Placed>, stored: &Bytes) -> Result<Vec<Placed>, IoError> {
        let mut damaged = Vec::new();
        for placed in &group.items {
            if !self.write_chunk(self.repository.name_key(), placed, slice(group, &placed.chunk, stored))? {
                damaged.push(placed.clone());
            }
        }
        Ok(damaged)
    }

    fn write_chunk(&self, key: &NameKey, placed: &Placed, stored: &[u8]) -> Result<bool, IoError> {
        with_buffer(placed.chunk.plain as usize, |content| {
            if chunk::open_into(key, &placed.chunk, stored, content).is_err() {
                return Ok(false);
            }
            self.io.write_at(&placed.file, placed.offset, content)?;
            Ok(true)
        })
    }

    async fn sync(
        &self,
        files: Vec<Arc<BulkFile>>,
        directories: BTreeSet<PathBuf>,
    ) -> Result<(), RestoreError> {
        stream::iter(files)
            .map(|file| {
                let this = self.clone();
                Ok(async move {
                    blocking(move || this.io.sync_file(&file)).await??;
                    Ok::<_, RestoreError>(())
                })
            })
            .try_buffer_unordered(SYNCS)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        let this = self.clone();
        blocking(move || directories.iter().try_for_each(|path| this.io.root().sync_dir(path))).await??;
        Ok(())
    }
}

#[derive(Default)]
struct Made {
    directories: BTreeSet<PathBuf>,
    files: Vec<Arc<BulkFile>>,
    chunks: Vec<Placed>,
}

fn slice<'a>(group: &Group<Placed>, chunk: &ChunkRef, stored: &'a Bytes) -> &'a [u8] {
    let at = |offset: u64| usize::try_from(offset - group.range.start).expect("a group fits in memory");
    &stored[at(u64::from(chunk.offset))..at(chunk.end())]
}

thread_local! {
    /// Reused, because touching fresh memory costs more than writing from it.
    static BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(0));
}

fn with_buffer<T>(length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < length {
            *buffer = AlignedBuf::zeroed(length);
        }
        work(&mut buffer[..length])
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    spawn_blocking(work).await.map_err(RestoreError::Panicked)
}
