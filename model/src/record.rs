//! The frame of every file of ours: magic, version, length, payload, crc32c.
//!
//! ```text
//! 0        4         8            12          20         20+n
//! | "HLDF" | kind[4] | version u32 | length u64 | payload | crc32c u32 over all before it |
//! ```
//! Numbers are little-endian. A reader refuses a newer version by name and never guesses at a broken frame.

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 4] = *b"HLDF";
const HEADER: usize = 20;

/// What a record holds; written into its frame, so that one kind is never read as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKind {
    /// Four bytes in the frame.
    pub tag: [u8; 4],
    /// The newest version that this build reads and the one it writes.
    pub version: u32,
    /// What people call it, for errors.
    pub name: &'static str,
}

/// Why a record was refused.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its frame says, or than any frame.
    #[error("{name}: cut short at {have} bytes")]
    Short {
        /// The record's kind.
        name: &'static str,
        /// Bytes found.
        have: usize,
    },
    /// Not one of ours, or another kind.
    #[error("{name}: not such a record")]
    Magic {
        /// The record's kind.
        name: &'static str,
    },
    /// Written by a newer release.
    #[error("{name}: has format version {found}, this release reads up to {known}: upgrade holdfast")]
    Newer {
        /// The record's kind.
        name: &'static str,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// The checksum does not match: damaged.
    #[error("{name}: checksum does not match, the record is damaged")]
    Checksum {
        /// The record's kind.
        name: &'static str,
    },
    /// The payload is not what the kind promises.
    #[error("{name}: unreadable payload")]
    Payload {
        /// The record's kind.
        name: &'static str,
        /// Where the payload breaks.
        #[source]
        source: serde_json::Error,
    },
}

/// Frames raw bytes.
#[must_use]
pub fn frame(kind: RecordKind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len() + 4);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&kind.tag);
    out.extend_from_slice(&kind.version.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Takes a frame apart and checks it; trailing bytes after the frame are ignored.
///
/// # Errors
/// [`RecordError`], but never `Payload`.
pub fn unframe(kind: RecordKind, bytes: &[u8]) -> Result<&[u8], RecordError> {
    let name = kind.name;
    let short = || RecordError::Short { name, have: bytes.len() };
    let header = bytes.get(..HEADER).ok_or_else(short)?;
    if header[..4] != MAGIC || header[4..8] != kind.tag {
        return Err(RecordError::Magic { name });
    }
    let u32_at =
        |at: usize| -> Option<u32> { bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes) };
    let found = u32_at(8).ok_or_else(short)?;
    if found > kind.version {
        return Err(RecordError::Newer { name, found, known: kind.version });
    }
    let length = header[12..20].try_into().map(u64::from_le_bytes).map_err(|_| short())?;
    let length = usize::try_from(length).map_err(|_| short())?;
    let end = HEADER.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(short)?;
    if u32_at(end) != Some(crc32c::crc32c(&bytes[..end])) {
        return Err(if bytes.len() < end + 4 { short() } else { RecordError::Checksum { name } });
    }
    Ok(&bytes[HEADER..end])
}

/// Frames a value as JSON.
#[must_use]
pub fn encode<T: Serialize>(kind: RecordKind, value: &T) -> Vec<u8> {
    let payload = serde_json::to_vec(value).expect("our records hold only string keys and finite numbers");
    frame(kind, &payload)
}

/// Reads a framed JSON value.
///
/// # Errors
/// [`RecordError`].
pub fn decode<T: DeserializeOwned>(kind: RecordKind, bytes: &[u8]) -> Result<T, RecordError> {
    let payload = unframe(kind, bytes)?;
    serde_json::from_slice(payload).map_err(|source| RecordError::Payload { name: kind.name, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: RecordKind = RecordKind { tag: *b"test", version: 3, name: "test record" };

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = frame(RecordKind { version: 4, ..KIND }, b"{}");
        let err = unframe(KIND, &newer).unwrap_err();
        assert_eq!(
            err.to_string(),
            "test record: has format version 4, this release reads up to 3: upgrade holdfast"
        );
    }

    #[test]
    fn another_kind_is_refused() {
        let other = frame(RecordKind { tag: *b"othr", ..KIND }, b"{}");
        assert!(matches!(unframe(KIND, &other), Err(RecordError::Magic { .. })));
    }

    proptest! {
        #[test]
        fn a_record_survives_a_round_trip(payload: Vec<u8>) {
            let framed = frame(KIND, &payload);
            prop_assert_eq!(unframe(KIND, &framed).unwrap(), &payload[..]);
        }

        #[test]
        fn no_flipped_bit_and_no_cut_goes_unseen(payload in prop::collection::vec(any::<u8>(), 0..64), at: prop::sample::Index, bit in 0u8..8) {
            let framed = frame(KIND, &payload);
            let at = at.index(framed.len());
            let mut flipped = framed.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(unframe(KIND, &flipped).is_err());
            prop_assert!(unframe(KIND, &framed[..at]).is_err());
        }
    }
}
