//! The loss certificate: a promotion's certificate, spelled out for people who come later. Whom it was decided by, why nobody
//! else could still be acked and the new primary can be, and which log was left behind.
//!
//! Everything but the time follows from the certificate: who doubts it computes it again.
//!
//! Invariants, each a test below:
//! * `it_says_why_u_and_e_held`.
//! * `a_tail_is_what_lies_past_the_point_where_the_chain_left_its_term`.
//! * `a_tail_of_transactions_is_what_the_chain_does_not_hold`.
//!
//! Not here: the tails of members that were not recruited, which nobody knows then. Their owners copy them to the repository
//! when they come back.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_model::{Member, Position, Rule, RuleId, Term, Voter, VoterKind};
use serde::{Deserialize, Serialize};

use crate::chain;
use crate::choose::{self, Certificate};
use crate::coverage::counts_for;

/// What a change of the primary was decided on, and what it left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCertificate {
    /// R, the promises, the positions, and whom that made the primary.
    pub certificate: Certificate<Position>,
    /// When it was written, RFC 3339, for people.
    pub at: String,
    /// Why U held, for each rule that may have been in force.
    pub revoked: Vec<String>,
    /// Why E held.
    pub established: String,
    /// Log of recruited members that the cluster went on without. Nobody was told that it was committed.
    pub discarded: Vec<DiscardedTail>,
}

/// A part of one member's log that is not in the new primary's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardedTail {
    /// Whose.
    pub member: Member,
    /// Of which term.
    pub term: Term,
    /// Where the chain left that term ...
    pub start: Position,
    /// ... and where this log ends.
    pub end: Position,
}

impl LossCertificate {
    /// Spells out `certificate`; `at` is now, for people.
    #[must_use]
    pub fn new(certificate: Certificate<Position>, at: String) -> Self {
        let recruited: BTreeSet<Member> =
            certificate.reports.iter().map(|report| report.member.clone()).collect();
        let open = choose::open_rules(&certificate.reports).unwrap_or_default();
        let revoked = open.iter().map(|rule| why_revoked(rule, &recruited)).collect();
        let established = why_established(&certificate, &recruited);
        let discarded = discarded(&certificate);
        Self { at, revoked, established, discarded, certificate }
    }
}

