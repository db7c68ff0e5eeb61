//! Whose acks a commit needs: what the primary's engine waits for, and what the agent takes for acked.
//!
//! A COMMIT that returned is not an ack: the agent's own marker is written without waiting, and a setting can be
//! changed under a waiter. What counts is the flush position at which named members were *seen*.
//!
//! Two rules can be open at once: the newest in a log and its predecessor, as long as no marker was seen acked since the
//! start or the promotion, and while a change is under way. Then only what satisfies all of them counts.
//!
//! Invariants, each a test below:
//! * `what_satisfies_open_rules_satisfies_each`.
//! * `alone_the_local_flush_is_the_ack`.
//! * `members_that_the_rule_does_not_name_never_count` (I7).
//! * `the_acked_position_is_the_kth_highest_and_never_past_the_local_flush`.
//! * `what_is_held_is_what_is_acked`.
//! * `ackers_that_are_past_it_in_different_ways_all_count`.
//! * `a_refounded_rule_asks_nobody_who_is_lost`.

use std::collections::BTreeSet;

use holdfast_model::{Member, Rule};
use serde::{Deserialize, Serialize};

/// The rules of a log, newest first, that may be open: the newest, and its predecessor until the newest's marker was seen
/// acked. A refounding is the one exception: it begins with a rule that changes more than the primary, and whoever could have
/// acked under the rules before it is lost.
#[must_use]
pub fn open_rules(newest_first: &[Rule]) -> &[Rule] {
    match newest_first {
        [newest, before, ..] if newest.id.term == before.id.term || is_promotion(newest, before) => {
            &newest_first[..2]
        }
        [_, ..] => &newest_first[..1],
        [] => &[],
    }
}

/// Only a promotion makes a term and keeps the rest of the rule ([`crate::change`]).
fn is_promotion(newest: &Rule, before: &Rule) -> bool {
    newest.k == before.k && newest.voters == before.voters
}

/// `k` of `ackers` must hold a commit, beside its primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckQuorum {
    /// How many. With 0 the primary's own flush is enough.
    pub k: u32,
    /// Who may. Fewer than `k` mean that commits wait.
    pub ackers: BTreeSet<Member>,
}

