//! Pages: runs of directory and file entries of a manifest, each stored as one chunk.
//!
//! ```text
//! frame( packs u32, each: term u32 start u64 random u64 pack u64
//!        entries u32, each: tag u8 (0 directory, 1 file) mode u32 path u16+bytes
//!          file: offset u64 length u64 chunks u32, each: kind u8 (0 full) name[32] pack u32 offset u32 stored u32 )
//! ```
//! A file too long for one page goes on in the next as another fragment. What a chunk holds inflated follows from
//! its place, so a page cannot declare one thing and deliver another.
//!
//! Invariants, each a test below:
//! * `a_page_survives_a_round_trip`.
//! * `reading_anything_as_a_page_never_panics`.

use std::collections::BTreeMap;

use holdfast_model::record::{self, RecordError};
use holdfast_model::{Lsn, Term};

use crate::chunk::{ChunkName, ChunkRef};
use crate::key::{BackupId, PackId};
use crate::kind;
use crate::path::{PathError, RelPath};
use crate::wire::{LayoutError, Reader};

const PACK_BYTES: usize = 4 + 8 + 8 + 8;
const CHUNK_BYTES: usize = 1 + 32 + 4 + 4 + 4;
const ENTRY_BYTES_MIN: usize = 1 + 4 + 2;
const TAG_DIRECTORY: u8 = 0;
const TAG_FILE: u8 = 1;
const CHUNK_FULL: u8 = 0;
/// Permission bits only: a backup must not bring set-uid files back.
const MODE_MAX: u32 = 0o777;

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory { path: RelPath, mode: u32 },
    File(Fragment),
}

impl Entry {
    pub(crate) const fn path(&self) -> &RelPath {
        match self {
            Self::Directory { path, .. } => path,
            Self::File(fragment) => &fragment.path,
        }
    }
}

impl Entry {
    /// Bytes of content.
    pub(crate) const fn length(&self) -> u64 {
        match self {
            Self::Directory { .. } => 0,
            Self::File(fragment) => fragment.length,
        }
    }
}

/// A run of a file: all of it, unless it is longer than a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) path: RelPath,
    pub(crate) mode: u32,
    /// Where in the file it begins; a multiple of the chunk size.
    pub(crate) offset: u64,
    /// Bytes of the file in it.
    pub(crate) length: u64,
    pub(crate) chunks: Vec<ChunkRef>,
}

impl Fragment {
    pub(crate) const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Why a page was refused.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Its frame is broken or newer than this release.
    #[error("read manifest page")]
    Frame(#[from] RecordError),
    /// It ends too early or says something impossible.
    #[error("read entries of manifest page")]
    Layout(#[from] LayoutError),
    /// It names a path that no backup may hold.
    #[error("read path in manifest page")]
    Path(#[from] PathError),
    /// A file's chunks do not add up to its length.
    #[error("chunks of file {path} do not add up to its length")]
    Length {
        /// The file.
        path: RelPath,
    },
    /// Written by a newer release.
    #[error("file {path} uses chunk kind {kind}, which this release does not know: upgrade holdfast")]
    ChunkKind {
        /// The file.
        path: RelPath,
        /// The kind.
        kind: u8,
    },
}

/// Encodes and frames a page.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).expect("a page holds a few thousand items").to_le_bytes();
    let mut packs: BTreeMap<PackId, usize> = BTreeMap::new();
    for entry in entries {
        if let Entry::File(fragment) = entry {
            packs.extend(fragment.chunks.iter().map(|chunk| (chunk.pack, 0)));
        }
    }
    let mut out = Vec::new();
    out.extend_from_slice(&number(packs.len()));
    for (index, (pack, slot)) in packs.iter_mut().enumerate() {
        *slot = index;
        out.extend_from_slice(&pack.backup().term().number().to_le_bytes());
        out.extend_from_slice(&pack.backup().start().offset().to_le_bytes());
        out.extend_from_slice(&pack.backup().random_bits().to_le_bytes());
        out.extend_from_slice(&pack.random_bits().to_le_bytes());
    }
    out.extend_from_slice(&number(entries.len()));
    for entry in entries {
        let (tag, mode) = match entry {
            Entry::Directory { mode, .. } => (TAG_DIRECTORY, *mode),
            Entry::File(fragment) => (TAG_FILE, fragment.mode),
        };
        let path = entry.path().as_str().as_bytes();
        out.push(tag);
        out.extend_from_slice(&mode.to_le_bytes());
        out.extend_from_slice(
            &u16::try_from(path.len()).expect("paths have at most 1024 bytes").to_le_bytes(),
        );
        out.extend_from_slice(path);
        let Entry::File(fragment) = entry else { continue };
        out.extend_from_slice(&fragment.offset.to_le_bytes());
        out.extend_from_slice(&fragment.length.to_le_bytes());
        out.extend_from_slice(&number(fragment.chunks.len()));
        for chunk in &fragment.chunks {
            out.push(CHUNK_FULL);
            out.extend_from_slice(chunk.name.as_bytes());
            out.extend_from_slice(&number(packs[&chunk.pack]));
            out.extend_from_slice(&chunk.offset.to_le_bytes());
            out.extend_from_slice(&chunk.stored.to_le_bytes());
        }
    }
    record::frame(kind::PAGE, &out)
}

/// Reads a page whose chunks hold `chunk_size` bytes each, the last of a file possibly fewer.
pub(crate) fn decode(bytes: &[u8], chunk_size: u32) -> Result<Vec<Entry>, PageError> {
    let mut reader = Reader::new(record::unframe(kind::PAGE, bytes)?);
    let count = reader.count(PACK_BYTES)?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let term = Term::new(reader.u32()?).ok_or(LayoutError)?;
        let backup = BackupId::from_parts(term, Lsn::from_offset(reader.u64()?), reader.u64()?);
        packs.push(PackId::from_parts(backup, reader.u64()?));
    }
    let count = reader.count(ENTRY_BYTES_MIN)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(entry(&mut reader, &packs, chunk_size)?);
    }
    if reader.is_empty() { Ok(entries) } else { Err(PageError::Layout(LayoutError)) }
}

