//! Reads shipped log back, for one history.
//!
//! The worst that can happen to a restore is to end early and look fine: Postgres takes exit code 1 of a
//! `restore_command` as the end of the log and opens. So "past the end" is said only when it is proven, by a listing
//! that was complete, a line without a gap up to the end, and a chain of rules; everything else is an error.
//!
//! Invariants, tests in `tests/log.rs`:
//! * `past_the_end_is_said_only_when_it_is_proven`.
//! * `log_beyond_the_start_of_the_next_reign_is_never_returned`.
//! * `the_last_segment_is_padded_with_zeros`.
//! * `an_unreachable_store_never_looks_like_the_end`.

use std::collections::BTreeMap;

use holdfast_model::{Lsn, Term};

use super::LogError;
use super::index::{Index, Span};
use crate::chunk::ChunkName;
use crate::repository::Repository;
use crate::rules::{Chain, Reign};

/// One segment as an engine wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A whole segment, with zeros after the end of the log.
    Bytes(Vec<u8>),
    /// The log of this term provably does not reach here, or never was here.
    PastEnd,
}

/// Listings of one reign's log of which each may find another part compacted since. One lasts for many compactions.
const LISTINGS_MAX: usize = 4;

/// What there is of a reign's log from `start` on, and where that ends. Its primary may ship and compact meanwhile.
async fn line(repository: &Repository, term: Term, start: Lsn) -> Result<(Index, Lsn), LogError> {
    let mut listings = 1;
    loop {
        let index = Index::load(repository, term).await?;
        if index.is_empty() {
            return Ok((index, start));
        }
        match index.end_of_line(repository, start).await {
            Ok(end) => return Ok((index, end)),
            Err(LogError::Store(error)) if error.is_missing() && listings < LISTINGS_MAX => listings += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Log of the reigns of one chain, from one position on.
#[derive(Debug)]
pub struct LogReader {
    repository: Repository,
    reigns: Vec<(Reign, Index)>,
    end: Lsn,
    /// The link after each segment that was read, to check the line across segments.
    links: BTreeMap<(Term, Lsn), ChunkName>,
}

impl LogReader {
    /// Prepares to read from `from` in `term` up to the end of the newest reign of `chain`, and proves that nothing is
    /// missing in between. Cost: one listing per reign, and the pieces of what is not compacted.
    ///
    /// # Errors
    /// [`LogError::OtherHistory`], [`LogError::Gap`], [`LogError::Incomplete`], [`LogError::Store`] if unreachable.
    pub async fn open(
        repository: &Repository,
        chain: &Chain,
        term: Term,
        from: Lsn,
    ) -> Result<Self, LogError> {
        if chain.reign(term).is_none() {
            return Err(LogError::OtherHistory { term });
        }
        let mut reigns = Vec::new();
        let mut end = from;
        for reign in chain.reigns().iter().filter(|reign| reign.term >= term) {
            let start = if reign.term == term { from } else { reign.start };
            let (index, shipped) = line(repository, reign.term, start).await?;
            end = match reign.end {
                Some(cut) if shipped < cut => {
                    return Err(LogError::Incomplete { term: reign.term, have: shipped, need: cut });
                }
                Some(cut) => cut,
                None => shipped,
            };
            reigns.push((*reign, index));
        }
        Ok(Self { repository: repository.clone(), reigns, end, links: BTreeMap::new() })
    }

    /// The end of the log: of the newest reign, shipped without a gap.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// Segment number `number` of `term`. May be repeated and asked for in any order.
    ///
    /// # Errors
    /// [`LogError`], if it is not there and not proven to be past the end.
    pub async fn segment(&mut self, term: Term, number: u64) -> Result<Segment, LogError> {
        let size = self.repository.log_segment_size();
        let start = number.checked_mul(size).map(Lsn::from_offset).ok_or(LogError::OutOfRange { number })?;
        let Some(at) = self.reigns.iter().position(|(reign, _)| reign.term == term) else {
            return Err(LogError::OtherHistory { term });
        };
        let reign = self.reigns[at].0;
        let end = reign.end.unwrap_or(self.end);
        // The log of a term begins in the segment that holds its start: it copies what came before it there.
        let before_term = start.plus(size) <= reign.start;
        // A later reign that was reserved and shipped nothing has no log of its own: its listing says so. Log of the
        // reign in which reading begins is needed in any case.
        let never_shipped = at > 0 && self.reigns[at].1.is_empty();
        if start >= end || before_term || never_shipped {
            return Ok(Segment::PastEnd);
        }
        let Some(span) = self.read(at, start).await? else {
            return Err(LogError::Incomplete { term, have: start, need: end });
        };
        let need = end.min(start.plus(size));
        if span.start != start {
            return Err(LogError::Gap { term, from: start, to: span.start });
        }
        if span.end() < need {
            return Err(LogError::Incomplete { term, have: span.end(), need });
        }
        self.check_line(term, start, &span)?;
        let mut content = span.content;
        content.truncate(usize::try_from(need.bytes_since(start)).expect("not longer than a segment"));
        content.resize(usize::try_from(size).expect("a segment fits in memory"), 0);
        Ok(Segment::Bytes(content))
    }

    async fn read(&mut self, at: usize, start: Lsn) -> Result<Option<Span>, LogError> {
        let (_, index) = &self.reigns[at];
        match index.read(&self.repository, start).await {
            Err(LogError::Store(error)) if error.is_missing() => {
                // Compacted since the listing: then the segment is there now.
                let fresh = Index::load(&self.repository, index.term).await?;
                let span = fresh.read(&self.repository, start).await;
                self.reigns[at].1 = fresh;
                span
            }
            result => result,
        }
    }

    fn check_line(&mut self, term: Term, start: Lsn, span: &Span) -> Result<(), LogError> {
        let size = self.repository.log_segment_size();
        let before = start.offset().checked_sub(size).map(Lsn::from_offset);
        let link = before.and_then(|before| self.links.get(&(term, before)));
        if link.is_some_and(|link| span.previous != Some(*link)) {
            return Err(LogError::Line { term, at: start });
        }
        if span.end() == start.plus(size) {
            self.links.insert((term, start), span.link);
        }
        Ok(())
    }
}
