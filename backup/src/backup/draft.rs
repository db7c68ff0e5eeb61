//! Turns prepared chunks, in the order of the walk, into packs and manifest pages.
//!
//! Invariants, tests in `tests/backup.rs`:
//! * `a_file_that_shrinks_while_it_is_read_ends_where_it_was_short`.
//! * `unchanged_pages_are_shared_with_the_parent`.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::ByteCount;

use super::BackupError;
use super::packer::Packer;
use crate::chunk::{self, ChunkName, ChunkRef, NameKey};
use crate::key::BackupId;
use crate::manifest::page::{self, Entry, Fragment};
use crate::manifest::{LateEntry, PAGE_BYTES_MAX, Totals};
use crate::path::RelPath;

/// A page ends at the latest after so many chunks and entries: 1 GiB of a large file.
const PAGE_ITEMS_MAX: usize = 4096;
/// From so many on it ends before the next path whose hash says so, so that pages of two backups end at the same
/// paths even if files came or went in between.
const PAGE_ITEMS_MIN: usize = 1024;
const PAGE_PATH_BYTES_MAX: usize = 1 << 20;

/// What became of one chunk of a file.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// The parent has it.
    Known(ChunkRef),
    /// It is new; compressed.
    New { name: ChunkName, plain: u32, stored: Vec<u8> },
    /// The file ended before it.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Draft {
    packer: Packer,
    name_key: NameKey,
    chunk_size: u32,
    parent_pages: BTreeMap<ChunkName, ChunkRef>,
    entries: Vec<Entry>,
    items: usize,
    path_bytes: usize,
    pages: Vec<ChunkRef>,
    used: BTreeSet<BackupId>,
    totals: Totals,
    ended: bool,
}

/// What a draft adds up to.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) pages: Vec<ChunkRef>,
    pub(crate) used: BTreeSet<BackupId>,
    pub(crate) totals: Totals,
}

impl Draft {
    pub(crate) const fn new(
        packer: Packer,
        name_key: NameKey,
        chunk_size: u32,
        parent_pages: BTreeMap<ChunkName, ChunkRef>,
    ) -> Self {
        Self {
            packer,
            name_key,
            chunk_size,
            parent_pages,
            entries: Vec::new(),
            items: 0,
            path_bytes: 0,
            pages: Vec::new(),
            used: BTreeSet::new(),
            totals: Totals {
                files: 0,
                directories: 0,
                bytes: ByteCount::ZERO,
                chunks: 0,
                new_bytes: ByteCount::ZERO,
                packed: ByteCount::ZERO,
            },
            ended: true,
        }
    }

    pub(crate) const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    pub(crate) const fn done(&self) -> ByteCount {
        self.totals.bytes
    }

    pub(crate) async fn directory(&mut self, path: RelPath, mode: u32) -> Result<(), BackupError> {
        self.make_room(&path).await?;
        self.totals.directories += 1;
        self.entries.push(Entry::Directory { path, mode });
        Ok(())
    }

    /// Begins a file; its chunks follow.
    pub(crate) async fn file(&mut self, path: RelPath, mode: u32) -> Result<(), BackupError> {
        self.make_room(&path).await?;
        self.totals.files += 1;
        self.ended = false;
        let fragment = Fragment { path, mode, offset: 0, length: 0, chunks: Vec::new() };
        self.entries.push(Entry::File(fragment));
        Ok(())
    }

