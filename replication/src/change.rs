//! How rules come about: a promotion changes the primary and nothing else; a primary changes its own rule, one voter or
//! k at a time, and resumes it after a restart. Only a promotion makes a term.
//!
//! Every change takes the same three steps, whatever it changes. (1) What satisfies the old and the new rule at once is put
//! in force, and is settled when a removed member's stream is gone and cannot come back, and every stream is younger
//! than a raised k. (2) The new rule's marker is written, and seen acked under that. (3) The new rule alone is put in
//! force. So a voter that is added acks nothing before the rule that names it is durable, and one that is removed acks
//! nothing after.
//!
//! Invariants, each a test below or in `tests/model`:
//! * `a_promotion_changes_nothing_but_the_primary` (I6).
//! * `a_reign_that_wrote_no_rule_gets_one_from_whoever_goes_on_from_it`.
//! * `a_change_that_was_never_acked_stays_in_sight` (I4).
//! * `a_change_is_in_force_only_after_its_marker_is_acked_under_both_rules` (I8).
//! * `a_change_that_would_stop_writes_is_refused` (I14).

use holdfast_model::{Member, Position, Rule, RuleId, Term, Voter, Zone};

use crate::quorum::AckQuorum;

/// What to change about a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Name another voter. It has caught up (see [`crate::catch_up`]).
    Add(Voter),
    /// Name one voter less.
    Remove(Member),
    /// How many voters of other zones must hold a commit.
    SetK(u32),
}

/// Why a rule is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only the primary changes the rule, so it stays in it.
    #[error("{0} is the primary: hand over with 'holdfast switchover' before removing it")]
    Primary(Member),
    /// Nobody of that name is a voter.
    #[error("{0} is not a voter")]
    NotAVoter(Member),
    /// Another incarnation of the node is a voter.
    #[error("node {} is a voter as {}: remove that one first", there.node, there)]
    NodeIsAVoter {
        /// The voter.
        there: Member,
    },
    /// The zone is not known, so its acks could never count.
    #[error("the zone of {0} is not known: set [node] zone")]
    ZoneUnknown(Member),
    /// A second voter of a zone makes failover need more members, and no commit safer.
    #[error(
        "zone {zone} has a voter, {there}: a second one would have to be reached by every failover; it stays an observer"
    )]
    ZoneTaken {
        /// The zone.
        zone: Zone,
        /// Its voter.
        there: Member,
    },
    /// Fewer ackers than acks.
    #[error(
        "that leaves {ackers} voters of other zones, and a commit needs {k}: add a voter first, or lower k"
    )]
    WritesWouldStop {
        /// Voters whose acks would count.
        ackers: u32,
        /// Acks that a commit would need.
        k: u32,
    },
    /// 2^32 versions in one term.
    #[error("versions of term {0} are used up: hand over to begin another term")]
    VersionsUsedUp(Term),
}

fn next_version(rule: &Rule) -> Result<RuleId, Refused> {
    let version = rule.id.version.checked_add(1).ok_or(Refused::VersionsUsedUp(rule.id.term))?;
    Ok(RuleId { term: rule.id.term, version })
}

/// The rule with which the chosen member begins `term`: the newest rule that was seen, under another primary.
#[must_use]
pub fn promoted(newest: &Rule, chosen: &Member, term: Term, start: Position) -> Rule {
    Rule {
        id: RuleId { term, version: 1 },
        primary: chosen.clone(),
        previous: Some(newest.id),
        start,
        ..newest.clone()
    }
}

/// The rules with which the chosen member begins the last of `reigns`, where its log went through the others without a rule
/// of theirs: somebody was promoted and was gone before its rule was in the log. Oldest first; each reign comes with where it
/// begins.
///
/// Nothing was acked in those, but log of theirs lies before the new rule. Whoever left the newest rule's term must be
/// compared with where *the log* left it, or a tail that goes on from there would look like a part of this log. So each of
/// them gets its rule now, from the one that goes on from it, and under its name: it is in the chain and never served.
#[must_use]
pub fn promoted_through(newest: &Rule, chosen: &Member, reigns: &[(Term, Position)]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (term, start) in reigns {
        rules.push(promoted(rules.last().unwrap_or(newest), chosen, *term, start.clone()));
    }
    rules
}