fn join<'a>(voters: impl Iterator<Item = &'a Voter>) -> String {
    let names: Vec<String> = voters.map(|voter| voter.member.to_string()).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn why_revoked(rule: &Rule, recruited: &BTreeSet<Member>) -> String {
    let outside = || rule.voters.iter().filter(|voter| !recruited.contains(&voter.member));
    let each: Vec<String> = outside()
        .filter(|voter| voter.kind == VoterKind::Full)
        .map(|primary| {
            let ackers = outside().filter(|voter| counts_for(voter, &primary.member, &primary.zone));
            format!(
                "{} was not recruited, and a commit of its needs {} of other zones, of whom {} is left",
                primary.member,
                rule.k,
                join(ackers)
            )
        })
        .collect();
    let why = if each.is_empty() { "every full voter was recruited".to_owned() } else { each.join("; ") };
    format!("under rule {}: {why}", rule.id)
}

fn why_established(certificate: &Certificate<Position>, recruited: &BTreeSet<Member>) -> String {
    let Certificate { rule, chosen, .. } = certificate;
    let home = rule.voters.iter().find(|voter| voter.member == *chosen);
    let ackers = rule.voters.iter().filter(|voter| {
        recruited.contains(&voter.member)
            && home.is_some_and(|home| counts_for(voter, &home.member, &home.zone))
    });
    format!("a commit of {chosen} needs {} of other zones, and {} was recruited", rule.k, join(ackers))
}

fn discarded(certificate: &Certificate<Position>) -> Vec<DiscardedTail> {
    let told = certificate.reports.iter().flat_map(|report| &report.rules);
    let chain: BTreeMap<RuleId, &Rule> = told.map(|rule| (rule.id, rule)).collect();
    let chain: Vec<&Rule> = chain.into_values().collect();
    let tail = |(member, term, end): (&Member, Term, &Position)| {
        let start = chain::left_by(term, &chain).map_or(&certificate.position, |rule| &rule.start);
        // As in `chain`: what does not compare lies past it.
        let within = end <= start;
        let (member, start, end) = (member.clone(), start.clone(), end.clone());
        (!within).then_some(DiscardedTail { member, term, start, end })
    };
    let ends = certificate.reports.iter().filter_map(|report| {
        report.rules.first().map(|rule| (&report.member, rule.id.term, &report.position))
    });
    ends.filter_map(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::{Report, choose};
    use crate::promise::Attempt;
    use crate::testing::{id, member, rule};
    use holdfast_model::{GtidSet, Lsn};

    fn report(name: &str, rules: &[&Rule], end: u64) -> Report<Position> {
        let rules = rules.iter().map(|rule| (*rule).clone()).collect();
        Report { member: member(name), rules, position: Lsn::from_offset(end).into(), promised_before: None }
    }

    fn account(reports: Vec<Report<Position>>) -> LossCertificate {
        let attempt = Attempt { term: Term::new(7).unwrap(), id: 1 };
        LossCertificate::new(choose(attempt, reports, &[]).unwrap(), "now".to_owned())
    }

    #[test]
    fn it_says_why_u_and_e_held() {
        let only = rule(1, &["a:x", "b:y", "c:z"]);
        let told = account(vec![report("b", &[&only], 9), report("c", &[&only], 8)]);
        let [revoked] = &told.revoked[..] else { panic!("{told:?}") };
        let (a, b, c) = (member("a"), member("b"), member("c"));
        assert!(revoked.contains(&format!("{a} was not recruited")), "{revoked}");
        assert!(revoked.ends_with("needs 1 of other zones, of whom nobody is left"), "{revoked}");
        assert_eq!(
            told.established,
            format!("a commit of {b} needs 1 of other zones, and {c} was recruited")
        );
        assert_eq!(told.discarded, []);
        let everybody = account(["a", "b", "c"].map(|name| report(name, &[&only], 9)).to_vec());
        assert!(everybody.revoked[0].ends_with("every full voter was recruited"), "{everybody:?}");
    }

    #[test]
    fn a_tail_is_what_lies_past_the_point_where_the_chain_left_its_term() {
        let old = rule(1, &["a:x", "b:y", "c:z"]);
        let start = Position::from(Lsn::from_offset(100));
        let begun = start.clone();
        let new =
            Rule { id: id(2, 1), primary: member("b"), previous: Some(old.id), start: begun, ..old.clone() };
        let reports = |end| vec![report("a", &[&old], end), report("b", &[&new, &old], 120)];
        let tail = |end| account(reports(end)).discarded;
        assert_eq!(tail(100), []);
        let end = Lsn::from_offset(900).into();
        assert_eq!(tail(900), [DiscardedTail { member: member("a"), term: old.id.term, start, end }]);
    }

    #[test]
    fn a_tail_of_transactions_is_what_the_chain_does_not_hold() {
        let set = |tail: &str| {
            let text = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5{tail}");
            Position::from(text.parse::<GtidSet>().unwrap())
        };
        let old = Rule { start: set(""), ..rule(1, &["a:x", "b:y", "c:z"]) };
        let (primary, start) = (member("b"), set(":7-9"));
        let new = Rule { id: id(2, 1), primary, previous: Some(old.id), start: start.clone(), ..old.clone() };
        let report = |name, rules: &[&Rule], position| Report { position, ..report(name, rules, 0) };
        let tail = |end: &Position| {
            account(vec![report("a", &[&old], end.clone()), report("b", &[&new, &old], set(":7-20"))])
                .discarded
        };
        assert_eq!(tail(&set(":8")), []);
        let end = set(":6");
        assert_eq!(tail(&end), [DiscardedTail { member: member("a"), term: old.id.term, start, end }]);
    }
}
