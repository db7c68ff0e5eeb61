//! What objects of log a term has, and joining those of one segment.
//!
//! Invariants, tests in `tests/log.rs`:
//! * `a_missing_piece_is_a_gap_and_never_the_end`.
//! * `a_segment_that_was_compacted_wins_over_its_pieces`.

use std::collections::BTreeSet;

use holdfast_model::{Lsn, Member, Term};

use super::LogError;
use super::object::{self, LogObject};
use crate::chunk::ChunkName;
use crate::key;
use crate::repository::Repository;

/// Where the objects of one term begin. A snapshot: compaction may replace pieces while it is used.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    pub(crate) term: Term,
    segment_size: u64,
    pub(crate) segments: BTreeSet<Lsn>,
    pub(crate) pieces: BTreeSet<Lsn>,
}

/// Joined log of (a part of) one segment.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) start: Lsn,
    pub(crate) content: Vec<u8>,
    pub(crate) previous: Option<ChunkName>,
    pub(crate) link: ChunkName,
    /// Who shipped the last of it.
    pub(crate) member: Member,
}

impl Span {
    fn new(object: LogObject) -> Self {
        let LogObject { header, content, link } = object;
        Self { start: header.start, content, previous: header.previous, link, member: header.member }
    }

    pub(crate) const fn end(&self) -> Lsn {
        self.start.plus(self.content.len() as u64)
    }
}

impl Index {
    pub(crate) async fn load(repository: &Repository, term: Term) -> Result<Self, LogError> {
        let folder = key::log_folder(term);
        let segment_size = repository.log_segment_size();
        let (segments, pieces) = (BTreeSet::new(), BTreeSet::new());
        let mut index = Self { term, segment_size, segments, pieces };
        for name in repository.store().list(&folder).await? {
            let (position, set) = match name.strip_prefix("segment/") {
                Some(position) => (position, &mut index.segments),
                None => (name.as_str(), &mut index.pieces),
            };
            let position = key::parse_position(position);
            set.insert(position.ok_or_else(|| LogError::Stray { key: format!("{folder}/{name}") })?);
        }
        Ok(index)
    }

    pub(crate) const fn floor(&self, position: Lsn) -> Lsn {
        Lsn::from_offset(position.offset() / self.segment_size * self.segment_size)
    }

    pub(crate) const fn next_segment(&self, segment: Lsn) -> Lsn {
        segment.plus(self.segment_size)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.pieces.is_empty()
    }

    pub(crate) fn first(&self) -> Option<Lsn> {
        self.segments.first().into_iter().chain(self.pieces.first()).min().copied()
    }

    pub(crate) fn last(&self) -> Option<Lsn> {
        self.segments.last().into_iter().chain(self.pieces.last()).max().copied()
    }

    /// Whether any object begins at or after a position.
    fn goes_on_at_or_after(&self, position: Lsn) -> Option<Lsn> {
        let piece = self.pieces.range(position..).next();
        self.segments.range(position..).next().into_iter().chain(piece).min().copied()
    }

    /// The pieces that begin within a segment.
    pub(crate) fn pieces_of(&self, segment: Lsn) -> impl Iterator<Item = Lsn> + '_ {
        self.pieces.range(segment..self.next_segment(segment)).copied()
    }

    /// Reads and joins what there is of a segment; `None` if nothing of it was shipped.
    pub(crate) async fn read(&self, repository: &Repository, segment: Lsn) -> Result<Option<Span>, LogError> {
        if self.segments.contains(&segment) {
            let key = key::segment_key(self.term, segment);
            return Ok(Some(Span::new(object::read(repository, &key, (self.term, segment)).await?)));
        }
        let mut joined: Option<Span> = None;
        for start in self.pieces_of(segment) {
            let piece =
                object::read(repository, &key::piece_key(self.term, start), (self.term, start)).await?;
            let Some(span) = &mut joined else {
                joined = Some(Span::new(piece));
                continue;
            };
            if span.end() != start {
                return Err(LogError::Gap { term: self.term, from: span.end(), to: start });
            }
            if piece.header.previous != Some(span.link) {
                return Err(LogError::Line { term: self.term, at: start });
            }
            span.content.extend_from_slice(&piece.content);
            span.link = piece.link;
            span.member = piece.header.member;
        }
        Ok(joined)
    }

    /// The end of the line that goes through `from`: everything between the two is there.
    pub(crate) async fn end_of_line(&self, repository: &Repository, from: Lsn) -> Result<Lsn, LogError> {
        let mut at = self.floor(from);
        let mut end = from;
        loop {
            if self.segments.contains(&at) {
                at = self.next_segment(at);
                end = at;
                continue;
            }
            let Some(span) = self.read(repository, at).await? else { break };
            if span.start > from && span.start > at {
                return Err(LogError::Gap { term: self.term, from: end, to: span.start });
            }
            end = span.end();
            if end != self.next_segment(at) {
                break;
            }
            at = end;
        }
        match self.goes_on_at_or_after(end) {
            None => Ok(end),
            Some(to) => Err(LogError::Gap { term: self.term, from: end, to }),
        }
    }
}
