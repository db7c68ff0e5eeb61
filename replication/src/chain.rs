//! Who may follow whom: the chain of rules of a primary, and where another member's log left it.
//!
//! Within one term there is one writer, so a log of that term is the beginning of every longer one: only the point at
//! which the chain left the *term* counts. A rule's `start` within a term is a position just before it was written, with
//! other commits in between. What lies beyond that point is a tail that the chain discarded.
//!
//! Invariants, each a test below:
//! * `a_discarded_tail_never_follows` (I13).
//! * `who_stopped_before_the_fork_follows`.
//! * `a_rule_that_the_chain_does_not_have_never_follows`.
//! * `a_reign_without_a_rule_never_follows`.
//! * `positions_of_another_term_are_never_compared`.
//! * `a_transaction_that_the_chain_left_out_never_follows`.

use std::borrow::Borrow;

use holdfast_model::{Position, Rule, RuleId, Term};

/// What a would-be follower has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The last rule in its own log; none in a log that is empty.
    pub rule: Option<RuleId>,
    /// The newest reign that its log is of. Above its last rule's when it followed into a reign, or began one, and does not
    /// hold that reign's rule: the first records of a term come before its rule.
    pub reign: Term,
    /// Where its log ends, applied or not.
    pub end: Position,
}

/// Why a member must not follow. Its tail is copied; then it is rewound or rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// Its last rule is none of the primary's.
    #[error("rule {own} is not in the primary's chain, which ends with {newest}: rewind or rebuild")]
    UnknownRule {
        /// The follower's last rule.
        own: RuleId,
        /// The newest of the chain.
        newest: RuleId,
    },
    /// Its log is of a term that never got a rule, or not one of the primary's.
    #[error("term {own} is not in the primary's chain: rewind or rebuild")]
    UnknownTerm {
        /// The follower's.
        own: Term,
    },
    /// Its log goes on where the chain went another way.
    #[error("the log ends at {end}, past {left}, where rule {by} left term {own}: rewind or rebuild")]
    PastFork {
        /// The term that both had.
        own: Term,
        /// Where the follower's log ends.
        end: Position,
        /// Where the chain left that term.
        left: Position,
        /// The rule with which it did.
        by: RuleId,
    },
    /// There is nothing to compare with.
    #[error("the primary shows no rule")]
    NoChain,
}

/// The rule with which `chain` left the reign of `term`; none when that reign is its newest.
#[must_use]
pub fn left_by<R: Borrow<Rule>>(term: Term, chain: &[R]) -> Option<&Rule> {
    chain.iter().map(Borrow::borrow).filter(|rule| rule.id.term > term).min_by_key(|rule| rule.id)
}