/// What is written where `next` is to follow on `open`, the newest rules of a log that may be open, newest first: `next`, which
/// says what the newest of them says, and before it what the other one says, unless U under the newest is U under that as well.
///
/// Whoever recruits takes the newest two rules of a log for open. Were `next` written alone over a change that nobody had acked
/// yet, those two would both be the change, and the rule that is really in force would be out of sight: members that it names
/// and the change does not could begin a reign that the next recruits never meet. The simulation found an acked write lost so.
///
/// # Errors
/// [`Refused::VersionsUsedUp`].
pub fn carrying(open: &[Rule], next: Rule) -> Result<Vec<Rule>, Refused> {
    match open {
        [newest, other] if !covers(newest, other) => {
            let first = Rule { k: other.k, voters: other.voters.clone(), ..next.clone() };
            let second = Rule { id: next_version(&next)?, previous: Some(next.id), ..next };
            Ok(vec![first, second])
        }
        _ => Ok(vec![next]),
    }
}

/// Whether U under `rule` is U under `other`: nobody is out of its sight, and no commit needs fewer acks.
fn covers(rule: &Rule, other: &Rule) -> bool {
    rule.k <= other.k && other.voters.iter().all(|voter| rule.voters.contains(voter))
}

/// The rule with which a primary goes on after a restart of its engine. See [`crate::resume`].
///
/// # Errors
/// [`Refused::VersionsUsedUp`].
pub fn resumed(newest: &Rule, start: Position) -> Result<Rule, Refused> {
    Ok(Rule { id: next_version(newest)?, previous: Some(newest.id), start, ..newest.clone() })
}

/// The rule after `change`.
///
/// # Errors
/// [`Refused`], and nothing is changed.
pub fn changed(current: &Rule, change: &Change, start: Position) -> Result<Rule, Refused> {
    let next = Rule { id: next_version(current)?, previous: Some(current.id), start, ..current.clone() };
    let next = match change {
        Change::Add(voter) => add(next, voter)?,
        Change::Remove(member) => remove(next, member)?,
        Change::SetK(k) => Rule { k: *k, ..next },
    };
    let quorum = AckQuorum::of(&next);
    if quorum.can_be_met() {
        Ok(next)
    } else {
        let ackers = u32::try_from(quorum.ackers.len()).unwrap_or(u32::MAX);
        Err(Refused::WritesWouldStop { ackers, k: next.k })
    }
}

fn add(mut rule: Rule, voter: &Voter) -> Result<Rule, Refused> {
    if voter.zone == Zone::Unknown {
        return Err(Refused::ZoneUnknown(voter.member.clone()));
    }
    if let Some(there) = rule.voters.iter().find(|there| there.member.node == voter.member.node) {
        return Err(Refused::NodeIsAVoter { there: there.member.clone() });
    }
    if let Some(there) = rule.voters.iter().find(|there| there.zone == voter.zone) {
        return Err(Refused::ZoneTaken { zone: voter.zone.clone(), there: there.member.clone() });
    }
    rule.voters.push(voter.clone());
    Ok(rule)
}

fn remove(mut rule: Rule, member: &Member) -> Result<Rule, Refused> {
    if rule.primary == *member {
        return Err(Refused::Primary(member.clone()));
    }
    let before = rule.voters.len();
    rule.voters.retain(|voter| voter.member != *member);
    if rule.voters.len() == before { Err(Refused::NotAVoter(member.clone())) } else { Ok(rule) }
}

/// A change under way: from a rule that is in force to the one that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underway {
    /// In force until now.
    pub from: Rule,
    /// In force afterwards.
    pub to: Rule,
}

/// What was seen of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What the engine waits for, every stream included: a removed member's stream is gone, and each stream that counts is
    /// younger than the setting. `None` while that is not proven.
    pub in_force: Option<&'a AckQuorum>,
    /// How far the new rule's marker is.
    pub marker: Marker,
}

/// How far the marker of a new rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// It is not written.
    Due,
    /// It is in the primary's log.
    Written,
    /// It was seen acked, under what is in force.
    Acked,
}

