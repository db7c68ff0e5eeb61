//! When a position counts as acked under a rule. The same code answers for one node and for three zones.
//!
//! A COMMIT that returned is not an ack: the agent's own marker is written without waiting, and a setting can be
//! changed under a waiter. What counts is the flush position that named members were *seen* at.
//!
//! Invariants, each a test below:
//! * `alone_the_local_flush_is_the_ack`.
//! * `members_that_the_rule_does_not_name_never_count`.
//! * `the_acked_position_is_the_kth_highest_and_never_past_the_local_flush`.

use std::collections::BTreeMap;

use holdfast_model::{Lsn, Member, Rule};

/// Flush positions as the primary sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// The primary's own.
    pub local: Lsn,
    /// Of each attached standby, by the member that its login proves.
    pub standbys: BTreeMap<Member, Lsn>,
}

impl Flushed {
    /// A primary with nobody attached.
    #[must_use]
    pub const fn alone(local: Lsn) -> Self {
        Self { local, standbys: BTreeMap::new() }
    }
}

/// Everything up to here is held by the primary and by `k` voters of other zones; `None` while fewer are attached.
#[must_use]
pub fn acked_position(rule: &Rule, flushed: &Flushed) -> Option<Lsn> {
    if rule.k == 0 {
        return Some(flushed.local);
    }
    let mut positions: Vec<Lsn> =
        rule.ackers().filter_map(|voter| flushed.standbys.get(&voter.member).copied()).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    let kth = usize::try_from(rule.k).unwrap_or(usize::MAX).checked_sub(1)?;
    positions.get(kth).map(|position| (*position).min(flushed.local))
}

/// Whether the marker that ends at `marker` is acked under `rule`.
#[must_use]
pub fn is_acked(rule: &Rule, marker: Lsn, flushed: &Flushed) -> bool {
    acked_position(rule, flushed).is_some_and(|acked| acked >= marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, RuleId, Term, Voter, VoterKind};
    use proptest::prelude::*;

    fn member(node: &str, incarnation: u128) -> Member {
        Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(incarnation) }
    }

    fn rule(k: u32) -> Rule {
        let voter = |node: &str, zone: &str| Voter {
            member: member(node, 1),
            zone: zone.parse().unwrap(),
            kind: VoterKind::Full,
        };
        Rule {
            id: RuleId { term: Term::FIRST, version: 1 },
            primary: member("a", 1),
            voters: vec![voter("a", "x"), voter("b", "y"), voter("c", "z"), voter("d", "x")],
            k,
            previous: None,
            start: Lsn::ZERO,
        }
    }

    fn flushed(local: u64, standbys: &[(&str, u128, u64)]) -> Flushed {
        let standbys =
            standbys.iter().map(|(node, id, at)| (member(node, *id), Lsn::from_offset(*at))).collect();
        Flushed { local: Lsn::from_offset(local), standbys }
    }

    #[test]
    fn alone_the_local_flush_is_the_ack() {
        assert_eq!(acked_position(&rule(0), &flushed(100, &[])), Some(Lsn::from_offset(100)));
        assert!(!is_acked(&rule(0), Lsn::from_offset(101), &flushed(100, &[])));
    }

    #[test]
    fn members_that_the_rule_does_not_name_never_count() {
        // An old incarnation, a voter of the primary's own zone, and a stranger.
        let seen = flushed(100, &[("b", 2, 100), ("d", 1, 100), ("e", 1, 100)]);
        assert_eq!(acked_position(&rule(1), &seen), None);
    }

    proptest! {
        #[test]
        fn the_acked_position_is_the_kth_highest_and_never_past_the_local_flush(local: u32, b: u32, c: u32) {
            let (local, b, c) = (u64::from(local), u64::from(b), u64::from(c));
            let seen = flushed(local, &[("b", 1, b), ("c", 1, c)]);
            let at = |k| acked_position(&rule(k), &seen).map(Lsn::offset);
            prop_assert_eq!(at(1), Some(b.max(c).min(local)));
            prop_assert_eq!(at(2), Some(b.min(c).min(local)));
            prop_assert_eq!(at(3), None);
        }
    }
}
