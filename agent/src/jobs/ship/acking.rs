//! How far log is acked while the rule changes under way: by what satisfies every rule that may be open, until the newest
//! one's marker was seen acked under all of them; from then on by the newest alone. Open is every rule since the last that was seen
//! acked: a primary that was restarted says its newest rule again, and the one that is in force is then neither of the newest two.
//!
//! Invariants, each a test below:
//! * `a_changed_rule_counts_alone_only_when_its_marker_is_acked`.
//! * `another_change_opens_the_rule_before_it_again`.
//! * `a_rule_that_is_said_again_does_not_hide_the_one_in_force`.

use holdfast_engine::flushed::Flushed;
use holdfast_model::{Lsn, Rule, RuleId};
use holdfast_replication::quorum::{AckQuorum, open_rules};

/// What is known of the newest rule.
#[derive(Debug, Default)]
pub(super) struct Acking {
    /// A position behind its marker.
    behind_marker: Option<(RuleId, Lsn)>,
    /// It was seen acked.
    settled: Option<RuleId>,
    /// Every rule that may be open, newest first.
    open: Vec<Rule>,
}

impl Acking {
    /// Up to where log is acked. `rules`, newest first, were read before `flushed` was: so what is flushed here is behind the
    /// marker of each of them, since a rule is seen when it is committed and its commit is flushed first.
    pub(super) fn see(&mut self, rules: &[Rule], flushed: &Flushed<Lsn>) -> Option<Lsn> {
        let newest = rules.first()?;
        for rule in open_rules(rules).iter().rev() {
            if self.open.first().is_none_or(|known| known.id < rule.id) {
                self.open.insert(0, rule.clone());
            }
        }
        if self.settled == Some(newest.id) {
            return flushed.acked(&AckQuorum::of(newest));
        }
        let behind = match self.behind_marker {
            Some((id, behind)) if id == newest.id => behind,
            Some(_) | None => flushed.local,
        };
        self.behind_marker = Some((newest.id, behind));
        let acked = flushed.acked(&AckQuorum::of_open(newest, &self.open))?;
        if acked >= behind {
            self.settled = Some(newest.id);
            self.open.truncate(1);
        }
        Some(acked)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{Incarnation, Member, Term, Voter, VoterKind};

    use super::*;

    fn member(node: &str) -> Member {
        Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) }
    }

    /// Version `version` of n1's first reign, with `k` = 1 and these voters beside it, each in a zone of its own.
    fn rule(version: u32, others: &[&str]) -> Rule {
        let voter = |node: &&str| {
            let zone = format!("zone-{node}").parse().unwrap();
            Voter { member: member(node), zone, kind: VoterKind::Full }
        };
        let id = |version| RuleId { term: Term::FIRST, version };
        Rule {
            id: id(version),
            primary: member("n1"),
            voters: ["n1"].iter().chain(others).map(voter).collect(),
            k: 1,
            previous: (version > 1).then(|| id(version - 1)),
            start: Lsn::ZERO.into(),
        }
    }

    fn flushed(local: u64, standbys: &[(&str, u64)]) -> Flushed<Lsn> {
        let standbys = standbys.iter().map(|(node, at)| (member(node), Lsn::from_offset(*at))).collect();
        Flushed { local: Lsn::from_offset(local), standbys }
    }

    fn acked(acking: &mut Acking, rules: &[Rule], flushed: &Flushed<Lsn>) -> Option<u64> {
        acking.see(rules, flushed).map(Lsn::offset)
    }

    #[test]
    fn a_changed_rule_counts_alone_only_when_its_marker_is_acked() {
        let rules = [rule(2, &["n2", "n3"]), rule(1, &["n2"])];
        let mut acking = Acking::default();
        let seen = acked(&mut acking, &rules, &flushed(100, &[("n2", 80), ("n3", 100)]));
        assert_eq!(seen, Some(80), "n3 does not count yet");
        let seen = acked(&mut acking, &rules, &flushed(200, &[("n2", 90), ("n3", 200)]));
        assert_eq!(seen, Some(90), "and the marker is not asked for anew");
        assert_eq!(acked(&mut acking, &rules, &flushed(200, &[("n3", 200)])), None);
        assert_eq!(acked(&mut acking, &rules, &flushed(300, &[("n2", 100), ("n3", 250)])), Some(100));
        assert_eq!(
            acked(&mut acking, &rules, &flushed(400, &[("n3", 400)])),
            Some(400),
            "n2 may be lost now"
        );
    }

    #[test]
    fn a_rule_that_is_said_again_does_not_hide_the_one_in_force() {
        let mut acking = Acking::default();
        let n2 = |at| flushed(at, &[("n2", at)]);
        assert_eq!(acked(&mut acking, &[rule(1, &["n2"])], &n2(100)), Some(100));
        let widened = [rule(2, &["n2", "n3"]), rule(1, &["n2"])];
        let by_n3 = flushed(200, &[("n3", 200)]);
        assert_eq!(acked(&mut acking, &widened, &by_n3), None);
        // Restarted before anybody had acked that.
        let again = [rule(3, &["n2", "n3"]), rule(2, &["n2", "n3"])];
        assert_eq!(acked(&mut acking, &again, &by_n3), None, "n2 alone counts by the rule in force");
        assert_eq!(acked(&mut acking, &again, &n2(300)), Some(300));
        assert_eq!(acked(&mut acking, &again, &flushed(400, &[("n3", 400)])), Some(400));
    }

    #[test]
    fn another_change_opens_the_rule_before_it_again() {
        let mut acking = Acking::default();
        let before = [rule(2, &["n2", "n3"]), rule(1, &["n2"])];
        acked(&mut acking, &before, &flushed(100, &[("n2", 100), ("n3", 100)]));
        let after = [rule(3, &["n2"]), rule(2, &["n2", "n3"])];
        let seen = acked(&mut acking, &after, &flushed(200, &[("n2", 150), ("n3", 200)]));
        assert_eq!(seen, Some(150), "n3 is named no more");
        assert_eq!(acked(&mut acking, &after, &flushed(200, &[("n3", 200)])), None);
        assert_eq!(acked(&mut acking, &[], &flushed(200, &[("n2", 200)])), None, "no rule, no acks");
    }
}
