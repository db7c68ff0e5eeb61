//! U and E: what a set of recruited members proves about everybody else.
//!
//! Only members that the rule names, by node *and* incarnation, count on either side (I7). A zone that nobody named
//! is never "another zone", for whoever stands in it or looks at it.
//!
//! Invariants, each a test in `tests/layouts.rs`, exhaustive over all layouts of up to 7 voters in up to 4 zones:
//! * `a_revoked_set_meets_every_commit_quorum` (I4).
//! * `two_sets_that_can_both_establish_meet` (I2).
//! * `an_established_primary_can_be_acked_by_the_recruited_alone` (I5).

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule, Voter, VoterKind, Zone};
use serde::{Deserialize, Serialize};

/// U does not hold: outside the recruited set somebody can still be a primary whose commits are acked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{primary} was not recruited and may still serve, since {}", self.resolution())]
pub struct NotRevoked {
    /// A full voter that was not recruited.
    pub primary: Member,
    /// Voters of other zones that were not recruited either.
    pub ackers: Vec<Member>,
    /// How many acks a commit needs.
    pub k: u32,
}

impl NotRevoked {
    fn resolution(&self) -> String {
        let Self { primary, ackers, k } = self;
        let ackers = ackers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match k {
            0 => format!("it needs no ack: reach {primary}"),
            1 => format!("any of {ackers} can acknowledge its commits: reach {primary}, or all of those"),
            _ => format!(
                "any {k} of {ackers} can acknowledge its commits: reach {primary}, or all but {} of those",
                k - 1
            ),
        }
    }
}

/// E does not hold: nobody in the recruited set could have a commit acked by the others in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no full voter was recruited together with {k} voters of zones other than its own")]
pub struct NotEstablished {
    /// How many acks a commit needs.
    pub k: u32,
}

/// Whether an ack of `acker` counts for a primary in `home`.
pub(crate) fn counts_for(acker: &Voter, primary: &Member, home: &Zone) -> bool {
    acker.member != *primary && acker.zone.is_other_than(home)
}

/// U: for each full voter that was not recruited, fewer than k voters of other zones were not recruited either.
///
/// With k = 0 a primary needs nobody, so every full voter must be recruited. It does not matter who the primary is
/// believed to be: a promotion that was begun and not finished is covered as well. The weaker form that trusts in
/// knowing the primary is unsafe, and the model finds it so.
///
/// # Errors
/// [`NotRevoked`], for the first full voter that may still serve.
pub fn revoked(rule: &Rule, recruited: &BTreeSet<Member>) -> Result<(), NotRevoked> {
    let outside = || rule.voters.iter().filter(|voter| !recruited.contains(&voter.member));
    for primary in outside().filter(|voter| voter.kind == VoterKind::Full) {
        let ackers: Vec<Member> = outside()
            .filter(|voter| counts_for(voter, &primary.member, &primary.zone))
            .map(|voter| voter.member.clone())
            .collect();
        if u32::try_from(ackers.len()).unwrap_or(u32::MAX) >= rule.k {
            return Err(NotRevoked { primary: primary.member.clone(), ackers, k: rule.k });
        }
    }
    Ok(())
}

/// The members that E holds for: full voters recruited together with k voters of other zones.
pub fn candidates<'a>(
    rule: &'a Rule,
    recruited: &'a BTreeSet<Member>,
) -> impl Iterator<Item = &'a Voter> + 'a {
    let inside = || rule.voters.iter().filter(|voter| recruited.contains(&voter.member));
    let can_be_acked = move |candidate: &&Voter| {
        let ackers = inside().filter(|voter| counts_for(voter, &candidate.member, &candidate.zone)).count();
        u32::try_from(ackers).unwrap_or(u32::MAX) >= rule.k
    };
    inside().filter(|voter| voter.kind == VoterKind::Full).filter(can_be_acked)
}

/// E: the recruited set holds a full voter and k voters of zones other than its own.
///
/// # Errors
/// [`NotEstablished`].
pub fn can_establish(rule: &Rule, recruited: &BTreeSet<Member>) -> Result<(), NotEstablished> {
    candidates(rule, recruited).next().map(|_| ()).ok_or(NotEstablished { k: rule.k })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, rule, set};

    #[test]
    fn with_one_of_three_zones_lost_the_others_revoke_and_establish() {
        let rule = rule(1, &["a:x", "b:y", "c:z"]);
        assert_eq!(revoked(&rule, &set("b c")), Ok(()));
        assert_eq!(can_establish(&rule, &set("b c")), Ok(()));
        let err = revoked(&rule, &set("b")).unwrap_err();
        assert_eq!((&err.primary, &err.ackers[..]), (&member("a"), &[member("c")][..]));
        assert!(err.to_string().ends_with(&format!("reach {}, or all of those", member("a"))), "{err}");
    }

    #[test]
    fn alone_every_full_voter_must_be_recruited() {
        let rule = rule(0, &["a:x", "b:y"]);
        assert_eq!(revoked(&rule, &set("a")).unwrap_err().primary, member("b"));
        assert_eq!(revoked(&rule, &set("a b")), Ok(()));
    }

    #[test]
    fn another_incarnation_of_a_voter_is_not_that_voter() {
        let rule = rule(1, &["a:x", "b:y", "c:z"]);
        assert!(revoked(&rule, &set("b c#2")).is_err());
        assert!(can_establish(&rule, &set("b c#2")).is_err());
    }

    #[test]
    fn a_log_voter_acks_and_is_never_chosen() {
        let rule = rule(1, &["a:x", "b:y", "c:z:log"]);
        let recruited = set("b c");
        let candidates: Vec<_> = candidates(&rule, &recruited).map(|voter| &voter.member).collect();
        assert_eq!(candidates, [&member("b")]);
        assert!(can_establish(&rule, &set("a c")).is_ok());
        assert_eq!(revoked(&rule, &set("a b")), Ok(()), "a log voter alone serves nobody");
    }

    #[test]
    fn an_unknown_zone_is_no_other_zone() {
        let rule = rule(1, &["a:x", "b:unknown", "c:unknown"]);
        assert!(can_establish(&rule, &set("a b c")).is_err());
    }
}
