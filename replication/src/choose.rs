//! Which recruited member becomes the primary, or why none may.
//!
//! The most advanced by (last rule in its log, position) wins, never the longest log: a deposed primary's tail can be
//! longer than everything that was acked since. Positions may be only partly ordered (GTID sets are): histories that do
//! not compare are refused, never guessed at.
//!
//! A promotion changes the primary and nothing else. Zones only break ties.
//!
//! Invariants, each a test below or in `tests/model`:
//! * `the_newer_rule_wins_over_the_longer_log` (I6).
//! * `incomparable_histories_are_refused` (I6).
//! * `nobody_is_chosen_without_u_over_both_open_rules` (I4).
//! * `every_refusal_names_what_is_missing` (I14).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use holdfast_model::{Member, Rule, RuleId, Term, Voter, Zone};
use serde::{Deserialize, Serialize};

use crate::coverage::{self, NotEstablished, NotRevoked};
use crate::promise::Attempt;

/// What a recruited member answered, after it had promised and had stopped receiving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report<P> {
    /// Who.
    pub member: Member,
    /// The newest rule in its log and that rule's predecessor, newest first; empty when there is none.
    pub rules: Vec<Rule>,
    /// Where its log ends, everything applied.
    pub position: P,
    /// The term that it had promised before this recruit.
    pub promised_before: Option<Term>,
}

impl<P: PartialOrd> Report<P> {
    fn last_rule(&self) -> Option<RuleId> {
        self.rules.first().map(|rule| rule.id)
    }

    /// How far its log goes, compared with another's; `None` when they do not compare.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match self.last_rule().cmp(&other.last_rule()) {
            Ordering::Equal => self.position.partial_cmp(&other.position),
            decided @ (Ordering::Less | Ordering::Greater) => Some(decided),
        }
    }
}

/// Why nobody may be promoted. Nothing was changed but the promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// No recruited member holds any rule.
    #[error(
        "no recruited member holds a rule: recruit the voters of the cluster, or restore it with 'holdfast restore'"
    )]
    NoRule,
    /// U does not hold.
    #[error("under rule {rule} {missing}")]
    NotRevoked {
        /// The open rule that it does not hold under.
        rule: RuleId,
        /// Who is missing.
        missing: NotRevoked,
    },
    /// E does not hold.
    #[error("under rule {rule} {missing}: recruit more of {}", join(.absent))]
    NotEstablished {
        /// The newest rule.
        rule: RuleId,
        /// What is missing.
        missing: NotEstablished,
        /// Voters that were not recruited.
        absent: Vec<Member>,
    },
    /// Two members hold what the other does not.
    #[error(
        "{one} and {other} hold log that the other does not: neither may be chosen; keep both, and let a person compare them"
    )]
    Incomparable {
        /// The one.
        one: Member,
        /// The other.
        other: Member,
    },
    /// Whoever holds most may not be promoted.
    #[error("{member} holds log that no candidate holds, and cannot be promoted itself: recruit {}", join(.absent))]
    Behind {
        /// The most advanced.
        member: Member,
        /// Voters that were not recruited.
        absent: Vec<Member>,
    },
}

fn join(members: &[Member]) -> String {
    if members.is_empty() {
        return "nobody is left".to_owned();
    }
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Everything that a failover was decided on, so that anybody can check it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate<P> {
    /// The attempt that recruited.
    pub attempt: Attempt,
    /// What was answered.
    pub reports: Vec<Report<P>>,
    /// The newest rule that was seen, whose voters and k the new term keeps.
    pub rule: Rule,
    /// Voters of it that were not recruited.
    pub absent: Vec<Member>,
    /// Who becomes the primary.
    pub chosen: Member,
    /// Where its log ends: the new rule's start.
    pub position: P,
}

impl<P: PartialOrd + Clone> Certificate<P> {
    /// Whether the same reports lead to the same choice: U and E are computed again.
    #[must_use]
    pub fn holds(&self) -> bool {
        choose(self.attempt, self.reports.clone(), &[]).is_ok_and(|again| {
            let tied = self.reports.iter().find(|report| report.member == self.chosen);
            let best = again.reports.iter().find(|report| report.member == again.chosen);
            let as_far = tied.zip(best).and_then(|(tied, best)| tied.compare(best)) == Some(Ordering::Equal);
            as_far && again.rule == self.rule && again.absent == self.absent
        })
    }
}

impl<P: fmt::Display> fmt::Display for Certificate<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recruited: Vec<_> = self.reports.iter().map(|report| report.member.clone()).collect();
        write!(
            f,
            "term {}: {} at {} chosen out of {}; not recruited: {}; no commit that was acknowledged under rule {} is lost",
            self.attempt.term,
            self.chosen,
            self.position,
            join(&recruited),
            if self.absent.is_empty() { "nobody".to_owned() } else { join(&self.absent) },
            self.rule.id,
        )
    }
}

