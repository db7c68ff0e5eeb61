//! Which rule, if any, this member may write as the opening marker of a start. Pure.
//!
//! * A new cluster: no rule yet, promised term 1, data of timeline 1.
//! * A refound cluster: the rule that was reserved for this incarnation, once its timeline is there.
//! * Resume in place: the newest rule names this member, and the promise is that rule's term.
//!
//! Everything else writes nothing, and the gate stays closed.

use holdfast_engine::engine::EngineStatus;
use holdfast_model::{Lsn, Member, Rule, RuleId, Term, Voter, VoterKind, Zone};

use super::Membership;

/// The rule to write, or none.
pub(super) fn rule(membership: &Membership, status: &EngineStatus, newest: Option<&Rule>) -> Option<Rule> {
    let promised =
        membership.promise.as_ref().filter(|promise| promise.member == membership.member)?.max_term;
    if promised != status.term {
        return None;
    }
    match (newest, &membership.opening) {
        (_, Some(opening)) if newest.is_none_or(|newest| newest.id < opening.id) => {
            (opening.id.term == promised && opening.primary == membership.member).then(|| opening.clone())
        }
        (None, _) => (promised == Term::FIRST).then(|| first(&membership.member, &membership.zone)),
        (Some(newest), _) => resumed(membership, status.flushed, newest, promised),
    }
}

/// Rule (1,1) of a new cluster: one voter, and nobody else whose ack could be needed.
#[must_use]
pub fn first(member: &Member, zone: &Zone) -> Rule {
    let voter = Voter { member: member.clone(), zone: zone.clone(), kind: VoterKind::Full };
    let id = RuleId { term: Term::FIRST, version: 1 };
    Rule { id, primary: member.clone(), voters: vec![voter], k: 0, previous: None, start: Lsn::ZERO }
}

/// The same reign goes on after a restart, under the next version.
fn resumed(membership: &Membership, flushed: Lsn, newest: &Rule, promised: Term) -> Option<Rule> {
    if newest.primary != membership.member || newest.id.term != promised {
        return None;
    }
    let id = RuleId { term: newest.id.term, version: newest.id.version.checked_add(1)? };
    Some(Rule { id, previous: Some(newest.id), start: flushed, ..newest.clone() })
}
