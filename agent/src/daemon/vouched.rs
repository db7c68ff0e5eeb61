//! A failover without votes: on somebody's word, once, for some minutes, and written down before anything comes of it.
//!
//! Invariants, each a test below:
//! * `a_word_is_in_the_ledger_before_it_is_used`.
//! * `a_call_that_is_repeated_after_a_restart_is_refused`: what came of the first one is not known any more.
//! * `a_word_that_is_over_leaves_no_trace`.

use holdfast_model::Vouch;
use holdfast_model::vouch::counts_for;
use tracing::warn;

use super::control::{failed, refused};
use crate::api::control::{CallError, Reason};
use crate::chain::Chain;
use crate::ledger::{Ledger, Vouched};
use crate::reconcile::Node;

const ANEW: &str = "look again whether the primary is gone, and give your word anew: \
                    'holdfast failover --without-votes --why ..'";

/// Takes a word, which the call `request` carries; for how many milliseconds it counts.
fn take(ledger: &Ledger, request: &str, vouch: Vouch) -> Result<u64, CallError> {
    let left_ms = counts_for(vouch.until_unix_ms, vouch.given_unix_ms)
        .map_err(|err| refused(Reason::Expired, err.to_string(), ANEW))?;
    let last = ledger.load::<Vouched>().map_err(|err| failed("read the last word", &err))?;
    if last.is_some_and(|last| last.request == request) {
        let missing = "this call was taken before, and its word counts for one failover";
        return Err(refused(Reason::Expired, missing, ANEW));
    }
    let record = Vouched { request: request.to_owned(), vouch };
    ledger.store(&record).map_err(|err| failed("write down whose word it is", &err))?;
    Ok(left_ms)
}

/// Notes what came of the word that the call `request` carried.
fn note(ledger: &Ledger, request: &str, outcome: &str) -> Result<(), crate::ledger::LedgerError> {
    match ledger.load::<Vouched>()? {
        Some(mut last) if last.request == request => {
            last.vouch.outcome = Some(outcome.to_owned());
            ledger.store(&last)
        }
        Some(_) | None => Ok(()),
    }
}

impl Node {
    /// Takes a word in place of votes; for how many milliseconds it counts.
    pub(super) fn take_word(&self, request: &str, vouch: Vouch) -> Result<u64, CallError> {
        let (by, why, primary) = (vouch.by.clone(), vouch.why.clone(), vouch.primary.clone());
        let left_ms = take(&self.ledger, request, vouch)?;
        warn!(%by, why, %primary, left_ms, "failover without votes, on somebody's word");
        Ok(left_ms)
    }

    /// The last word that was taken.
    pub(super) fn last_word(&self) -> Result<Option<Vouch>, CallError> {
        let last = self.ledger.load::<Vouched>().map_err(|err| failed("read the last word", &err))?;
        Ok(last.map(|last| last.vouch))
    }
}

/// Notes what came of a word.
pub(super) fn note_outcome(ledger: &Ledger, request: &str, outcome: &str) {
    if let Err(err) = note(ledger, request, outcome) {
        warn!(error = %Chain(&err), "what came of the failover without votes is not written down");
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{Incarnation, Member, Term};
    use holdfast_proto::refusal::Refusal;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn word(until_unix_ms: u64) -> Vouch {
        Vouch {
            by: "holdfast://orders/user/ops?roles=promote".to_owned(),
            why: "the rack burnt".to_owned(),
            primary: Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(1) },
            term: Term::FIRST,
            given_unix_ms: NOW,
            until_unix_ms,
            outcome: None,
        }
    }

    #[track_caller]
    fn expired(taken: Result<u64, CallError>) -> String {
        match taken {
            Err(CallError::Refused(refusal @ Refusal { reason: Reason::Expired, .. })) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_word_is_in_the_ledger_before_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(take(&ledger, "request-1", word(NOW + 60_000)).unwrap(), 60_000);
        let stored = Ledger::open(dir.path()).unwrap().load::<Vouched>().unwrap().unwrap();
        assert_eq!((stored.request.as_str(), &stored.vouch), ("request-1", &word(NOW + 60_000)));
        note(&ledger, "request-1", "n2 serves").unwrap();
        note(&ledger, "request-0", "late").unwrap();
        let noted = ledger.load::<Vouched>().unwrap().unwrap().vouch.outcome;
        assert_eq!(noted.as_deref(), Some("n2 serves"));
    }

    #[test]
    fn a_call_that_is_repeated_after_a_restart_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        take(&Ledger::open(dir.path()).unwrap(), "request-1", word(NOW + 1)).unwrap();
        let after = Ledger::open(dir.path()).unwrap();
        let said = expired(take(&after, "request-1", word(NOW + 1)));
        assert!(said.contains("one failover") && said.contains("--without-votes"), "{said}");
        take(&after, "request-2", word(NOW + 1)).unwrap();
    }

    #[test]
    fn a_word_that_is_over_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let said = expired(take(&ledger, "request-1", word(NOW - 5_000)));
        assert!(said.contains("until 5 s ago"), "{said}");
        expired(take(&ledger, "request-1", word(NOW + 3_600_000)));
        assert_eq!(ledger.load::<Vouched>().unwrap(), None);
    }
}