/// Whether a member may receive log from the primary whose rules, all of them in any order, are `chain`.
///
/// # Errors
/// [`Diverged`].
pub fn may_follow<R: Borrow<Rule>>(own: &Held, chain: &[R]) -> Result<(), Diverged> {
    let ids = || chain.iter().map(|rule| rule.borrow().id);
    let newest = ids().max().ok_or(Diverged::NoChain)?;
    let Some(last) = own.rule else { return Ok(()) };
    if !ids().any(|id| id == last) {
        return Err(Diverged::UnknownRule { own: last, newest });
    }
    let term = own.reign.max(last.term);
    if !ids().any(|id| id.term == term) {
        return Err(Diverged::UnknownTerm { own: term });
    }
    match left_by(term, chain) {
        None => Ok(()),
        Some(next) if own.end <= next.start => Ok(()),
        // What does not compare is past the fork as well: it holds something that the chain left that term without.
        Some(next) => {
            Err(Diverged::PastFork { own: term, end: own.end.clone(), left: next.start.clone(), by: next.id })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, rule};
    use holdfast_model::{GtidSet, Lsn};

    /// Term 4 until 1000, term 6 until 2000, term 9 since.
    fn chain() -> Vec<Rule> {
        let at = |(term, version, start)| Rule {
            id: id(term, version),
            start: Lsn::from_offset(start).into(),
            ..rule(1, &["a:x", "b:y", "c:z"])
        };
        [(4, 1, 100), (4, 2, 500), (6, 1, 1000), (9, 1, 2000), (9, 2, 2500)].map(at).into()
    }

    fn held(term: u32, version: u32, reign: u32, end: u64) -> Held {
        let end = Lsn::from_offset(end).into();
        Held { rule: Some(id(term, version)), reign: Term::new(reign).unwrap(), end }
    }

    #[test]
    fn who_stopped_before_the_fork_follows() {
        for own in [held(4, 1, 4, 400), held(4, 2, 4, 1000), held(6, 1, 6, 2000), held(9, 1, 9, 9000)] {
            assert_eq!(may_follow(&own, &chain()), Ok(()), "{own:?}");
        }
        // A writer's other commits may stand between a rule's start and the rule.
        assert_eq!(may_follow(&held(4, 1, 4, 510), &chain()), Ok(()));
        let empty = Held { rule: None, reign: Term::FIRST, end: Lsn::ZERO.into() };
        assert_eq!(may_follow(&empty, &chain()), Ok(()));
    }

    #[test]
    fn a_discarded_tail_never_follows() {
        let err = may_follow(&held(4, 2, 4, 1001), &chain()).unwrap_err();
        let said = "the log ends at 0/3E9, past 0/3E8, where rule (6,1) left term 4: rewind or rebuild";
        assert_eq!(err.to_string(), said);
        assert!(matches!(may_follow(&held(6, 1, 6, 2001), &chain()), Err(Diverged::PastFork { .. })));
    }

    #[test]
    fn a_rule_that_the_chain_does_not_have_never_follows() {
        // Of a discarded term, of a version that was never acked, and of a term that is ahead; also when the log is short.
        for own in [held(5, 1, 5, 900), held(4, 3, 4, 600), held(9, 3, 9, 2600), held(10, 1, 10, 90)] {
            assert!(matches!(may_follow(&own, &chain()), Err(Diverged::UnknownRule { .. })), "{own:?}");
        }
        assert_eq!(may_follow::<Rule>(&held(4, 1, 4, 1), &[]), Err(Diverged::NoChain));
    }

    #[test]
    fn a_reign_without_a_rule_never_follows() {
        // Promoted to 5, which got no rule; its log is short enough to look harmless.
        let own = Term::new(5).unwrap();
        assert_eq!(may_follow(&held(4, 2, 5, 900), &chain()), Err(Diverged::UnknownTerm { own }));
        // Followed into 6, whose rule it has not received yet.
        assert_eq!(may_follow(&held(4, 2, 6, 1010), &chain()), Ok(()));
    }

    #[test]
    fn a_transaction_that_the_chain_left_out_never_follows() {
        let set = |text: &str| Position::from(text.parse::<GtidSet>().unwrap());
        let (old, new) = ("3e11fa47-71ca-11e1-9e33-c80aa9429562", "4b2a9c10-0000-11e1-9e33-c80aa9429562");
        let (first, left) = (id(1, 1), set(&format!("{old}:1-100")));
        let at = |id, start: &Position| Rule { id, start: start.clone(), ..rule(1, &["a:x", "b:y"]) };
        let chain = [at(first, &set("")), at(id(2, 1), &left)];
        let held = |end| Held { rule: Some(first), reign: Term::FIRST, end };
        for end in [set(""), set(&format!("{old}:1-7")), set(&format!("{old}:1-7:9-100")), left.clone()] {
            assert_eq!(may_follow(&held(end), &chain), Ok(()));
        }
        // One transaction more, one that is in a smaller set, another source's, and another engine's altogether.
        let sets = [format!("{old}:1-101"), format!("{old}:1-3:101"), format!("{old}:1-3,{new}:1")];
        for end in sets.iter().map(|text| set(text)).chain([Lsn::ZERO.into()]) {
            let past =
                Diverged::PastFork { own: Term::FIRST, end: end.clone(), left: left.clone(), by: id(2, 1) };
            assert_eq!(may_follow(&held(end), &chain), Err(past));
        }
    }

    #[test]
    fn positions_of_another_term_are_never_compared() {
        // Both end at 1500. One of term 4, which ended at 1000: only the terms tell.
        assert!(may_follow(&held(4, 2, 4, 1500), &chain()).is_err());
        assert!(may_follow(&held(6, 1, 6, 1500), &chain()).is_ok());
    }
}