impl AckQuorum {
    /// What `rule` asks for.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        Self { k: rule.k, ackers: rule.ackers().map(|voter| voter.member.clone()).collect() }
    }

    /// What satisfies `newest` and every rule of `open` at once.
    ///
    /// Under a predecessor the primary of `newest` may have been an acker. It holds what it writes itself, and that copy
    /// is one of the k + 1 that a commit needs either way, so each rule is asked as if it had named this primary.
    #[must_use]
    pub fn of_open(newest: &Rule, open: &[Rule]) -> Self {
        open.iter().fold(Self::of(newest), |quorum, rule| {
            quorum.and(Self::of(&Rule { primary: newest.primary.clone(), ..rule.clone() }))
        })
    }

    fn and(self, other: Self) -> Self {
        if self.k == 0 {
            return other;
        }
        if other.k == 0 {
            return self;
        }
        Self { k: self.k.max(other.k), ackers: self.ackers.intersection(&other.ackers).cloned().collect() }
    }

    /// Whether anybody could ever satisfy it.
    #[must_use]
    pub fn can_be_met(&self) -> bool {
        u32::try_from(self.ackers.len()).unwrap_or(u32::MAX) >= self.k
    }

    /// Everything up to here is held by the primary, which has flushed up to `local`, and by `k` of the ackers, each of
    /// which was `seen` to have flushed so far; `None` while fewer are attached.
    #[must_use]
    pub fn acked<P: Ord + Copy>(&self, local: P, seen: impl FnMut(&Member) -> Option<P>) -> Option<P> {
        if self.k == 0 {
            return Some(local);
        }
        let mut positions: Vec<P> = self.ackers.iter().filter_map(seen).collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        let kth = usize::try_from(self.k).unwrap_or(usize::MAX).checked_sub(1)?;
        positions.get(kth).map(|position| (*position).min(local))
    }

    /// Whether everything up to `target` is held by the primary, which has flushed up to `local`, and by `k` of the ackers,
    /// each of which was `seen` to have flushed so far. What two of them hold need not compare, which [`Self::acked`] needs.
    #[must_use]
    pub fn holds<P: PartialOrd>(&self, target: P, local: P, seen: impl FnMut(&Member) -> Option<P>) -> bool {
        let past = self.ackers.iter().filter_map(seen).filter(|position| *position >= target).count();
        local >= target && u32::try_from(past).unwrap_or(u32::MAX) >= self.k
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::{member, rule, set};
    use holdfast_model::GtidSet;
    use proptest::prelude::*;

    /// What `quorum` has acked when these were seen, and the primary is at `local`.
    fn acked(quorum: &AckQuorum, local: u64, standbys: &[(&str, u64)]) -> Option<u64> {
        let seen: BTreeMap<Member, u64> = standbys.iter().map(|(name, at)| (member(name), *at)).collect();
        quorum.acked(local, |member| seen.get(member).copied())
    }

    #[test]
    fn alone_the_local_flush_is_the_ack() {
        let quorum = AckQuorum::of(&rule(0, &["a:x", "b:y"]));
        assert_eq!(acked(&quorum, 100, &[]), Some(100));
    }

    #[test]
    fn members_that_the_rule_does_not_name_never_count() {
        let quorum = AckQuorum::of(&rule(1, &["a:x", "b:y", "c:x"]));
        // Another incarnation, a voter of the primary's own zone, and a stranger.
        assert_eq!(acked(&quorum, 100, &[("b#2", 100), ("c", 100), ("e", 100)]), None);
    }

    #[test]
    fn a_promoted_primary_asks_the_voters_that_both_rules_name() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let new = Rule { primary: member("b"), ..old.clone() };
        assert_eq!(
            AckQuorum::of_open(&new, std::slice::from_ref(&old)),
            AckQuorum { k: 1, ackers: set("a c") }
        );
    }

    #[test]
    fn a_raised_k_and_a_removed_voter_both_count_before_the_marker_is_acked() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let wider = rule(1, &["a:x", "b:y", "c:z", "d:w"]);
        let stricter = rule(2, &["a:x", "b:y", "c:z"]);
        assert_eq!(AckQuorum::of_open(&wider, std::slice::from_ref(&old)), AckQuorum::of(&old));
        assert_eq!(AckQuorum::of_open(&old, &[wider]), AckQuorum::of(&old));
        assert_eq!(AckQuorum::of_open(&stricter, std::slice::from_ref(&old)), AckQuorum::of(&stricter));
        assert_eq!(AckQuorum::of_open(&old, std::slice::from_ref(&stricter)), AckQuorum::of(&stricter));
        assert_eq!(
            AckQuorum::of_open(&rule(0, &["a:x", "b:y"]), std::slice::from_ref(&old)),
            AckQuorum::of(&old)
        );
    }

    #[test]
    fn a_refounded_rule_asks_nobody_who_is_lost() {
        let numbered = |term, version, rule: Rule| {
            let id = holdfast_model::RuleId { term: holdfast_model::Term::new(term).unwrap(), version };
            Rule { id, ..rule }
        };
        let old = numbered(1, 4, rule(1, &["a:x", "b:y", "c:z"]));
        let promoted = numbered(2, 1, Rule { primary: member("b"), ..old.clone() });
        let changed = numbered(2, 2, rule(1, &["a:x", "b:y"]));
        let refounded = numbered(3, 1, rule(0, &["a:x"]));
        let resumed = numbered(3, 2, rule(0, &["a:x"]));
        let newest_first = [resumed, refounded, changed, promoted, old];
        let open = |from: usize| open_rules(&newest_first[from..]).len();
        assert_eq!([0, 1, 2, 3, 4, 5].map(open), [2, 1, 2, 2, 1, 0]);
    }

    #[test]
    fn ackers_that_are_past_it_in_different_ways_all_count() {
        let set = |tail: &str| -> GtidSet {
            format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5{tail}").parse().unwrap()
        };
        let quorum = AckQuorum::of(&rule(2, &["a:x", "b:y", "c:z"]));
        let seen = BTreeMap::from([(member("b"), set(":7")), (member("c"), set(":8-9"))]);
        let holds = |target: &GtidSet| quorum.holds(target, &set(":7-9"), |member| seen.get(member));
        assert_eq!(seen[&member("b")].partial_cmp(&seen[&member("c")]), None);
        assert!(holds(&set("")));
        assert!(!holds(&set(":7")), "only one of two");
        assert!(!holds(&set(":10")));
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_is_acked(
            k in 0..4_u32,
            target in 0..6_u64,
            local in 0..6_u64,
            b in proptest::option::of(0..6_u64),
            c in proptest::option::of(0..6_u64),
        ) {
            let quorum = AckQuorum::of(&rule(k, &["a:x", "b:y", "c:z"]));
            let seen = |name: &Member| if *name == member("b") { b } else { c };
            let acked = quorum.acked(local, seen).is_some_and(|acked| acked >= target);
            prop_assert_eq!(quorum.holds(target, local, seen), acked);
        }

        #[test]
        fn the_acked_position_is_the_kth_highest_and_never_past_the_local_flush(local: u32, b: u32, c: u32) {
            let (local, b, c) = (u64::from(local), u64::from(b), u64::from(c));
            let at = |k| acked(&AckQuorum::of(&rule(k, &["a:x", "b:y", "c:z"])), local, &[("b", b), ("c", c)]);
            prop_assert_eq!(at(1), Some(b.max(c).min(local)));
            prop_assert_eq!(at(2), Some(b.min(c).min(local)));
            prop_assert_eq!(at(3), None);
        }

        #[test]
        fn what_satisfies_open_rules_satisfies_each(
            k in (0..3_u32, 0..3_u32),
            in_new in proptest::collection::vec(any::<bool>(), 4),
            in_old in proptest::collection::vec(any::<bool>(), 4),
            flushed in proptest::collection::vec(proptest::option::of(0..5_u64), 4),
        ) {
            let names = ["b:y", "c:z", "d:w", "e:v"];
            let voters = |chosen: &[bool]| {
                let others = names.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(name, _)| *name);
                std::iter::once("a:x").chain(others).collect::<Vec<_>>()
            };
            let (new, old) = (rule(k.0, &voters(&in_new)), rule(k.1, &voters(&in_old)));
            let standbys: Vec<(&str, u64)> =
                names.iter().zip(&flushed).filter_map(|(name, at)| at.map(|at| (&name[..1], at))).collect();
            let under = |quorum: &AckQuorum| acked(quorum, 9, &standbys);
            if let Some(both) = under(&AckQuorum::of_open(&new, std::slice::from_ref(&old))) {
                prop_assert!(under(&AckQuorum::of(&new)).is_some_and(|at| at >= both));
                prop_assert!(under(&AckQuorum::of(&old)).is_some_and(|at| at >= both));
            }
        }
    }
}
