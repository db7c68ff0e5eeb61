//! How long each part took, for people and for measuring.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failover::Stage as Forward;
use crate::switchover::Stage;

/// Milliseconds in each part, all attempts together; 0 for a part that there was none of. Their sum is the whole time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Took {
    /// A candidate came near; clients wrote meanwhile.
    pub near_ms: u64,
    /// The primary closed its gate.
    pub close_ms: u64,
    /// The candidate received the rest.
    pub drain_ms: u64,
    /// The primary opened again.
    pub reopen_ms: u64,
    /// Members were asked whether they miss the primary.
    pub votes_ms: u64,
    /// Members promised and reported.
    pub recruit_ms: u64,
    /// Whoever was chosen began the term.
    pub promote_ms: u64,
    /// Its marker was acked, and its gate opened.
    pub gate_ms: u64,
    /// Pauses between attempts.
    pub pause_ms: u64,
}

impl Took {
    /// The whole time.
    #[must_use]
    pub const fn total_ms(&self) -> u64 {
        self.near_ms + self.refused_ms()
    }

    /// How long clients could not write: everything but the time before a planned change closed the gate.
    #[must_use]
    pub const fn refused_ms(&self) -> u64 {
        self.close_ms
            + self.drain_ms
            + self.reopen_ms
            + self.votes_ms
            + self.recruit_ms
            + self.promote_ms
            + self.gate_ms
            + self.pause_ms
    }

    pub(super) const fn add(&mut self, stage: Stage, ms: u64) {
        let part = match stage {
            Stage::Nearing => &mut self.near_ms,
            Stage::Closing => &mut self.close_ms,
            Stage::Draining => &mut self.drain_ms,
            Stage::Reopening => &mut self.reopen_ms,
            Stage::HandingOver(Forward::Voting) => &mut self.votes_ms,
            Stage::HandingOver(Forward::Recruiting) => &mut self.recruit_ms,
            Stage::HandingOver(Forward::Promoting) => &mut self.promote_ms,
            Stage::HandingOver(Forward::Opening) => &mut self.gate_ms,
            Stage::HandingOver(Forward::Ended) | Stage::Ended => return,
        };
        *part = part.saturating_add(ms);
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.total_ms())?;
        let parts = [
            ("coming near", self.near_ms),
            ("closing", self.close_ms),
            ("draining", self.drain_ms),
            ("reopening", self.reopen_ms),
            ("votes", self.votes_ms),
            ("recruits", self.recruit_ms),
            ("promotion", self.promote_ms),
            ("gate", self.gate_ms),
            ("pauses", self.pause_ms),
        ];
        let mut before = " (";
        for (part, ms) in parts.into_iter().filter(|(_, ms)| *ms > 0) {
            write!(f, "{before}{part} {ms}")?;
            before = ", ";
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
}
