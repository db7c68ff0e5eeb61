//! What coordinators do: begin an attempt, recruit, choose, promote.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use holdfast_model::{Member, Rule};
use holdfast_replication::change;
use holdfast_replication::choose::{self, Report};
use holdfast_replication::coverage;
use holdfast_replication::promise::{self, Promised};

use super::actions::{Naive, Protocol};
use super::nodes::{attempt, is_own, position};
use super::rules::{RuleRef, id, member};
use super::state::{Cluster, Coordinator, Id, Pledge, Role, Told};

impl Protocol {
    pub(crate) fn begin(&self, state: &mut Cluster, coordinator: usize, term: u8) {
        state.spent.attempts += 1;
        let pledge = Pledge { term, attempt: state.spent.attempts };
        state.coordinators[coordinator] = Coordinator::Recruiting { pledge, told: vec![] };
    }

    /// A node promises, stops whatever it did, and then says how far its log goes.
    pub(crate) fn recruit(&self, state: &mut Cluster, by: usize, node: usize, heard: bool) -> Option<()> {
        let Coordinator::Recruiting { pledge, .. } = state.coordinators[by] else { return None };
        let stand = self.stand(state, node);
        let promised = promise::recruit(stand.as_standing(), attempt(pledge)).ok()?;
        let own_id = state.id(node);
        let own = &mut state.nodes[node];
        if promised != Promised::Already {
            own.promise = Some(pledge);
        }
        own.role = Role::Idle;
        let told = Told { member: own_id, rules: own.rules().take(2).collect(), end: own.end() };
        if !heard {
            state.spent.unheard += 1;
        } else if let Coordinator::Recruiting { told: all, .. } = &mut state.coordinators[by] {
            all.push(told);
            all.sort_unstable_by_key(|told| told.member);
        }
        Some(())
    }

    pub(crate) fn choose(&self, state: &mut Cluster, by: usize) -> Option<()> {
        let Coordinator::Recruiting { pledge, told } = &state.coordinators[by] else { return None };
        let (chosen, newest) = match self.naive {
            Some(Naive::ByLength) => self.longest(told)?,
            Some(Naive::WeakerU) => self.with_weaker_u(told)?,
            _ => {
                let reports = told.iter().map(|told| self.report(told)).collect();
                let certificate = choose::choose(attempt(*pledge), reports, &[]).ok()?;
                (id(&certificate.chosen), self.rules.number(&certificate.rule))
            }
        };
        let best = told.iter().find(|told| told.member == chosen)?;
        let others = best.rules.clone();
        state.coordinators[by] = Coordinator::Chosen { pledge: *pledge, chosen, newest, others };
        Some(())
    }

    fn report(&self, told: &Told) -> Report<u8> {
        let rules = told.rules.iter().map(|rule| (*self.rules.get(*rule)).clone()).collect();
        Report { member: member(told.member).clone(), rules, position: told.end, promised_before: None }
    }

    fn newest(&self, told: &[Told]) -> Option<RuleRef> {
        told.iter()
            .filter_map(|told| told.rules.first())
            .max_by_key(|rule| self.rules.get(**rule).id)
            .copied()
    }

    /// Everything as it should be, but the longest log of a candidate wins.
    fn longest(&self, told: &[Told]) -> Option<(Id, RuleRef)> {
        let newest = self.newest(told)?;
        let rule = self.rules.get(newest);
        let recruited: BTreeSet<Member> = told.iter().map(|told| member(told.member).clone()).collect();
        coverage::revoked(&rule, &recruited).ok()?;
        let candidates = coverage::candidates(&rule, &recruited).map(|voter| id(&voter.member));
        let end = |id: &Id| told.iter().find(|told| told.member == *id).map(|told| told.end);
        // Of two that are as long, the first.
        candidates.min_by_key(|id| Reverse(end(id))).map(|chosen| (chosen, newest))
    }

    /// "The primary was recruited, or too few of its ackers are left."
    fn with_weaker_u(&self, told: &[Told]) -> Option<(Id, RuleRef)> {
        let newest = self.newest(told)?;
        let rule: &Rule = &self.rules.get(newest);
        let recruited: BTreeSet<Member> = told.iter().map(|told| member(told.member).clone()).collect();
        let left = rule.ackers().filter(|voter| !recruited.contains(&voter.member)).count();
        let revoked = recruited.contains(&rule.primary) || left < usize::try_from(rule.k).unwrap();
        let key = |id: &Id| {
            let told = told.iter().find(|told| told.member == *id)?;
            Some((told.rules.first().map(|rule| self.rules.get(*rule).id), told.end))
        };
        let candidates = coverage::candidates(rule, &recruited).map(|voter| id(&voter.member));
        candidates.max_by_key(key).filter(|_| revoked).map(|chosen| (chosen, newest))
    }

    /// The order may come late, twice, or to a node that has lost its disk since.
    pub(crate) fn promote(&self, state: &mut Cluster, by: usize) -> Option<()> {
        let Coordinator::Chosen { pledge, chosen, newest, others } = state.coordinators[by].clone() else {
            return None;
        };
        let node = usize::from(chosen.node);
        if state.id(node) != chosen {
            return None;
        }
        let stand = self.stand(state, node);
        promise::promote(stand.as_standing(), attempt(pledge)).ok()?;
        let own = &state.nodes[node];
        let begun = own
            .rules()
            .map(|rule| self.rules.get(rule))
            .any(|rule| rule.id.term == attempt(pledge).term && is_own(&rule, chosen));
        if begun {
            return None;
        }
        let rule = change::promoted(
            &self.rules.get(newest),
            member(chosen),
            attempt(pledge).term,
            position(own.end()),
        );
        let rule = self.rules.number(&rule);
        self.reign(&mut state.nodes[node], rule, &others);
        Some(())
    }
}
