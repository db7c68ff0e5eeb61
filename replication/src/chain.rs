//! Who may follow whom: the chain of rules of a primary, and where another member's log left it.
//!
//! A log belongs to the chain up to the `start` of the first rule of a later term than its own last rule. What lies
//! beyond is a tail that the chain discarded. Within one term there is one primary, so there is no fork.
//!
//! Invariants, each a test below:
//! * `a_discarded_tail_never_follows` (I13).
//! * `who_stopped_before_the_fork_follows`.
//! * `a_rule_that_the_chain_does_not_have_never_follows`.

use std::borrow::Borrow;

use holdfast_model::{Lsn, Rule, RuleId};

/// Why a member may not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// Its newest rule was never part of the primary's history.
    #[error(
        "rule {last} is not in the history of the primary, whose newest is {newest}: its log from {from} on was discarded"
    )]
    OtherRule {
        /// The newest rule in its log.
        last: RuleId,
        /// The newest rule of the chain.
        newest: RuleId,
        /// Where the two histories part at the latest.
        from: Lsn,
    },
    /// Its log goes on where the chain took another way.
    #[error(
        "the history of the primary left rule {last} at {from}, and the log goes on to {end}: what is in between was discarded"
    )]
    PastFork {
        /// The newest rule in its log.
        last: RuleId,
        /// Where the chain left it.
        from: Lsn,
        /// Where its log ends.
        end: Lsn,
    },
    /// It holds a rule that is newer than everything of the primary.
    #[error(
        "rule {last} is newer than every rule of the primary, whose newest is {newest}: the primary is the one that is behind"
    )]
    Ahead {
        /// The newest rule in its log.
        last: RuleId,
        /// The newest rule of the chain.
        newest: RuleId,
    },
    /// There is nothing to compare with.
    #[error("the primary shows no rule")]
    NoChain,
}

/// Where `chain`, oldest rule first, left the reign of `of`; `None` when that reign is its newest.
#[must_use]
pub fn left_at<R: Borrow<Rule>>(of: RuleId, chain: &[R]) -> Option<Lsn> {
    chain.iter().map(Borrow::borrow).find(|rule| rule.id.term > of.term).map(|rule| rule.start)
}

/// Whether a member whose newest rule is `last` and whose log ends at `end` may receive log from the primary of `chain`,
/// oldest rule first. A member without any rule follows from the beginning.
///
/// # Errors
/// [`Diverged`]: its tail is kept as evidence, and it is rewound or built anew.
pub fn may_follow<R: Borrow<Rule>>(last: Option<RuleId>, end: Lsn, chain: &[R]) -> Result<(), Diverged> {
    let newest = chain.last().ok_or(Diverged::NoChain)?.borrow().id;
    let Some(last) = last else { return Ok(()) };
    if last > newest {
        return Err(Diverged::Ahead { last, newest });
    }
    let left = left_at(last, chain);
    if !chain.iter().any(|rule| rule.borrow().id == last) {
        return Err(Diverged::OtherRule { last, newest, from: left.unwrap_or(end) });
    }
    match left {
        Some(from) if end > from => Err(Diverged::PastFork { last, from, end }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, rule};

    /// (1,1) at 0, (1,2) at 40, (3,1) at 100.
    fn chain() -> Vec<Rule> {
        let at = |id, start| Rule { id, start: Lsn::from_offset(start), ..rule(1, &["a:x", "b:y", "c:z"]) };
        vec![at(id(1, 1), 0), at(id(1, 2), 40), at(id(3, 1), 100)]
    }

    fn follows(last: RuleId, end: u64) -> Result<(), Diverged> {
        may_follow(Some(last), Lsn::from_offset(end), &chain())
    }

    #[test]
    fn who_stopped_before_the_fork_follows() {
        assert_eq!(follows(id(1, 1), 30), Ok(()));
        assert_eq!(follows(id(1, 1), 45), Ok(()), "the same reign wrote what follows");
        assert_eq!(follows(id(1, 2), 100), Ok(()));
        assert_eq!(follows(id(3, 1), 500), Ok(()));
        assert_eq!(may_follow(None, Lsn::ZERO, &chain()), Ok(()));
    }

    #[test]
    fn a_discarded_tail_never_follows() {
        assert!(matches!(follows(id(1, 2), 101), Err(Diverged::PastFork { .. })));
        assert!(matches!(follows(id(1, 1), 101), Err(Diverged::PastFork { .. })));
    }

    #[test]
    fn a_rule_that_the_chain_does_not_have_never_follows() {
        let from = Lsn::from_offset(100);
        assert_eq!(
            follows(id(2, 1), 90),
            Err(Diverged::OtherRule { last: id(2, 1), newest: id(3, 1), from }),
            "also when its log is short"
        );
        assert!(matches!(follows(id(4, 1), 90), Err(Diverged::Ahead { .. })));
        assert_eq!(may_follow::<Rule>(Some(id(1, 1)), Lsn::ZERO, &[]), Err(Diverged::NoChain));
    }
}
