//! Short names for the tests of this crate: `"b"` is node `b`'s first incarnation, `"b#2"` its second; `"b:y"` puts it
//! into zone `y`, and `"b:y:log"` makes it a log voter.

use std::collections::BTreeSet;

use holdfast_model::{Incarnation, Lsn, Member, Rule, RuleId, Term, Voter, VoterKind};

pub(crate) fn member(name: &str) -> Member {
    let (node, incarnation) = name.split_once('#').unwrap_or((name, "1"));
    let incarnation = Incarnation::from_random(incarnation.parse().unwrap());
    Member { node: node.parse().unwrap(), incarnation }
}

pub(crate) fn set(names: &str) -> BTreeSet<Member> {
    names.split_whitespace().map(member).collect()
}

pub(crate) fn voter(text: &str) -> Voter {
    let mut parts = text.split(':');
    let member = member(parts.next().unwrap());
    let zone = parts.next().unwrap().parse().unwrap();
    let kind = if parts.next().is_some() { VoterKind::Log } else { VoterKind::Full };
    Voter { member, zone, kind }
}

pub(crate) fn id(term: u32, version: u32) -> RuleId {
    RuleId { term: Term::new(term).unwrap(), version }
}

/// Rule (1,1) over these voters; the first is the primary.
pub(crate) fn rule(k: u32, voters: &[&str]) -> Rule {
    let voters: Vec<Voter> = voters.iter().map(|text| voter(text)).collect();
    Rule {
        id: id(1, 1),
        primary: voters[0].member.clone(),
        voters,
        k,
        previous: None,
        start: Lsn::ZERO.into(),
    }
}
