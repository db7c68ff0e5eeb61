//! Counts breaches of the promise that an answered commit is held elsewhere, as the engine's log tells them
//! ([`holdfast_engine::postgres::breach`]): nobody could prevent them, so at least nobody overlooks them.
//!
//! What was logged while no agent followed, or was skipped in a flood, is not counted: the count says "at least".

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine::postgres::breach::Breach;

/// Since this agent started.
#[derive(Debug, Default)]
pub struct Breaches {
    cancelled: AtomicU64,
    ended: AtomicU64,
}

impl Breaches {
    /// Notes one.
    pub fn note(&self, breach: Breach) {
        self.of(breach).fetch_add(1, Ordering::Relaxed);
    }

    /// How many of a kind were seen.
    #[must_use]
    pub fn count(&self, breach: Breach) -> u64 {
        self.of(breach).load(Ordering::Relaxed)
    }

    const fn of(&self, breach: Breach) -> &AtomicU64 {
        match breach {
            Breach::Cancelled => &self.cancelled,
            Breach::Ended => &self.ended,
        }
    }
}
