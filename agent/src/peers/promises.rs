//! What each member is known to have promised. A disk that was rolled back, or that is a copy of one, comes back with less: such a
//! member may have acked what it does not have any more, and is refused until it is another incarnation.
//!
//! Only what a member acted on is remembered, which it does after its promise is on its disk: log of a term that it has. It is taken
//! from what the member says of both at once, since an answer may be older than another that came before it. In memory only: it is
//! a second look, and no safety rests on it.
//!
//! Invariants, each a test below:
//! * `a_promise_that_went_back_is_refused_until_the_member_is_another`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_model::{Member, NodeName, Term};

/// A member whose promise went back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{member} has acted on a promise of term {before} and comes with one of {}: its disk was rolled back, or is a copy; give \
     node {} a blank one",
    now.map_or_else(|| "none".to_owned(), |term| format!("term {term}")), member.node
)]
pub struct WentBack {
    /// Who.
    pub member: Member,
    /// What it acted on.
    pub before: Term,
    /// What it comes with.
    pub now: Option<Term>,
}

/// What was seen of every member's promises.
#[derive(Debug, Default)]
pub struct Promises(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The newest term that a node's member acted on.
    acted: BTreeMap<NodeName, (Member, Term)>,
    refused: BTreeMap<Member, WentBack>,
}

impl Promises {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member acted on a promise of this term.
    pub fn note(&self, member: &Member, term: Term) {
        let mut seen = self.seen();
        let there = seen.acted.get(&member.node).filter(|(known, _)| known == member);
        let newest = there.map_or(term, |(_, known)| term.max(*known));
        seen.acted.insert(member.node.clone(), (member.clone(), newest));
    }

    /// The member says that it promised this.
    ///
    /// # Errors
    /// [`WentBack`], now or at an earlier time.
    pub fn check(&self, member: &Member, promised: Option<Term>) -> Result<(), WentBack> {
        let mut seen = self.seen();
        let known = seen.acted.get(&member.node).filter(|(known, _)| known == member).map(|(_, term)| *term);
        if let Some(before) = known.filter(|before| promised < Some(*before)) {
            let back = WentBack { member: member.clone(), before, now: promised };
            seen.refused.entry(member.clone()).or_insert(back);
        }
        seen.refused.get(member).map_or(Ok(()), |back| Err(back.clone()))
    }

    /// Whether the member was refused before.
    ///
    /// # Errors
    /// [`WentBack`].
    pub fn stands(&self, member: &Member) -> Result<(), WentBack> {
        self.seen().refused.get(member).map_or(Ok(()), |back| Err(back.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::Incarnation;

    #[test]
    fn a_promise_that_went_back_is_refused_until_the_member_is_another() {
        let promises = Promises::default();
        let member =
            |bits| Member { node: "n1".parse().unwrap(), incarnation: Incarnation::from_random(bits) };
        let term = |number| Term::new(number).unwrap();
        let (first, second) = (member(1), member(2));
        promises.check(&first, None).unwrap();
        promises.note(&first, term(5));
        promises.note(&first, term(4));
        promises.check(&first, Some(term(5))).unwrap();
        promises.check(&first, Some(term(9))).unwrap();
        let back = promises.check(&first, Some(term(4))).unwrap_err();
        assert_eq!((back.before, back.now), (term(5), Some(term(4))));
        assert!(back.to_string().contains("give node n1 a blank one"), "{back}");
        // What it promises after that makes up for nothing.
        promises.check(&first, Some(term(9))).unwrap_err();
        promises.stands(&first).unwrap_err();
        promises.check(&second, None).unwrap();
        promises.note(&second, term(6));
        promises.check(&second, Some(term(6))).unwrap();
        promises.stands(&first).unwrap_err();
    }
}