fn entry(reader: &mut Reader<'_>, packs: &[PackId], chunk_size: u32) -> Result<Entry, PageError> {
    let tag = reader.u8()?;
    let mode = reader.u32()?;
    let length = usize::from(reader.u16()?);
    let path = std::str::from_utf8(reader.bytes(length)?).map_err(|_not_text| LayoutError)?;
    let path = RelPath::new(path)?;
    if mode > MODE_MAX {
        return Err(PageError::Layout(LayoutError));
    }
    match tag {
        TAG_DIRECTORY => return Ok(Entry::Directory { path, mode }),
        TAG_FILE => {}
        _newer => return Err(PageError::Layout(LayoutError)),
    }
    let (offset, length) = (reader.u64()?, reader.u64()?);
    let size = u64::from(chunk_size);
    let count = reader.count(CHUNK_BYTES)?;
    if !offset.is_multiple_of(size)
        || length.div_ceil(size) != count as u64
        || offset.checked_add(length).is_none()
    {
        return Err(PageError::Length { path });
    }
    let mut chunks = Vec::with_capacity(count);
    for index in 0..count as u64 {
        let kind = reader.u8()?;
        if kind != CHUNK_FULL {
            return Err(PageError::ChunkKind { path, kind });
        }
        let name = ChunkName::from_bytes(reader.array()?);
        let pack = usize::try_from(reader.u32()?).ok().and_then(|at| packs.get(at)).ok_or(LayoutError)?;
        let plain = u32::try_from(size.min(length - index * size)).map_err(|_bounded| LayoutError)?;
        let chunk = ChunkRef { name, pack: *pack, offset: reader.u32()?, stored: reader.u32()?, plain };
        if !chunk.is_plausible(chunk_size) {
            return Err(PageError::Length { path });
        }
        chunks.push(chunk);
    }
    Ok(Entry::File(Fragment { path, mode, offset, length, chunks }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 4096;

    fn fragment() -> impl Strategy<Value = Entry> {
        let place = (any::<[u8; 32]>(), 0u64..3, any::<u32>(), 1..SIZE);
        (0u64..4, "[a-z]{1,8}", prop::collection::vec(place, 0..5), 1..=SIZE).prop_map(
            |(first, path, places, last)| {
                let count = places.len();
                let plain = |at: usize| if at + 1 == count { last } else { SIZE };
                let chunks: Vec<_> = places
                    .into_iter()
                    .enumerate()
                    .map(|(at, (name, pack, offset, stored))| {
                        let backup = BackupId::from_parts(Term::FIRST, Lsn::from_offset(pack), pack);
                        let pack = PackId::from_parts(backup, pack);
                        let plain = plain(at);
                        let stored = stored.min(plain);
                        ChunkRef { name: ChunkName::from_bytes(name), pack, offset, stored, plain }
                    })
                    .collect();
                let length = chunks.iter().map(|chunk| u64::from(chunk.plain)).sum();
                let path = RelPath::new(&path).unwrap();
                let offset = first * u64::from(SIZE);
                Entry::File(Fragment { path, mode: 0o600, offset, length, chunks })
            },
        )
    }

    fn directory() -> impl Strategy<Value = Entry> {
        "[a-z]{1,8}(/[a-z]{1,8}){0,2}"
            .prop_map(|path| Entry::Directory { path: RelPath::new(&path).unwrap(), mode: 0o700 })
    }

    proptest! {
        #[test]
        fn a_page_survives_a_round_trip(entries in prop::collection::vec(prop_oneof![fragment(), directory()], 0..6)) {
            prop_assert_eq!(decode(&encode(&entries), SIZE).unwrap(), entries);
        }

        #[test]
        fn reading_anything_as_a_page_never_panics(
            entries in prop::collection::vec(fragment(), 1..3),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut: prop::sample::Index,
        ) {
            let framed = encode(&entries);
            let mut payload = record::unframe(kind::PAGE, &framed).unwrap().to_vec();
            for (at, byte) in changes {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            payload.truncate(cut.index(payload.len() + 1));
            if let Ok(read) = decode(&record::frame(kind::PAGE, &payload), SIZE) {
                prop_assert!(read.len() <= payload.len());
            }
        }
    }
}
