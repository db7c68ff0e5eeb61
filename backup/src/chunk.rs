//! Chunks: pieces of content, named by what is in them and stored compressed.
//!
//! The name is the BLAKE3 hash of the plain content under the repository's key, so that names tell nothing about
//! content to who does not hold `repo.json`. Whatever is inflated is checked against its name before it is used.
//!
//! Invariants, each a test below:
//! * `content_survives_a_round_trip`.
//! * `inflating_never_yields_more_than_declared`.
//! * `a_flipped_bit_is_seen`.
//!
//! Not here: encryption (the frame of a pack names none so far) and patches (a page's chunk kind 1 is reserved).

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use holdfast_model::ParseIdError;
use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use crate::key::PackId;

/// zstd level 1: at about 400 MiB/s a core it is not what a backup waits for, and higher levels win a few percent.
const LEVEL: i32 = 1;

/// The keyed hash of a chunk's plain content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChunkName([u8; 32]);

impl ChunkName {
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkName({self})")
    }
}
impl FromStr for ChunkName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_32_bytes(text).map(Self).ok_or_else(|| ParseIdError {
            what: "chunk name",
            given: text.to_owned(),
            rule: "use 64 lower-case hex digits",
        })
    }
}
impl TryFrom<String> for ChunkName {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<ChunkName> for String {
    fn from(name: ChunkName) -> Self {
        name.to_string()
    }
}

fn parse_32_bytes(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Names chunks; one per repository, for ever, or else nothing would be recognised again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct NameKey([u8; 32]);

impl NameKey {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 32];
        crate::key::fill_random(&mut bytes);
        Self(bytes)
    }

    pub(crate) fn name(&self, plain: &[u8]) -> ChunkName {
        ChunkName(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }
}

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameKey(..)")
    }
}
impl TryFrom<String> for NameKey {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let refused = || ParseIdError {
            what: "name key",
            given: "..".to_owned(),
            rule: "use 64 lower-case hex digits",
        };
        parse_32_bytes(&text).map(Self).ok_or_else(refused)
    }
}
impl From<NameKey> for String {
    fn from(key: NameKey) -> Self {
        ChunkName(key.0).to_string()
    }
}

/// Where a chunk lies: enough to fetch, inflate and verify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// What it must hash to.
    pub name: ChunkName,
    /// The object that holds it.
    pub pack: PackId,
    /// Where in that object it begins, in bytes.
    pub offset: u32,
    /// How many bytes it has there.
    pub stored: u32,
    /// How many bytes it has inflated.
    pub plain: u32,
}

impl ChunkRef {
    /// Whether the sizes can be those of a chunk of at most `plain_max` bytes: nothing else is fetched or inflated.
    pub(crate) const fn is_plausible(&self, plain_max: u32) -> bool {
        // zstd's own bound is plain + plain / 256 + a little for short content.
        let stored_max = self.plain as u64 + self.plain as u64 / 128 + 1024;
        self.plain > 0 && self.plain <= plain_max && self.stored > 0 && self.stored as u64 <= stored_max
    }

    /// The first byte after it in its pack.
    pub(crate) const fn end(&self) -> u64 {
        self.offset as u64 + self.stored as u64
    }
}

/// Why stored bytes are not the chunk they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not a zstd frame, or one that inflates to another size.
    #[error("it does not inflate to its declared size")]
    Inflate,
    /// Inflated to something else.
    #[error("its content does not match its name")]
    Name,
}

thread_local! {
    /// zstd contexts are about 1 MiB and costly to make; blocking threads live long.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(LEVEL).expect("level 1 exists and memory for one context is there"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("memory for one context is there"));
}

/// Compresses content.
pub(crate) fn deflate(plain: &[u8]) -> Vec<u8> {
    COMPRESSOR
        .with_borrow_mut(|zstd| zstd.compress(plain))
        .expect("compressing into a buffer of the largest possible size cannot fail")
}

/// Fills `content` exactly; a frame that holds more or less is refused.
fn inflate_into(stored: &[u8], content: &mut [u8]) -> Result<(), ChunkError> {
    let length = DECOMPRESSOR
        .with_borrow_mut(|zstd| zstd.decompress_to_buffer(stored, content))
        .map_err(|_only_says_corrupt_or_too_small| ChunkError::Inflate)?;
    if length == content.len() { Ok(()) } else { Err(ChunkError::Inflate) }
}

/// Inflates to exactly `plain` bytes, which the caller has bounded.
pub(crate) fn inflate(stored: &[u8], plain: usize) -> Result<Vec<u8>, ChunkError> {
    let mut content = vec![0; plain];
    inflate_into(stored, &mut content)?;
    Ok(content)
}

/// Inflates and verifies a chunk into memory of exactly its size.
pub(crate) fn open_into(
    key: &NameKey,
    chunk: &ChunkRef,
    stored: &[u8],
    content: &mut [u8],
) -> Result<(), ChunkError> {
    inflate_into(stored, content)?;
    if key.name(content) == chunk.name { Ok(()) } else { Err(ChunkError::Name) }
}

/// Inflates and verifies a chunk.
pub(crate) fn open(key: &NameKey, chunk: &ChunkRef, stored: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut content = vec![0; chunk.plain as usize];
    open_into(key, chunk, stored, &mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::BackupId;
    use holdfast_model::{Lsn, Term};
    use proptest::prelude::*;

    fn sealed(key: &NameKey, plain: &[u8]) -> (ChunkRef, Vec<u8>) {
        let stored = deflate(plain);
        let pack = PackId::from_parts(BackupId::from_parts(Term::FIRST, Lsn::ZERO, 1), 2);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let chunk =
            ChunkRef { name: key.name(plain), pack, offset: 0, stored: size(&stored), plain: size(plain) };
        (chunk, stored)
    }

    #[test]
    fn inflating_never_yields_more_than_declared() {
        let bomb = deflate(&vec![0; 1 << 24]);
        assert!(bomb.len() < 1 << 12);
        assert_eq!(inflate(&bomb, 4096), Err(ChunkError::Inflate));
        assert_eq!(inflate(&bomb, 1 << 25), Err(ChunkError::Inflate));
    }

    #[test]
    fn another_key_gives_another_name() {
        assert_ne!(NameKey::random().name(b"x"), NameKey::random().name(b"x"));
    }

    proptest! {
        #[test]
        fn content_survives_a_round_trip(plain: Vec<u8>) {
            let key = NameKey::random();
            let (chunk, stored) = sealed(&key, &plain);
            prop_assert_eq!(open(&key, &chunk, &stored).unwrap(), plain);
        }

        #[test]
        fn a_flipped_bit_is_seen(plain in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0u8..8) {
            let key = NameKey::random();
            let (chunk, mut stored) = sealed(&key, &plain);
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            // zstd ignores a few bits of its frame header: what counts is that no other content comes out.
            prop_assert!(open(&key, &chunk, &stored).map_or(true, |content| content == plain));
        }

        #[test]
        fn inflating_anything_never_panics(stored: Vec<u8>, plain in 0usize..100_000) {
            prop_assert!(inflate(&stored, plain).map_or(true, |content| content.len() == plain));
        }
    }
}
