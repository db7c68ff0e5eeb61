//! Shipped log: what was acked since the last backup, each second, in objects that are never overwritten.
//!
//! * [`Shipper`] writes `log/<term>/<start>`, and compacts complete segments to `log/<term>/segment/<start>`.
//! * [`Missing`] is what older terms of a chain lack, for a new primary to ship before its own.
//! * [`LogReader`] reads one history back, cut where each next reign began, and proves its end.
//!
//! Not here: what log means. To this crate it is bytes at positions.

use holdfast_model::{Lsn, Member, Term};

use crate::repository::Repository;
use crate::store::StoreError;

mod index;
mod missing;
mod object;
mod reader;
mod shipper;

pub use missing::Missing;
pub use object::ObjectError;
pub use reader::{LogReader, Segment};
pub use shipper::Shipper;

use index::Index;

/// Why log could not be shipped or read. None of these means "the end of the log".
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Object storage failed or does not answer.
    #[error("access shipped log")]
    Store(#[from] StoreError),
    /// An object is damaged, newer than this release, or at a place where it does not belong.
    #[error("read {key}")]
    Object {
        /// Which.
        key: String,
        /// What is wrong with it.
        #[source]
        source: ObjectError,
    },
    /// An object among the log is none.
    #[error("{key} does not belong among shipped log")]
    Stray {
        /// Which.
        key: String,
    },
    /// Log is missing and goes on later.
    #[error("log of term {term} is missing from {from} to {to}")]
    Gap {
        /// The term.
        term: Term,
        /// The first position that is missing.
        from: Lsn,
        /// Where log goes on.
        to: Lsn,
    },
    /// Objects do not form a line: one was replaced.
    #[error("log of term {term} is broken at {at}: the object there does not follow the one before it")]
    Line {
        /// The term.
        term: Term,
        /// Where.
        at: Lsn,
    },
    /// Log ends before a position that it must reach.
    #[error("log of term {term} ends at {have} and is needed up to {need}")]
    Incomplete {
        /// The term.
        term: Term,
        /// How far it is.
        have: Lsn,
        /// How far it is needed.
        need: Lsn,
    },
    /// The term is not part of the history that is being read.
    #[error("term {term} is not part of the history to read")]
    OtherHistory {
        /// The term.
        term: Term,
    },
    /// There is no segment of that number.
    #[error("segment {number} is out of range")]
    OutOfRange {
        /// The number.
        number: u64,
    },
    /// Shipping a term must begin at a segment.
    #[error("shipping a term must begin at the start of a segment, and {start} is none")]
    Misaligned {
        /// Where it was to begin.
        start: Lsn,
    },
    /// Log was offered that leaves a gap.
    #[error("log is shipped up to {next}, and was offered from {start} on")]
    NotNext {
        /// Up to where log is shipped.
        next: Lsn,
        /// Where what was offered begins.
        start: Lsn,
    },
    /// Another member ships this term.
    #[error(
        "log of term {term} at {at} was shipped by {member}: a term has one primary, and is over when another term begins"
    )]
    OtherMember {
        /// The term.
        term: Term,
        /// Where.
        at: Lsn,
        /// By whom.
        member: Member,
    },
    /// Other log was shipped at the same place.
    #[error("log of term {term} at {at} differs from what was shipped before")]
    Differs {
        /// The term.
        term: Term,
        /// Where.
        at: Lsn,
    },
}

impl Repository {
    /// The log of a term that is there without a gap, from its first byte on; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn log_range(&self, term: Term) -> Result<Option<(Lsn, Lsn)>, LogError> {
        let index = Index::load(self, term).await?;
        match index.first() {
            Some(first) => Ok(Some((first, index.end_of_line(self, first).await?))),
            None => Ok(None),
        }
    }

    /// Whether the log of a term is there without a gap from the segment of `start` up to `stop`.
    ///
    /// # Errors
    /// [`LogError`] with what is missing.
    pub async fn require_log(&self, term: Term, start: Lsn, stop: Lsn) -> Result<(), LogError> {
        let index = Index::load(self, term).await?;
        let floor = index.floor(start);
        if index.first().is_none_or(|first| first > floor) {
            return Err(LogError::Incomplete { term, have: floor, need: stop });
        }
        let end = index.end_of_line(self, floor).await?;
        if end < stop { Err(LogError::Incomplete { term, have: end, need: stop }) } else { Ok(()) }
    }
}
