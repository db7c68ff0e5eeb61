//! The segment in which a timeline begins, which there is twice: as a file of that timeline and as one of its parent.
//!
//! A standby that changes over to a new timeline receives its first segment from the beginning, also what it has of it already.
//! Until it has received that again, the new file holds less of the log before the fork than the old one. Postgres reads the
//! file of the newest timeline that there is, and no other (`XLogFileReadAnyTLI`): stopped in between, the server comes up with
//! log missing that it had flushed and acked, and a promotion ends in a `PANIC`. So before a server starts, a new file that is
//! behind the old one has to go; nothing is lost with it, since up to the fork it is a copy.
//!
//! Invariants, tests in `tests/replication/first_segment.rs`:
//! * `a_standby_that_stops_while_it_changes_over_still_has_what_it_acked`, which first shows that it has not.

use holdfast_model::{Lsn, Term};

use crate::postgres::wal::Segments;
use crate::postgres::wal::history::History;
use crate::postgres::wal::scan::Scanner;

/// A first segment as two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstSegment {
    /// The file of the timeline.
    pub newer: String,
    /// That of an ancestor.
    pub older: String,
    timelines: (Term, Term),
    segments: Segments,
    start: Lsn,
    fork: Lsn,
}

impl FirstSegment {
    /// That of timeline `of` beside each of its ancestors that has log in it, the oldest first; none for one without a parent, or that begins with
    /// a segment.
    #[must_use]
    pub fn of(of: Term, history: &History, segments: Segments) -> Vec<Self> {
        let Some((_, begins)) = history.branch() else { return Vec::new() };
        let start = segments.holding(of, begins).start;
        let name = |timeline| segments.name(segments.holding(timeline, begins));
        let within = history.ancestors.iter().filter(|ancestor| ancestor.switch > start);
        let beside = within.map(|ancestor| Self {
            newer: name(of),
            older: name(ancestor.timeline),
            timelines: (of, ancestor.timeline),
            segments,
            start,
            fork: ancestor.switch,
        });
        beside.collect()
    }

    /// How many bytes of each are log before the fork.
    #[must_use]
    pub const fn shared(&self) -> u64 {
        self.fork.bytes_since(self.start)
    }

    /// Whether the newer file holds all of the log before the fork: it is then behind no file of an ancestor that was left here or
    /// before. Of its bytes the first [`Self::shared`], or fewer where there are fewer.
    #[must_use]
    pub fn is_whole(&self, newer: &[u8]) -> bool {
        self.end(self.timelines.0, newer) >= self.fork
    }

    /// Whether the newer file holds less of the log before the fork than the older one. Of each the first [`Self::shared`] bytes,
    /// or fewer where there are fewer.
    #[must_use]
    pub fn is_behind(&self, newer: &[u8], older: &[u8]) -> bool {
        self.end(self.timelines.0, newer) < self.end(self.timelines.1, older)
    }

    fn end(&self, timeline: Term, bytes: &[u8]) -> Lsn {
        let mut scanner = Scanner::new(self.segments, timeline, self.start, self.start);
        scanner.push(&bytes[..bytes.len().min(usize::try_from(self.shared()).unwrap_or(usize::MAX))]);
        scanner.finish().end
    }
}