/// The rules that may be in force: the newest that anybody holds, and its predecessor.
pub(crate) fn open_rules<P>(reports: &[Report<P>]) -> Option<&[Rule]> {
    reports.iter().map(|report| &report.rules[..]).max_by_key(|rules| rules.first().map(|rule| rule.id))
}

/// Chooses the primary of a new term, or says why there cannot be one.
///
/// `prefer` lists zones, the best first; it decides only between members that hold the same.
///
/// # Errors
/// [`Refused`]. More members can be recruited by the same attempt, and the choice be made again.
pub fn choose<P: PartialOrd + Clone>(
    attempt: Attempt,
    reports: Vec<Report<P>>,
    prefer: &[Zone],
) -> Result<Certificate<P>, Refused> {
    let open = open_rules(&reports).filter(|open| !open.is_empty()).ok_or(Refused::NoRule)?;
    let recruited: BTreeSet<Member> = reports.iter().map(|report| report.member.clone()).collect();
    for rule in open {
        coverage::revoked(rule, &recruited)
            .map_err(|missing| Refused::NotRevoked { rule: rule.id, missing })?;
    }
    let rule = open[0].clone();
    let absent = not_recruited(&rule, &recruited);
    coverage::can_establish(&rule, &recruited).map_err(|missing| Refused::NotEstablished {
        rule: rule.id,
        missing,
        absent: absent.clone(),
    })?;
    let named = |report: &&Report<P>| {
        open.iter().any(|rule| rule.voters.iter().any(|voter| voter.member == report.member))
    };
    let best = most_advanced(reports.iter().filter(named))?;
    let as_far = |voter: &&Voter| {
        let report = reports.iter().find(|report| report.member == voter.member);
        report.and_then(|report| report.compare(best)) == Some(Ordering::Equal)
    };
    let rank = |zone: &Zone| prefer.iter().position(|preferred| preferred == zone).unwrap_or(prefer.len());
    let chosen = coverage::candidates(&rule, &recruited)
        .filter(as_far)
        .min_by_key(|voter| (rank(&voter.zone), voter.member.clone()))
        .ok_or_else(|| Refused::Behind { member: best.member.clone(), absent: absent.clone() })?
        .member
        .clone();
    let position = best.position.clone();
    Ok(Certificate { attempt, rule, absent, chosen, position, reports })
}

fn not_recruited(rule: &Rule, recruited: &BTreeSet<Member>) -> Vec<Member> {
    let members = rule.voters.iter().map(|voter| &voter.member);
    members.filter(|member| !recruited.contains(member)).cloned().collect()
}

