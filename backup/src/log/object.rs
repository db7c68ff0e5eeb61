//! One object of shipped log: its layout, and reading one with every check.
//!
//! ```text
//! frame( header length u32 | header JSON | zstd( log bytes [start, end) ) )
//! ```
//! Objects of a term form a line: each holds the hash of the one before. A compacted segment also holds the hash of
//! the last piece that it replaced, so that the line goes on behind it.
//!
//! Invariants, each a test below:
//! * `an_object_survives_a_round_trip`.
//! * `reading_anything_as_a_log_object_never_panics`.
//! * `an_object_must_be_what_its_key_says`.

use bytes::Bytes;
use holdfast_model::record::{self, RecordError};
use holdfast_model::{Lsn, Member, Term};
use serde::{Deserialize, Serialize};

use super::LogError;
use crate::chunk::{self, ChunkError, ChunkName, NameKey};
use crate::kind;
use crate::repository::Repository;
use crate::wire::{LayoutError, Reader};

/// What an object of log says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) term: Term,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    /// Who shipped it.
    pub(crate) member: Member,
    /// Hash of the object before it; none for the first of a term.
    pub(crate) previous: Option<ChunkName>,
    /// In a compacted segment: hash of the last piece that it replaced.
    pub(crate) last: Option<ChunkName>,
}

/// Why an object of log was refused.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Its frame is broken or newer than this release.
    #[error("read log object")]
    Frame(#[from] RecordError),
    /// It ends too early.
    #[error("read layout of log object")]
    Layout(#[from] LayoutError),
    /// Its header is not JSON of ours.
    #[error("read header of log object")]
    Header(#[from] serde_json::Error),
    /// It does not hold what its key or its header says.
    #[error("log object says it is term {term} from {start} to {end}, which it cannot be")]
    Misplaced {
        /// Term in the header.
        term: Term,
        /// Start in the header.
        start: Lsn,
        /// End in the header.
        end: Lsn,
    },
    /// Its content does not inflate to its length.
    #[error("inflate log object")]
    Content(#[from] ChunkError),
}

/// An object that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogObject {
    pub(crate) header: Header,
    pub(crate) content: Vec<u8>,
    /// What the next object must hold as `previous`.
    pub(crate) link: ChunkName,
}

pub(crate) fn encode(header: &Header, content: &[u8]) -> Bytes {
    let json = serde_json::to_vec(header).expect("a header holds only strings and numbers");
    let mut payload = Vec::new();
    payload.extend_from_slice(&u32::try_from(json.len()).expect("a header is short").to_le_bytes());
    payload.extend_from_slice(&json);
    payload.extend_from_slice(&chunk::deflate(content));
    Bytes::from(record::frame(kind::LOG, &payload))
}

/// Checks all that one object alone can tell: where it is, how long it is, and that it lies within one segment.
pub(crate) fn decode(
    key: &NameKey,
    bytes: &[u8],
    (term, start): (Term, Lsn),
    segment_size: u64,
) -> Result<LogObject, ObjectError> {
    let mut reader = Reader::new(record::unframe(kind::LOG, bytes)?);
    let length = reader.count(1)?;
    let header: Header = serde_json::from_slice(reader.bytes(length)?)?;
    let (first, last) = (header.start.offset(), header.end.offset());
    let within = first < last && first / segment_size == (last - 1) / segment_size;
    if header.term != term || header.start != start || !within {
        return Err(ObjectError::Misplaced { term: header.term, start: header.start, end: header.end });
    }
    let length = usize::try_from(last - first).expect("not longer than a segment");
    let content = chunk::inflate(reader.rest(), length)?;
    let link = header.last.unwrap_or_else(|| key.name(bytes));
    Ok(LogObject { header, content, link })
}

/// Fetches an object and checks it.
pub(crate) async fn read(
    repository: &Repository,
    key: &str,
    place: (Term, Lsn),
) -> Result<LogObject, LogError> {
    let segment_size = repository.log_segment_size();
    // Incompressible log grows by less than 1 % and a header.
    let limit = segment_size + segment_size / 64 + (64 << 10);
    let bytes = repository.store().get(key, limit).await?;
    decode(repository.name_key(), &bytes, place, segment_size)
        .map_err(|source| LogError::Object { key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    const SEGMENT: u64 = 1 << 20;

    fn header(start: u64, length: usize) -> Header {
        Header {
            term: Term::FIRST,
            start: Lsn::from_offset(start),
            end: Lsn::from_offset(start + length as u64),
            member: testing::member(),
            previous: None,
            last: None,
        }
    }

    #[test]
    fn an_object_must_be_what_its_key_says() {
        let key = NameKey::random();
        let bytes = encode(&header(100, 3), b"abc");
        let place = |term, start| (Term::new(term).unwrap(), Lsn::from_offset(start));
        assert!(decode(&key, &bytes, place(1, 100), SEGMENT).is_ok());
        for (term, start) in [(2, 100), (1, 99)] {
            let refused = decode(&key, &bytes, place(term, start), SEGMENT);
            assert!(matches!(refused, Err(ObjectError::Misplaced { .. })));
        }
        let across = encode(&header(SEGMENT - 1, 3), b"abc");
        assert!(decode(&key, &across, place(1, SEGMENT - 1), SEGMENT).is_err(), "lies in two segments");
        let empty = encode(&header(100, 0), b"");
        assert!(decode(&key, &empty, place(1, 100), SEGMENT).is_err(), "holds nothing");
        let short = encode(&header(100, 3), b"ab");
        assert!(matches!(decode(&key, &short, place(1, 100), SEGMENT), Err(ObjectError::Content(_))));
    }

    proptest! {
        #[test]
        fn an_object_survives_a_round_trip(start in 0u64..1000, content in prop::collection::vec(any::<u8>(), 1..300)) {
            let key = NameKey::random();
            let header = header(start, content.len());
            let read = decode(&key, &encode(&header, &content), (header.term, header.start), SEGMENT).unwrap();
            prop_assert_eq!(read.header, header);
            prop_assert_eq!(read.content, content);
        }

        #[test]
        fn reading_anything_as_a_log_object_never_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut: prop::sample::Index,
        ) {
            let key = NameKey::random();
            let framed = encode(&header(5, 200), &[7; 200]);
            let mut payload = record::unframe(kind::LOG, &framed).unwrap().to_vec();
            for (at, byte) in changes {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            payload.truncate(cut.index(payload.len() + 1));
            let bytes = record::frame(kind::LOG, &payload);
            if let Ok(read) = decode(&key, &bytes, (Term::FIRST, Lsn::from_offset(5)), SEGMENT) {
                prop_assert_eq!(read.content.len() as u64, read.header.end.offset() - 5);
            }
        }
    }
}
