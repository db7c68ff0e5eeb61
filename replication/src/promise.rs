//! What a member that has promised a term may still take part in.
//!
//! A promise is "I take part in nothing below term t", and names the one attempt of the one coordinator that it was given
//! to. It is persisted on the data volume before anybody hears of it, and lost with that volume, together with the
//! incarnation.
//!
//! Invariants, each a test below (I3):
//! * `a_term_is_promised_to_one_attempt`.
//! * `a_promise_never_goes_back`.
//! * `a_recruit_is_above_everything_in_the_log`.
//! * `nobody_is_followed_below_the_promise`.

use holdfast_model::{Member, Promise, Rule, RuleId, Term};
use serde::{Deserialize, Serialize};

/// One try of one coordinator for a term. Another try, also by the same coordinator after a restart, is another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The term to be begun.
    pub term: Term,
    /// 128 random bits.
    #[serde(with = "holdfast_model::hex128")]
    pub id: u128,
}

/// What this member stands by when it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Who it is.
    pub member: &'a Member,
    /// What it promised on this volume, or is about to have promised: a persist that is under way counts.
    pub promise: Option<&'a Promise>,
    /// The newest rule in its own log.
    pub last_rule: Option<RuleId>,
}

/// What is to be done about a request that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promised {
    /// Persist this first.
    Now(Attempt),
    /// It was promised before: the same request once more.
    Already,
}

/// Why a member takes no part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// A later term was promised.
    #[error(
        "term {promised} is promised, and term {asked} is not above it: begin again above term {promised}"
    )]
    Promised {
        /// What was promised.
        promised: Term,
        /// What was asked for.
        asked: Term,
    },
    /// The term was promised to somebody else.
    #[error("term {term} is promised to another attempt: begin again above it")]
    OtherAttempt {
        /// The term.
        term: Term,
    },
    /// The term, or a later one, has already begun: its rule is in the log.
    #[error("rule {rule} is in the log, and term {asked} is not above it: begin again above term {}", rule.term)]
    Begun {
        /// The newest rule in the log.
        rule: RuleId,
        /// What was asked for.
        asked: Term,
    },
    /// Nothing was promised for this term, so it cannot be begun here.
    #[error("term {asked} was not promised here: recruit this member first")]
    NotRecruited {
        /// What was asked for.
        asked: Term,
    },
}

fn attempt_of(promise: &Promise) -> Attempt {
    Attempt { term: promise.max_term, id: promise.attempt }
}

/// Whether to stop taking part in everything below `asked`, and to tell how far the log goes.
///
/// # Errors
/// [`Refused`]. A repeated request is no error as long as the term has not begun.
pub fn recruit(standing: Standing<'_>, asked: Attempt) -> Result<Promised, Refused> {
    if let Some(rule) = standing.last_rule.filter(|rule| rule.term >= asked.term) {
        return Err(Refused::Begun { rule, asked: asked.term });
    }
    match standing.promise.map(attempt_of) {
        Some(promised) if promised == asked => Ok(Promised::Already),
        Some(promised) if promised.term == asked.term => Err(Refused::OtherAttempt { term: asked.term }),
        Some(promised) if promised.term > asked.term => {
            Err(Refused::Promised { promised: promised.term, asked: asked.term })
        }
        Some(_) | None => Ok(Promised::Now(asked)),
    }
}

/// Whether to begin the term that was promised, with a rule of this member's own. `Already` has begun it: the rule is in
/// the log.
///
/// # Errors
/// [`Refused`].
pub fn promote(standing: Standing<'_>, asked: Attempt) -> Result<(), Refused> {
    match standing.promise.map(attempt_of) {
        Some(promised) if promised == asked => {}
        Some(promised) if promised.term == asked.term => {
            return Err(Refused::OtherAttempt { term: asked.term });
        }
        Some(promised) if promised.term > asked.term => {
            return Err(Refused::Promised { promised: promised.term, asked: asked.term });
        }
        Some(_) | None => return Err(Refused::NotRecruited { asked: asked.term }),
    }
    match standing.last_rule {
        Some(rule) if rule.term > asked.term => Err(Refused::Begun { rule, asked: asked.term }),
        Some(_) | None => Ok(()),
    }
}

