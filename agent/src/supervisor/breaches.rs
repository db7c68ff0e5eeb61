//! Counts breaches of the promise that an answered commit is held elsewhere, as the engine's log tells them
//! ([`holdfast_engine::postgres::breach`]): nobody could prevent them, so at least nobody overlooks them.
//!
//! What was logged while no agent followed, or was skipped in a flood, is not counted: the count says "at least".

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine::postgres::breach::Breach;
use holdfast_model::status::{BreachesView, Weakened};

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

    /// What was seen, beside `weakened`, which invites more.
    #[must_use]
    pub fn view(&self, weakened: BTreeSet<Weakened>) -> BreachesView {
        let count = |breach| self.of(breach).load(Ordering::Relaxed);
        BreachesView { cancelled: count(Breach::Cancelled), ended: count(Breach::Ended), weakened }
    }

    const fn of(&self, breach: Breach) -> &AtomicU64 {
        match breach {
            Breach::Cancelled => &self.cancelled,
            Breach::Ended => &self.ended,
        }
    }
}