    /// Adds the next chunk of the file. After one that is short nothing more is taken: what a file lost and
    /// gained again meanwhile comes back from the log.
    pub(crate) async fn chunk(&mut self, prepared: Prepared) -> Result<(), BackupError> {
        if self.ended {
            return Ok(());
        }
        let chunk = match prepared {
            Prepared::Nothing => {
                self.ended = true;
                return Ok(());
            }
            Prepared::Known(chunk) => chunk,
            Prepared::New { name, plain, stored } => {
                self.totals.new_bytes = self.totals.new_bytes.plus(ByteCount::new(u64::from(plain)));
                self.packer.add(name, plain, &stored).await?
            }
        };
        self.ended = chunk.plain < self.chunk_size;
        self.used.insert(chunk.pack.backup());
        self.totals.chunks += 1;
        self.totals.bytes = self.totals.bytes.plus(ByteCount::new(u64::from(chunk.plain)));
        if self.items >= PAGE_ITEMS_MAX {
            self.cut_inside_file().await?;
        }
        self.items += 1;
        let Some(Entry::File(fragment)) = self.entries.last_mut() else {
            unreachable!("chunks come only after their file");
        };
        fragment.length += u64::from(chunk.plain);
        fragment.chunks.push(chunk);
        Ok(())
    }

    /// Ends the page; the file that is being read goes on in the next one.
    async fn cut_inside_file(&mut self) -> Result<(), BackupError> {
        let Some(Entry::File(open)) = self.entries.pop() else {
            unreachable!("only a file has chunks");
        };
        let rest = Fragment {
            path: open.path.clone(),
            mode: open.mode,
            offset: open.end(),
            length: 0,
            chunks: Vec::new(),
        };
        // A file without a chunk so far moves as a whole: an empty run of it would say that it is empty.
        if !open.chunks.is_empty() {
            self.entries.push(Entry::File(open));
        }
        self.end_page().await?;
        self.entries.push(Entry::File(rest));
        Ok(())
    }

    async fn make_room(&mut self, path: &RelPath) -> Result<(), BackupError> {
        let natural =
            self.items >= PAGE_ITEMS_MIN && crc32c::crc32c(path.as_str().as_bytes()).is_multiple_of(32);
        if natural || self.items >= PAGE_ITEMS_MAX || self.path_bytes >= PAGE_PATH_BYTES_MAX {
            self.end_page().await?;
        }
        self.items += 1;
        self.path_bytes += path.as_str().len();
        Ok(())
    }

    async fn end_page(&mut self) -> Result<(), BackupError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let bytes = page::encode(&self.entries);
        let plain = u32::try_from(bytes.len()).expect("a page has at most a few thousand items");
        assert!(plain <= PAGE_BYTES_MAX, "a page of {plain} bytes could not be read back");
        let name = self.name_key.name(&bytes);
        let page = match self.parent_pages.get(&name) {
            Some(page) => *page,
            None => self.packer.add(name, plain, &chunk::deflate(&bytes)).await?,
        };
        self.used.insert(page.pack.backup());
        self.pages.push(page);
        self.entries.clear();
        self.items = 0;
        self.path_bytes = 0;
        Ok(())
    }

    /// Stores a small file that is listed in the root.
    pub(crate) async fn late(
        &mut self,
        path: RelPath,
        mode: u32,
        content: &[u8],
    ) -> Result<LateEntry, BackupError> {
        let mut chunks = Vec::new();
        for plain in content.chunks(self.chunk_size as usize) {
            let size = u32::try_from(plain.len()).expect("no longer than a chunk");
            chunks.push(self.packer.add(self.name_key.name(plain), size, &chunk::deflate(plain)).await?);
        }
        let bytes = ByteCount::new(content.len() as u64);
        self.totals.files += 1;
        self.totals.chunks += chunks.len() as u64;
        self.totals.bytes = self.totals.bytes.plus(bytes);
        self.totals.new_bytes = self.totals.new_bytes.plus(bytes);
        Ok(LateEntry { path, mode, chunks })
    }

    /// Ends the last page of the walk.
    pub(crate) async fn end_walk(&mut self) -> Result<(), BackupError> {
        self.end_page().await
    }

    /// Uploads the rest; afterwards every chunk that a page or a late file names is in the repository.
    pub(crate) async fn finish(mut self) -> Result<Drafted, BackupError> {
        self.totals.packed = self.packer.flush().await?;
        Ok(Drafted { pages: self.pages, used: self.used, totals: self.totals })
    }
}
