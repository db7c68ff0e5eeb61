//! Somebody's word that the primary is gone, where members would be asked whether they miss it.
//!
//! A recruit stops the acks of a primary that may be healthy, which is why votes come first. Whoever leaves them out says
//! so, and says how they know; that counts for one failover and for some minutes, because what they saw does not stay true.
//! Only patience and people depend on it, so the wall clock may judge it (I12).
//!
//! Invariants, each a test below: `a_word_counts_for_minutes_and_not_for_ever`.

use serde::{Deserialize, Serialize};

use crate::{Member, Term};

/// The longest that a word may count.
pub const VOUCHED_MS_MAX: u64 = 10 * 60 * 1000;

/// A word that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// Whose, by the certificate of the call.
    pub by: String,
    /// How they knew.
    pub why: String,
    /// Which primary is gone.
    pub primary: Member,
    /// The first term that was tried by it.
    pub term: Term,
    /// When it was taken, in milliseconds since 1970.
    pub given_unix_ms: u64,
    /// Until when it counts.
    pub until_unix_ms: u64,
    /// What came of it; `None` while that is not known.
    pub outcome: Option<String>,
}

/// Why a word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotVouched {
    /// It did, once.
    #[error("the word that the primary is gone counted until {} s ago", over_ms.div_ceil(1000))]
    Over {
        /// Milliseconds since then.
        over_ms: u64,
    },
    /// It would for too long. Or the two clocks differ.
    #[error(
        "the word that the primary is gone is to count for {} s more by this node's clock, and may for {} s at most",
        left_ms.div_ceil(1000),
        VOUCHED_MS_MAX / 1000
    )]
    TooLong {
        /// Milliseconds that it would.
        left_ms: u64,
    },
}

/// Whether a word that is said to count until `until_unix_ms` does, and for how many milliseconds more.
///
/// # Errors
/// [`NotVouched`].
pub const fn counts_for(until_unix_ms: u64, now_unix_ms: u64) -> Result<u64, NotVouched> {
    match until_unix_ms.checked_sub(now_unix_ms) {
        None | Some(0) => Err(NotVouched::Over { over_ms: now_unix_ms - until_unix_ms }),
        Some(left_ms) if left_ms > VOUCHED_MS_MAX => Err(NotVouched::TooLong { left_ms }),
        Some(left_ms) => Ok(left_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_for_minutes_and_not_for_ever() {
        let now = 1_000_000_000;
        assert_eq!(counts_for(now + 1, now), Ok(1));
        assert_eq!(counts_for(now + VOUCHED_MS_MAX, now), Ok(VOUCHED_MS_MAX));
        assert_eq!(counts_for(now, now), Err(NotVouched::Over { over_ms: 0 }));
        assert_eq!(counts_for(now - 1, now), Err(NotVouched::Over { over_ms: 1 }));
        let left_ms = VOUCHED_MS_MAX + 1;
        assert_eq!(counts_for(now + left_ms, now), Err(NotVouched::TooLong { left_ms }));
    }
}