/// What to do next about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put this in force, and prove it.
    Enforce(AckQuorum),
    /// Write this rule and its marker.
    Write(Rule),
    /// Wait until the marker is seen acked.
    Wait,
    /// The new rule is in force.
    Done,
}

impl Underway {
    /// Level-triggered: what was seen decides, not what was done before.
    #[must_use]
    pub fn next(&self, seen: Seen<'_>) -> Step {
        let both = AckQuorum::of_open(&self.to, std::slice::from_ref(&self.from));
        let new = AckQuorum::of(&self.to);
        if seen.marker != Marker::Due && seen.in_force == Some(&new) && new != both {
            return Step::Done;
        }
        if seen.in_force != Some(&both) {
            return Step::Enforce(both);
        }
        match seen.marker {
            Marker::Due => Step::Write(self.to.clone()),
            Marker::Written => Step::Wait,
            Marker::Acked if new == both => Step::Done,
            Marker::Acked => Step::Enforce(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, member, rule, voter};
    use holdfast_model::Lsn;

    const START: Position = Position::Lsn(Lsn::from_offset(50));

    fn refused(of: &Rule, change: Change) -> Refused {
        changed(of, &change, START).unwrap_err()
    }

    #[test]
    fn a_promotion_changes_nothing_but_the_primary() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let new = promoted(&old, &member("b"), Term::new(7).unwrap(), START);
        assert_eq!((new.id, new.previous, new.start), (id(7, 1), Some(old.id), START));
        assert_eq!((&new.voters, new.k, &new.primary), (&old.voters, old.k, &member("b")));
    }

    #[test]
    fn a_reign_that_wrote_no_rule_gets_one_from_whoever_goes_on_from_it() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let at = |term, start| (Term::new(term).unwrap(), Lsn::from_offset(start).into());
        let rules = promoted_through(&old, &member("b"), &[at(4, 100), at(5, 200), at(7, 300)]);
        let said: Vec<_> =
            rules.iter().map(|rule| (rule.id, rule.previous.unwrap(), rule.start.ordinal())).collect();
        let [four, five, seven] = [4, 5, 7].map(|term| id(term, 1));
        assert_eq!(said, [(four, old.id, 100), (five, four, 200), (seven, five, 300)]);
        assert!(rules.iter().all(|rule| rule.primary == member("b") && rule.voters == old.voters));
        // A tail of the old term that is shorter than the whole log, and longer than where the log left that term.
        let held = |end| {
            let end = Lsn::from_offset(end).into();
            crate::chain::Held { rule: Some(old.id), reign: old.id.term, end }
        };
        let chain = [std::slice::from_ref(&old), &rules[..]].concat();
        assert!(crate::chain::may_follow(&held(250), &chain).is_err());
        assert!(crate::chain::may_follow(&held(100), &chain).is_ok());
    }

    #[test]
    fn a_change_that_was_never_acked_stays_in_sight() {
        let wide = rule(1, &["a:x", "b:y", "c:z", "d:w"]);
        let narrow = changed(&wide, &Change::Remove(member("d")), START).unwrap();
        // It writes the change, is restarted before anybody acks it, and goes on.
        let open = [narrow.clone(), wide.clone()];
        let written = carrying(&open, resumed(&narrow, START).unwrap()).unwrap();
        let said: Vec<_> = written.iter().map(|rule| (rule.id, rule.voters.len(), rule.previous)).collect();
        assert_eq!(said, [(id(1, 3), 4, Some(narrow.id)), (id(1, 4), 3, Some(id(1, 3)))]);
        // Meanwhile d reigns by the wide rule, and is acked by b: a and c must not be enough to begin another reign.
        let mut rules = written.clone();
        rules.reverse();
        let report = |name: &str, rules: &[Rule]| crate::choose::Report {
            member: member(name),
            rules: rules.to_vec(),
            position: 9,
            promised_before: None,
        };
        let attempt = crate::promise::Attempt { term: Term::new(4).unwrap(), id: 1 };
        let reports = vec![report("a", &rules), report("c", std::slice::from_ref(&wide))];
        let refused = crate::choose::choose(attempt, reports, &[]).unwrap_err();
        assert!(
            matches!(&refused, crate::choose::Refused::NotRevoked { rule, .. } if *rule == id(1, 3)),
            "{refused}"
        );
        // Where both say the same, or the newest one more, there is nothing to carry.
        let again = resumed(&written[1], START).unwrap();
        assert_eq!(carrying(&[written[1].clone(), narrow.clone()], again.clone()).unwrap(), [again]);
        let wider = resumed(&wide, START).unwrap();
        assert_eq!(carrying(&[wide.clone(), narrow.clone()], wider.clone()).unwrap(), [wider]);
        let stricter = Rule { k: 2, ..narrow.clone() };
        assert_eq!(carrying(&[stricter.clone(), narrow], stricter).unwrap().len(), 2);
    }