/// The report that every other is behind of or equal to.
fn most_advanced<'a, P: PartialOrd>(
    mut reports: impl Iterator<Item = &'a Report<P>>,
) -> Result<&'a Report<P>, Refused> {
    let first = reports.next().ok_or(Refused::NoRule)?;
    reports.try_fold(first, |best, report| match report.compare(best) {
        Some(Ordering::Greater) => Ok(report),
        Some(Ordering::Equal | Ordering::Less) => Ok(best),
        None => Err(Refused::Incomparable { one: best.member.clone(), other: report.member.clone() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, member, rule};

    const ATTEMPT: Attempt = Attempt { term: Term::FIRST, id: 1 };

    fn report<P>(name: &str, rules: &[&Rule], position: P) -> Report<P> {
        let rules = rules.iter().map(|rule| (*rule).clone()).collect();
        Report { member: member(name), rules, position, promised_before: None }
    }

    #[test]
    fn the_newer_rule_wins_over_the_longer_log() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let new = Rule { id: id(2, 1), primary: member("b"), previous: Some(old.id), ..old.clone() };
        let reports = vec![report("a", &[&old], 900), report("b", &[&new, &old], 100)];
        let chosen = choose(ATTEMPT, reports, &[]).unwrap();
        assert_eq!((&chosen.chosen, chosen.position), (&member("b"), 100));
        assert_eq!(chosen.absent, [member("c")]);
        assert!(chosen.holds());
    }

    #[test]
    fn a_certificate_that_was_tampered_with_does_not_hold() {
        let only = rule(1, &["a:x", "b:y", "c:z"]);
        let reports = vec![report("b", &[&only], 7), report("c", &[&only], 8)];
        let good = choose(ATTEMPT, reports, &[]).unwrap();
        assert!(good.holds());
        assert!(!Certificate { chosen: member("b"), ..good.clone() }.holds());
        let fewer = vec![report("c", &[&only], 8)];
        assert!(!Certificate { reports: fewer, ..good }.holds());
    }

    #[test]
    fn zones_only_break_ties() {
        let only = rule(1, &["a:x", "b:y", "c:z"]);
        let zones = ["z".parse().unwrap()];
        let chosen = |b, c| {
            let reports = vec![report("b", &[&only], b), report("c", &[&only], c)];
            choose(ATTEMPT, reports, &zones).unwrap().chosen
        };
        assert_eq!(chosen(5, 5), member("c"));
        assert_eq!(chosen(6, 5), member("b"));
    }

    #[test]
    fn incomparable_histories_are_refused() {
        // Like GTID sets: neither holds all of the other's. `f64::NAN` compares with nothing.
        let only = rule(1, &["a:x", "b:y", "c:z"]);
        let reports = vec![report("b", &[&only], 1.0), report("c", &[&only], f64::NAN)];
        assert!(matches!(choose(ATTEMPT, reports, &[]), Err(Refused::Incomparable { .. })));
    }

    #[test]
    fn nobody_is_chosen_without_u_over_both_open_rules() {
        // The newest rule removed c; it may not be in force yet, and then a and c go on without b.
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let new = Rule { id: id(1, 2), previous: Some(old.id), ..rule(1, &["a:x", "b:y"]) };
        let refused = choose(ATTEMPT, vec![report("b", &[&new, &old], 9)], &[]).unwrap_err();
        assert!(matches!(&refused, Refused::NotRevoked { rule, .. } if *rule == old.id), "{refused}");
        let both = vec![report("b", &[&new, &old], 9), report("a", &[&new, &old], 9)];
        assert_eq!(choose(ATTEMPT, both, &[]).unwrap().rule, new);
    }

    #[test]
    fn a_voter_that_was_promoted_above_the_others_log_waits_for_them() {
        // b holds most and is a log voter: it could donate its log, and is not promoted.
        let only = rule(1, &["a:x", "b:y:log", "c:z"]);
        let reports = vec![report("b", &[&only], 9), report("c", &[&only], 8)];
        assert!(matches!(choose(ATTEMPT, reports, &[]), Err(Refused::Behind { .. })));
    }

    #[test]
    fn every_refusal_names_what_is_missing() {
        let only = rule(1, &["a:x", "b:y", "c:z"]);
        let alone = choose(ATTEMPT, vec![report("c", &[&only], 9)], &[]).unwrap_err();
        let said = alone.to_string();
        assert!(said.contains(&member("a").to_string()) && said.contains(&member("b").to_string()), "{said}");
        let none = choose::<u64>(ATTEMPT, vec![], &[]).unwrap_err();
        assert_eq!(none, Refused::NoRule);
    }
}
