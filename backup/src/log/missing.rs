//! What the repository lacks of the reigns before the newest one of a chain.
//!
//! A primary that is lost takes what it had not shipped yet with it, and what was acked of that is with the next one. A
//! chain can be read only when each reign in it is there up to where the next one began, so a new primary ships that first.
//!
//! Invariants, tests in `tests/terms.rs`:
//! * `an_heir_completes_the_term_of_a_primary_that_is_gone`.
//! * `every_reign_back_to_one_that_is_complete_is_looked_at`.

use holdfast_model::{Lsn, Term};

use super::LogError;
use crate::repository::Repository;
use crate::rules::Chain;

/// Log of one older reign that was not shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The reign.
    pub term: Term,
    /// Its own start.
    pub start: Lsn,
    /// From here on; `None` when nothing of the reign was shipped.
    pub from: Option<Lsn>,
    /// Up to where the next reign began.
    pub to: Lsn,
}

impl Repository {
    /// What is missing of the reigns before the newest of `chain`, oldest first. Nothing before a reign that is there and
    /// complete is looked at: whoever shipped its log had completed those before it, or had said that it could not.
    ///
    /// # Errors
    /// [`LogError`], also when log of a reign has a hole: nobody can fill it any more.
    pub async fn missing_log(&self, chain: &Chain) -> Result<Vec<Missing>, LogError> {
        let mut missing = Vec::new();
        for reign in chain.reigns().iter().rev() {
            // The newest goes on.
            let Some(to) = reign.end else { continue };
            let shipped = self.log_range(reign.term).await?.map(|(_, end)| end);
            if shipped.is_some_and(|end| end >= to) {
                break;
            }
            missing.push(Missing { term: reign.term, start: reign.start, from: shipped, to });
        }
        missing.reverse();
        Ok(missing)
    }
}
