//! Packs: objects of about 32 MiB that hold chunks in file order.
//!
//! ```text
//! frame( chunk chunk .. | entry (name[32] offset u32 stored u32 plain u32) .. | number of entries u32 )
//! ```
//! Offsets count from the start of the object, frame included, so that a chunk is one ranged GET. A restore never
//! reads the entries: they let a damaged repository be searched.
//!
//! Invariants, each a test below:
//! * `chunks_lie_where_their_references_say`.
//! * `reading_the_entries_of_anything_never_panics`.

use holdfast_model::record::{self, RecordError};

use crate::chunk::{ChunkName, ChunkRef};
use crate::key::PackId;
use crate::kind;
use crate::wire::{LayoutError, Reader};

/// Bytes before the payload in `holdfast_model::record`.
const FRAME_HEADER: u32 = 20;
const ENTRY_BYTES: usize = 32 + 4 + 4 + 4;

/// Collects chunks for one object.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    id: PackId,
    payload: Vec<u8>,
    entries: Vec<ChunkRef>,
}

impl PackBuilder {
    pub(crate) const fn new(id: PackId) -> Self {
        Self { id, payload: Vec::new(), entries: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    /// Takes memory for a whole pack at once: growing by doubling would take up to twice as much.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.payload.reserve_exact(bytes);
    }

    /// Appends a chunk. The caller ends a pack long before 4 GiB.
    pub(crate) fn add(&mut self, name: ChunkName, plain: u32, stored: &[u8]) -> ChunkRef {
        let number = |n: usize| u32::try_from(n).expect("packs and chunks are far below 4 GiB");
        let offset = FRAME_HEADER + number(self.payload.len());
        let chunk = ChunkRef { name, pack: self.id, offset, stored: number(stored.len()), plain };
        self.payload.extend_from_slice(stored);
        self.entries.push(chunk);
        chunk
    }

    /// The object, with the key to write it under; `None` when no chunk was added.
    pub(crate) fn finish(mut self) -> Option<(String, Vec<u8>)> {
        let count = u32::try_from(self.entries.len()).expect("a pack holds far fewer chunks");
        if count == 0 {
            return None;
        }
        for chunk in &self.entries {
            self.payload.extend_from_slice(chunk.name.as_bytes());
            for number in [chunk.offset, chunk.stored, chunk.plain] {
                self.payload.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.payload.extend_from_slice(&count.to_le_bytes());
        Some((self.id.key(), record::frame(kind::PACK, &self.payload)))
    }
}

/// Why a pack was refused.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its frame is broken.
    #[error("read pack")]
    Frame(#[from] RecordError),
    /// Its entries are.
    #[error("read entries of pack")]
    Layout(#[from] LayoutError),
}

/// Reads the entries of a whole pack; every one lies within the pack.
///
/// # Errors
/// [`PackError`].
pub fn entries(id: PackId, object: &[u8]) -> Result<Vec<ChunkRef>, PackError> {
    let payload = record::unframe(kind::PACK, object)?;
    let (body, count) = payload.split_last_chunk::<4>().ok_or(LayoutError)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_no_such_machine| LayoutError)?;
    let bytes = count.checked_mul(ENTRY_BYTES).ok_or(LayoutError)?;
    let (chunks, index) = body.split_at_checked(body.len().wrapping_sub(bytes)).ok_or(LayoutError)?;
    let end = u64::from(FRAME_HEADER) + chunks.len() as u64;
    let mut reader = Reader::new(index);
    let mut found = Vec::with_capacity(count);
    while !reader.is_empty() {
        let name = ChunkName::from_bytes(reader.array()?);
        let (offset, stored, plain) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let chunk = ChunkRef { name, pack: id, offset, stored, plain };
        if offset < FRAME_HEADER || chunk.end() > end {
            return Err(PackError::Layout(LayoutError));
        }
        found.push(chunk);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{NameKey, deflate, open};
    use crate::key::BackupId;
    use holdfast_model::{Lsn, Term};
    use proptest::prelude::*;

    fn id() -> PackId {
        PackId::from_parts(BackupId::from_parts(Term::FIRST, Lsn::ZERO, 1), 2)
    }

    #[test]
    fn an_empty_pack_is_not_written() {
        assert!(PackBuilder::new(id()).finish().is_none());
    }

    proptest! {
        #[test]
        fn chunks_lie_where_their_references_say(contents in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
            let key = NameKey::random();
            let mut builder = PackBuilder::new(id());
            let mut chunks = Vec::new();
            for plain in &contents {
                chunks.push(builder.add(key.name(plain), u32::try_from(plain.len()).unwrap(), &deflate(plain)));
            }
            let (_, object) = builder.finish().unwrap();
            prop_assert_eq!(&entries(id(), &object).unwrap(), &chunks);
            for (chunk, plain) in chunks.iter().zip(&contents) {
                let stored = &object[chunk.offset as usize..usize::try_from(chunk.end()).unwrap()];
                prop_assert_eq!(&open(&key, chunk, stored).unwrap(), plain);
            }
        }

        #[test]
        fn reading_the_entries_of_anything_never_panics(payload: Vec<u8>) {
            let object = record::frame(kind::PACK, &payload);
            if let Ok(found) = entries(id(), &object) {
                prop_assert!(found.iter().all(|chunk| chunk.end() <= object.len() as u64));
            }
        }
    }
}