/// Whether to receive log from the primary of `rule`. A term above the promise was begun by members that this one was not
/// among; it is promised before it is followed, so that it is never followed back.
///
/// # Errors
/// [`Refused::Promised`].
pub fn follow(standing: Standing<'_>, rule: &Rule, attempt: Attempt) -> Result<Promised, Refused> {
    let asked = rule.id.term;
    match standing.promise.map(|promise| promise.max_term) {
        Some(promised) if promised > asked => Err(Refused::Promised { promised, asked }),
        Some(promised) if promised == asked => Ok(Promised::Already),
        Some(_) | None => Ok(Promised::Now(Attempt { term: asked, id: attempt.id })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, member, rule};
    use holdfast_model::ClusterId;
    use proptest::prelude::*;

    fn attempt(term: u32, id: u128) -> Attempt {
        Attempt { term: Term::new(term).unwrap(), id }
    }

    fn promise(of: Attempt) -> Promise {
        let cluster = ClusterId::new("c".parse().unwrap(), 7);
        Promise { cluster, member: member("a"), max_term: of.term, attempt: of.id }
    }

    /// What a member that keeps its promises has promised after these requests.
    fn after(requests: &[Attempt], last_rule: Option<RuleId>) -> Vec<(Attempt, Result<Promised, Refused>)> {
        let (own, mut kept) = (member("a"), None);
        let mut answers = Vec::new();
        for asked in requests {
            let standing = Standing { member: &own, promise: kept.as_ref(), last_rule };
            let answer = recruit(standing, *asked);
            if let Ok(Promised::Now(attempt)) = &answer {
                kept = Some(promise(*attempt));
            }
            answers.push((*asked, answer));
        }
        answers
    }

    fn requests() -> impl Strategy<Value = Vec<Attempt>> {
        proptest::collection::vec((1..6_u32, 1..3_u128).prop_map(|(term, id)| attempt(term, id)), 0..20)
    }

    proptest! {
        #[test]
        fn a_term_is_promised_to_one_attempt(requests in requests()) {
            let answers = after(&requests, None);
            for (asked, _) in answers.iter().filter(|(_, answer)| answer.is_ok()) {
                let others = answers.iter().filter(|(other, answer)| {
                    answer.is_ok() && other.term == asked.term && other.id != asked.id
                });
                prop_assert_eq!(others.count(), 0);
            }
        }

        #[test]
        fn a_promise_never_goes_back(requests in requests()) {
            let mut highest = 0;
            for (asked, answer) in after(&requests, None) {
                if answer.is_ok() {
                    prop_assert!(asked.term.number() >= highest);
                    highest = asked.term.number();
                }
            }
        }

        #[test]
        fn a_recruit_is_above_everything_in_the_log(requests in requests(), last in 1..6_u32) {
            for (asked, answer) in after(&requests, Some(id(last, 3))) {
                prop_assert!(answer.is_err() || asked.term.number() > last);
            }
        }

        #[test]
        fn nobody_is_followed_below_the_promise(promised in 1..6_u32, term in 1..6_u32) {
            let (own, kept) = (member("a"), promise(attempt(promised, 1)));
            let standing = Standing { member: &own, promise: Some(&kept), last_rule: None };
            let of = Rule { id: id(term, 1), ..rule(1, &["b:y", "a:x"]) };
            prop_assert_eq!(follow(standing, &of, attempt(term, 2)).is_ok(), term >= promised);
        }
    }

    #[test]
    fn a_term_is_begun_only_by_the_attempt_that_recruited() {
        let (own, kept) = (member("a"), promise(attempt(3, 1)));
        let standing = |last_rule| Standing { member: &own, promise: Some(&kept), last_rule };
        assert_eq!(promote(standing(Some(id(2, 4))), attempt(3, 1)), Ok(()));
        assert_eq!(promote(standing(Some(id(3, 1))), attempt(3, 1)), Ok(()), "asked twice");
        assert!(matches!(promote(standing(None), attempt(3, 2)), Err(Refused::OtherAttempt { .. })));
        assert!(matches!(promote(standing(None), attempt(2, 1)), Err(Refused::Promised { .. })));
        assert!(matches!(promote(standing(None), attempt(4, 1)), Err(Refused::NotRecruited { .. })));
    }
}