    #[test]
    fn a_lost_member_leaves_and_its_next_incarnation_comes_in() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let again = voter("c#2:z");
        assert!(matches!(refused(&old, Change::Add(again.clone())), Refused::NodeIsAVoter { .. }));
        let without = changed(&old, &Change::Remove(member("c")), START).unwrap();
        assert_eq!((without.id, without.voters.len()), (id(1, 2), 2));
        let with = changed(&without, &Change::Add(again), START).unwrap();
        assert_eq!((with.id, with.previous), (id(1, 3), Some(id(1, 2))));
    }

    #[test]
    fn a_change_that_would_stop_writes_is_refused() {
        let two = rule(1, &["a:x", "b:y"]);
        assert_eq!(refused(&two, Change::Remove(member("b"))), Refused::WritesWouldStop { ackers: 0, k: 1 });
        assert_eq!(refused(&two, Change::SetK(2)), Refused::WritesWouldStop { ackers: 1, k: 2 });
        assert!(changed(&two, &Change::SetK(0), START).is_ok());
    }

    #[test]
    fn who_cannot_help_is_not_added() {
        let old = rule(1, &["a:x", "b:y"]);
        assert!(matches!(refused(&old, Change::Add(voter("c:unknown"))), Refused::ZoneUnknown(_)));
        assert!(matches!(refused(&old, Change::Add(voter("c:y"))), Refused::ZoneTaken { .. }));
        assert!(matches!(refused(&old, Change::Remove(member("a"))), Refused::Primary(_)));
        assert!(matches!(refused(&old, Change::Remove(member("c"))), Refused::NotAVoter(_)));
    }

    /// Goes through a change as an engine would, and returns what was in force when the marker was acked.
    fn carry_out(change: &Underway) -> (AckQuorum, AckQuorum) {
        let (mut in_force, mut marker, mut at_ack) = (None, Marker::Due, None);
        loop {
            let seen = Seen { in_force: in_force.as_ref(), marker };
            match change.next(seen) {
                Step::Enforce(quorum) => in_force = Some(quorum),
                Step::Write(rule) => {
                    assert_eq!(rule, change.to);
                    marker = Marker::Written;
                }
                Step::Wait => {
                    at_ack = in_force.clone();
                    marker = Marker::Acked;
                }
                Step::Done => return (at_ack.unwrap(), in_force.unwrap()),
            }
        }
    }

    #[test]
    fn a_change_is_in_force_only_after_its_marker_is_acked_under_both_rules() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        for change in
            [Change::Add(voter("d:w")), Change::Remove(member("c")), Change::SetK(2), Change::SetK(0)]
        {
            let to = changed(&old, &change, START).unwrap();
            let both = AckQuorum::of_open(&to, std::slice::from_ref(&old));
            let change = Underway { from: old.clone(), to: to.clone() };
            assert_eq!(carry_out(&change), (both, AckQuorum::of(&to)));
        }
    }

    #[test]
    fn a_change_that_was_cut_off_goes_on_from_what_is() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let to = changed(&old, &Change::Add(voter("d:w")), START).unwrap();
        let change = Underway { from: old.clone(), to };
        let narrow = AckQuorum::of(&old);
        // After a restart nothing is proven to be in force, whatever was written.
        let next = change.next(Seen { in_force: None, marker: Marker::Acked });
        assert_eq!(next, Step::Enforce(narrow.clone()));
        let next = change.next(Seen { in_force: Some(&narrow), marker: Marker::Written });
        assert_eq!(next, Step::Wait);
    }
}
