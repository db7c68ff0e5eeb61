//! Whether a server whose engine crashed goes on as the primary in place: crash recovery on the same timeline behind a
//! closed gate, then a fresh marker with a raised version, open when that is seen acked.
//!
//! It is as safe as an election if nobody can have been elected who counted on this server's log as it was: the promise is
//! still that of its own reign, its own last rule says that it reigns, and nothing that it acked or wrote can have been lost
//! by weak settings. Otherwise it starts as a standby, and asks nobody's leave but a new primary's.
//!
//! Invariants, each a test below:
//! * `only_the_primary_of_its_own_promise_resumes`.
//! * `every_reason_against_is_told`.

use holdfast_model::{Member, Promise, Rule, RuleId, Term};

/// With which settings the engine ran, as the agent noted them when it started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushing {
    /// `fsync`, `full_page_writes` and `data_sync_retry` as the agent pins them.
    Strong,
    /// Anything else, or unknown.
    Weak,
}

/// One reason why a server does not resume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotResumed {
    /// It has promised a higher term: somebody else may reign.
    #[error("term {promised} is promised, the last rule in the log is {newest}")]
    Promised {
        /// What it promised.
        promised: Term,
        /// Its own last rule.
        newest: RuleId,
    },
    /// The promise is older than the log: it is not of this data.
    #[error("term {promised} is promised, below the last rule in the log, {newest}")]
    PromiseTooOld {
        /// What it promised.
        promised: Term,
        /// Its own last rule.
        newest: RuleId,
    },
    /// Another member made the promise.
    #[error("the promise is of {0}")]
    OthersPromise(Member),
    /// Another member reigns, by its own log.
    #[error("rule {newest} names {primary} as primary")]
    NotPrimary {
        /// Its own last rule.
        newest: RuleId,
        /// Whom that names.
        primary: Member,
    },
    /// What it wrote may be lost.
    #[error("the engine ran with weak fsync settings: what it acked may be lost")]
    Weak,
}

/// Whether `member` may resume in place.
///
/// # Errors
/// Every reason against it.
pub fn may_resume(
    promise: &Promise,
    newest: &Rule,
    member: &Member,
    flushing: Flushing,
) -> Result<(), Vec<NotResumed>> {
    let mut against = Vec::new();
    let (promised, newest_id) = (promise.max_term, newest.id);
    match promised.cmp(&newest_id.term) {
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => against.push(NotResumed::Promised { promised, newest: newest_id }),
        std::cmp::Ordering::Less => against.push(NotResumed::PromiseTooOld { promised, newest: newest_id }),
    }
    if promise.member != *member {
        against.push(NotResumed::OthersPromise(promise.member.clone()));
    }
    if newest.primary != *member {
        against.push(NotResumed::NotPrimary { newest: newest_id, primary: newest.primary.clone() });
    }
    match flushing {
        Flushing::Strong => {}
        Flushing::Weak => against.push(NotResumed::Weak),
    }
    if against.is_empty() { Ok(()) } else { Err(against) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, member};
    use holdfast_model::ClusterId;

    fn rule(term: u32, primary: &Member) -> Rule {
        let primary = primary.clone();
        Rule { id: id(term, 2), primary, ..crate::testing::rule(1, &["n1:x", "n2:y"]) }
    }

    fn promise(term: u32, member: &Member) -> Promise {
        let cluster = ClusterId::new("orders".parse().unwrap(), 1);
        Promise { cluster, member: member.clone(), max_term: Term::new(term).unwrap(), attempt: 1 }
    }

    #[test]
    fn only_the_primary_of_its_own_promise_resumes() {
        let (own, other) = (member("n1"), member("n2"));
        let may = |promise: &Promise, rule: &Rule| may_resume(promise, rule, &own, Flushing::Strong).is_ok();
        assert!(may(&promise(5, &own), &rule(5, &own)));
        assert!(!may(&promise(6, &own), &rule(5, &own)));
        assert!(!may(&promise(4, &own), &rule(5, &own)));
        assert!(!may(&promise(5, &own), &rule(5, &other)));
        // The same node with the disk before this one.
        assert!(!may(&promise(5, &own), &rule(5, &member("n1#2"))));
        assert!(!may(&promise(5, &member("n1#2")), &rule(5, &own)));
    }

    #[test]
    fn every_reason_against_is_told() {
        let (own, other) = (member("n1"), member("n2"));
        let against = may_resume(&promise(6, &other), &rule(5, &other), &own, Flushing::Weak).unwrap_err();
        assert_eq!(against.len(), 4, "{against:?}");
        assert_eq!(against[0].to_string(), "term 6 is promised, the last rule in the log is (5,2)");
    }
}
