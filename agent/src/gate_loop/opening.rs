//! Which rule, if any, this member may write as the opening marker of a start. Pure.
//!
//! * A new cluster: no rule yet, promised term 1, data of timeline 1.
//! * A refound cluster: the rule that was reserved for this incarnation, once its timeline is there.
//! * Resume in place: the newest rule names this member, and the promise is that rule's term.
//! * Promotion: this member was promoted to the term that it promised, its timeline is there, and no rule of it yet. Terms in
//!   between of which the log holds something, and no rule, get theirs with it.
//!
//! A change that was under way stays in sight: see [`change::carrying`].
//!
//! Everything else writes nothing, and the gate stays closed.

use holdfast_engine::engine::EngineStatus;
use holdfast_model::{Member, Position, Rule, RuleId, Term, Voter, VoterKind, Zone};
use holdfast_replication::change;
use holdfast_replication::quorum::open_rules;
use holdfast_replication::resume::{self, Flushing};

use super::Membership;

/// The rule to write, and before it, in the same transaction, those that are missing; or none. `newest_first` are the
/// newest two in the log.
///
/// `reigns` are the terms after the newest rule's, up to the server's, with where each begins: asked for only when
/// [`is_promotion`].
pub(super) fn rules(
    membership: &Membership,
    status: &EngineStatus,
    newest_first: &[Rule],
    reigns: &[(Term, Position)],
) -> Option<(Vec<Rule>, Rule)> {
    let (newest, open) = (newest_first.first(), open_rules(newest_first));
    let promised =
        membership.promise.as_ref().filter(|promise| promise.member == membership.member)?.max_term;
    if promised != status.term {
        return None;
    }
    let mut rules = match (newest, &membership.opening) {
        (_, Some(opening)) if newest.is_none_or(|newest| newest.id < opening.id) => {
            let ours = opening.id.term == promised && opening.primary == membership.member;
            ours.then(|| vec![opening.clone()])?
        }
        (None, _) => (promised == Term::FIRST).then(|| {
            let start = status.flushed.origin();
            vec![first(&membership.member, &membership.zone, start)]
        })?,
        (Some(newest), _) if is_promotion(membership, status, newest) => {
            let mut rules = change::promoted_through(newest, &membership.member, reigns);
            let last = rules.pop().filter(|rule| rule.id.term == promised)?;
            rules.extend(change::carrying(open, last).ok()?);
            rules
        }
        (Some(newest), _) => change::carrying(open, resumed(membership, &status.flushed, newest)?).ok()?,
    };
    let last = rules.pop()?;
    Some((rules, last))
}

/// Whether the server was promoted to the term that this member promised and began, and has no rule of it yet.
pub(super) fn is_promotion(membership: &Membership, status: &EngineStatus, newest: &Rule) -> bool {
    membership.opening.is_none() && membership.reign == Some(status.term) && newest.id.term < status.term
}

/// Rule (1,1) of a new cluster: one voter, and nobody else whose ack could be needed. `start` is before any log.
#[must_use]
pub fn first(member: &Member, zone: &Zone, start: Position) -> Rule {
    let voter = Voter { member: member.clone(), zone: zone.clone(), kind: VoterKind::Full };
    let id = RuleId { term: Term::FIRST, version: 1 };
    Rule { id, primary: member.clone(), voters: vec![voter], k: 0, previous: None, start }
}

/// The same reign goes on after a restart, under the next version. What the engine ran with was rendered by this agent, and
/// `ALTER SYSTEM` cannot weaken what is pinned.
fn resumed(membership: &Membership, flushed: &Position, newest: &Rule) -> Option<Rule> {
    resume::may_resume(membership.promise.as_ref()?, newest, &membership.member, Flushing::Strong).ok()?;
    change::resumed(newest, flushed.clone()).ok()
}
