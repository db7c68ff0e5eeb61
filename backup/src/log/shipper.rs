//! Ships log of one term, in order, without ever overwriting.
//!
//! Objects are named by their start only. Whoever ships the same term at the same time (an older worker that was
//! thought dead) therefore meets the same names: the second gets 412, reads where the first one ended, and goes on
//! from there. One line comes out, whoever wins.
//!
//! Invariants, tests in `tests/log.rs`:
//! * `a_shipper_goes_on_where_the_last_one_ended`.
//! * `two_shippers_of_one_term_make_one_line`.
//! * `log_that_differs_from_what_was_shipped_is_refused`.
//! * `compaction_cut_short_at_any_request_loses_nothing`.
//! * `an_heir_completes_the_term_of_a_primary_that_is_gone`, in the same line.
//! * `a_primary_whose_term_has_an_heir_is_refused`.
//!
//! Not here: which log may be shipped. Ship only what is acked; of an older term, only what the next one began with.

use holdfast_model::{Lsn, Member, Term};
use tracing::debug;

use super::LogError;
use super::index::{Index, Span};
use super::object::{self, Header, LogObject};
use crate::chunk::ChunkName;
use crate::key;
use crate::repository::Repository;
use crate::store::Created;

/// Whose the term is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// This member's: whatever another one ships under it is somebody else's history.
    Primary,
    /// Another member's, which is over. What is common to both is the same log, whoever ships it first.
    Heir,
}

/// Ships the log of one term.
#[derive(Debug)]
pub struct Shipper {
    repository: Repository,
    term: Term,
    member: Member,
    standing: Standing,
    next: Option<Lsn>,
    link: Option<ChunkName>,
}

impl Shipper {
    /// Finds where the log of `term` ends in the repository, to go on as its primary.
    ///
    /// # Errors
    /// [`LogError`]; also if the newest segment has a gap: then new log would be unreadable. [`LogError::OtherMember`] when
    /// another member went on with the term: it is over.
    pub async fn resume(repository: &Repository, term: Term, member: &Member) -> Result<Self, LogError> {
        Self::find(repository, term, member, Standing::Primary).await
    }

    /// Finds where the log of an older term ends, to complete it with what the next term began with.
    ///
    /// # Errors
    /// As [`Self::resume`], but whoever shipped the term.
    pub async fn inherit(repository: &Repository, term: Term, member: &Member) -> Result<Self, LogError> {
        Self::find(repository, term, member, Standing::Heir).await
    }

    async fn find(
        repository: &Repository,
        term: Term,
        member: &Member,
        standing: Standing,
    ) -> Result<Self, LogError> {
        let index = Index::load(repository, term).await?;
        let newest = match index.last() {
            Some(last) => index.read(repository, index.floor(last)).await?,
            None => None,
        };
        if let Some(span) = newest.as_ref().filter(|span| span.member != *member) {
            match standing {
                Standing::Primary => {
                    let (at, member) = (span.start, span.member.clone());
                    return Err(LogError::OtherMember { term, at, member });
                }
                Standing::Heir => {}
            }
        }
        Ok(Self {
            repository: repository.clone(),
            term,
            member: member.clone(),
            standing,
            next: newest.as_ref().map(Span::end),
            link: newest.map(|span| span.link),
        })
    }

    /// Log is shipped up to here; `None` if none of this term is. Then shipping may begin at the start of any segment,
    /// and a good one is that which holds the start of the term.
    #[must_use]
    pub const fn next(&self) -> Option<Lsn> {
        self.next
    }

