//! Clusters for tests: one voter a zone, node `a` the primary.

use holdfast_model::{Incarnation, Lsn, Member, Rule, RuleId, Term, Voter, VoterKind};
use holdfast_replication::promise::Attempt;

pub(crate) const ATTEMPT: Attempt = Attempt { term: Term::FIRST.next().unwrap(), id: 7 };

pub(crate) fn member(node: &str) -> Member {
    Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) }
}

/// Rule (1,1) over nodes `a`, `b`, `c` ..., k = 1.
pub(crate) fn rule(voters: usize) -> Rule {
    let voter = |(at, node): (usize, &str)| Voter {
        member: member(node),
        zone: format!("z{at}").parse().unwrap(),
        kind: VoterKind::Full,
    };
    let voters = ["a", "b", "c", "d"].into_iter().take(voters).enumerate().map(voter).collect();
    let id = RuleId { term: Term::FIRST, version: 1 };
    Rule { id, primary: member("a"), voters, k: 1, previous: None, start: Lsn::ZERO.into() }
}
