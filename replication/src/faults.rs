//! What the next loss would do: for `explain`, which has to say so before it happens.
//!
//! Invariants, each a test below:
//! * `three_zones_bear_any_one_loss_and_no_two`.
//! * `a_lost_voter_that_the_rule_still_names_makes_the_next_loss_stop_writes`.

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule};

use crate::coverage::{self, NotEstablished, NotRevoked};
use crate::quorum::AckQuorum;

/// What happens to writes when only some voters live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// The primary lives and is acked.
    WritesGoOn,
    /// Another primary can be promoted, and is acked.
    FailsOver,
    /// Writes stop, since nobody may be promoted: somebody may still be serving.
    NotRevoked(NotRevoked),
    /// Writes stop, since nobody who is left could be acked.
    NotEstablished(NotEstablished),
}

impl Outlook {
    /// Whether clients can write, at once or after a failover.
    #[must_use]
    pub const fn serves(&self) -> bool {
        match self {
            Self::WritesGoOn | Self::FailsOver => true,
            Self::NotRevoked(_) | Self::NotEstablished(_) => false,
        }
    }
}

/// What happens when exactly these members live.
#[must_use]
pub fn outlook(rule: &Rule, live: &BTreeSet<Member>) -> Outlook {
    let acked = AckQuorum::of(rule);
    let ackers = AckQuorum { ackers: acked.ackers.intersection(live).cloned().collect(), ..acked };
    if live.contains(&rule.primary) && ackers.can_be_met() {
        return Outlook::WritesGoOn;
    }
    match (coverage::revoked(rule, live), coverage::can_establish(rule, live)) {
        (Err(missing), _) => Outlook::NotRevoked(missing),
        (Ok(()), Err(missing)) => Outlook::NotEstablished(missing),
        (Ok(()), Ok(())) => Outlook::FailsOver,
    }
}

/// The losses of one or two more voters that would stop writes. A pair is left out when one of it does so alone.
#[must_use]
pub fn that_stop_writes(rule: &Rule, live: &BTreeSet<Member>) -> Vec<(Vec<Member>, Outlook)> {
    let voters: Vec<&Member> =
        rule.voters.iter().map(|voter| &voter.member).filter(|member| live.contains(member)).collect();
    let without = |lost: &[&Member]| {
        let left = live.iter().filter(|member| !lost.contains(member)).cloned().collect();
        outlook(rule, &left)
    };
    let (mut found, mut alone) = (Vec::new(), BTreeSet::new());
    for one in &voters {
        let then = without(&[one]);
        if !then.serves() {
            alone.insert(*one);
            found.push((vec![(*one).clone()], then));
        }
    }
    for (at, one) in voters.iter().enumerate() {
        for other in &voters[at + 1..] {
            if alone.contains(one) || alone.contains(other) {
                continue;
            }
            let then = without(&[one, other]);
            if !then.serves() {
                found.push((vec![(*one).clone(), (*other).clone()], then));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, rule, set};

    #[test]
    fn three_zones_bear_any_one_loss_and_no_two() {
        let rule = rule(1, &["a:x", "b:y", "c:z"]);
        let found = that_stop_writes(&rule, &set("a b c"));
        assert!(found.iter().all(|(lost, _)| lost.len() == 2), "{found:?}");
        assert_eq!(found.len(), 3);
        assert_eq!(outlook(&rule, &set("a c")), Outlook::WritesGoOn);
        assert_eq!(outlook(&rule, &set("b c")), Outlook::FailsOver);
    }

    #[test]
    fn a_lost_voter_that_the_rule_still_names_makes_the_next_loss_stop_writes() {
        let named = rule(1, &["a:x", "b:y", "c:z"]);
        let lost: Vec<_> = that_stop_writes(&named, &set("a b")).into_iter().map(|(lost, _)| lost).collect();
        assert_eq!(lost, [vec![member("a")], vec![member("b")]]);
        assert!(matches!(outlook(&named, &set("b")), Outlook::NotRevoked(_)));
        // Removed, the loss of the primary would still leave nobody to be acked by.
        assert!(matches!(outlook(&rule(1, &["a:x", "b:y"]), &set("b")), Outlook::NotEstablished(_)));
    }
}