    /// Ships `bytes`, which begin at `start`, and returns up to where log is shipped then. That may be before the end
    /// of `bytes` (call again) or after it (somebody else shipped).
    ///
    /// Cancel-safety: dropped, it may have shipped; the next call finds out.
    ///
    /// # Errors
    /// [`LogError::NotNext`] unless `start` is [`Self::next`] or before; [`LogError::Differs`] if other log was shipped
    /// under this term: two histories, a person must look.
    pub async fn ship(&mut self, start: Lsn, bytes: &[u8]) -> Result<Lsn, LogError> {
        let size = self.repository.log_segment_size();
        let next = match self.next {
            Some(next) => next,
            None if start.offset().is_multiple_of(size) => start,
            None => return Err(LogError::Misaligned { start }),
        };
        if start > next {
            return Err(LogError::NotNext { next, start });
        }
        let mut at = next;
        while at < start.plus(bytes.len() as u64) {
            let boundary = (at.offset() / size + 1) * size;
            let end = start.plus(bytes.len() as u64).min(Lsn::from_offset(boundary));
            let piece = part(bytes, start, at, end);
            let shipped = self.ship_piece(at, end, piece).await?;
            at = shipped.header.end;
            self.next = Some(at);
            self.link = Some(shipped.link);
        }
        Ok(at)
    }

    async fn ship_piece(&self, start: Lsn, end: Lsn, content: &[u8]) -> Result<LogObject, LogError> {
        let (term, member) = (self.term, self.member.clone());
        let header = Header { term, start, end, member, previous: self.link, last: None };
        let bytes = object::encode(&header, content);
        let key = key::piece_key(term, start);
        let there = match self.repository.store().create(&key, bytes.clone()).await? {
            Created::Ours => {
                let link = self.repository.name_key().name(&bytes);
                return Ok(LogObject { header, content: Vec::new(), link });
            }
            Created::Theirs(there) => there,
        };
        let size = self.repository.log_segment_size();
        let there = object::decode(self.repository.name_key(), &there, (term, start), size)
            .map_err(|source| LogError::Object { key, source })?;
        if self.standing == Standing::Primary && there.header.member != self.member {
            return Err(LogError::OtherMember { term, at: start, member: there.header.member });
        }
        let common = there.content.len().min(content.len());
        if there.content[..common] != content[..common] || there.header.previous != self.link {
            return Err(LogError::Differs { term, at: start });
        }
        debug!(%term, %start, end = %there.header.end, "log was shipped before");
        Ok(there)
    }

    /// Replaces the pieces of every complete segment by one object: written, read back, compared, and only then the
    /// pieces are deleted. Returns how many segments were compacted. May be cut short anywhere and repeated.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn compact(&self) -> Result<u64, LogError> {
        let index = Index::load(&self.repository, self.term).await?;
        let mut compacted = 0;
        let mut after = None;
        while let Some(piece) = index.pieces.range(after.unwrap_or(Lsn::ZERO)..).next() {
            let segment = index.floor(*piece);
            if self.compact_segment(&index, segment).await? {
                compacted += 1;
            }
            after = Some(index.next_segment(segment));
        }
        Ok(compacted)
    }

    async fn compact_segment(&self, index: &Index, segment: Lsn) -> Result<bool, LogError> {
        // Reads the segment object instead if an earlier try got that far: then only the deleting is left.
        let Some(span) = index.read(&self.repository, segment).await? else { return Ok(false) };
        if span.start != segment || span.end() != index.next_segment(segment) {
            return Ok(false);
        }
        let key = key::segment_key(self.term, segment);
        if !index.segments.contains(&segment) {
            let header = Header {
                term: self.term,
                start: span.start,
                end: span.end(),
                member: self.member.clone(),
                previous: span.previous,
                last: Some(span.link),
            };
            // Somebody else may have been first; what is there is compared below in any case.
            self.repository.store().create(&key, object::encode(&header, &span.content)).await?;
        }
        let there = object::read(&self.repository, &key, (self.term, segment)).await?;
        let same = there.content == span.content
            && there.link == span.link
            && there.header.previous == span.previous;
        if !same {
            return Err(LogError::Differs { term: self.term, at: segment });
        }
        for piece in index.pieces_of(segment) {
            self.repository.store().delete(&key::piece_key(self.term, piece)).await?;
        }
        Ok(true)
    }
}

fn part(bytes: &[u8], start: Lsn, from: Lsn, to: Lsn) -> &[u8] {
    let at = |position: Lsn| usize::try_from(position.bytes_since(start)).expect("within a slice in memory");
    &bytes[at(from)..at(to)]
}
