//! Acked log on its way to the object store, for as long as a reign lasts: first what is missing of older terms. Mirrors
//! `agent/src/jobs/ship/{mod,acking,older}.rs`.

use std::collections::BTreeMap;

use holdfast_model::{Rule, RuleId, Term};
use holdfast_replication::quorum::{AckQuorum, open_rules};

use super::Agent;
use crate::engine::name;
use crate::log::Record;
use crate::mutant::Mutant;
use crate::store::Backup;
use crate::world::{Event, World};

const EVERY_MS: u64 = 1_000;

/// What a worker that ships knows.
#[derive(Debug, Clone)]
pub(crate) struct Shipping {
    term: Term,
    /// What comes before this reign's own log is there.
    begun: bool,
    behind_marker: Option<(RuleId, usize)>,
    settled: Option<RuleId>,
    /// Every rule that may be open, newest first.
    open: Vec<Rule>,
    /// A backup that is worth something once log is shipped up to its end.
    backup: Option<usize>,
}

impl World {
    pub(super) fn start_shipping(&mut self, n: usize, agent: &mut Agent) {
        let Some(rule) = &agent.report.rule else { return };
        let term = rule.id.term;
        agent.shipping = Some(Shipping {
            term,
            begun: false,
            behind_marker: None,
            settled: None,
            open: vec![],
            backup: None,
        });
        let ms = self.chance.below(EVERY_MS);
        self.after(ms, Event::Ship { n, life: agent.life });
    }

    pub(crate) fn ship(&mut self, n: usize, life: u64) {
        self.with_agent(n, |world, agent| {
            if agent.life != life {
                return;
            }
            let Some(mut shipping) = agent.shipping.take() else { return };
            let goes_on = world.process(n).is_some_and(|server| !server.recovers)
                && world.log(n).and_then(|log| log.newest_id()).is_some_and(|id| id.term == shipping.term);
            if !goes_on || agent.dies {
                return;
            }
            if world.nodes[n].reaches_store {
                world.ship_turn(n, agent, &mut shipping);
            }
            agent.shipping = Some(shipping);
            world.after(EVERY_MS, Event::Ship { n, life });
        });
    }

    fn ship_turn(&mut self, n: usize, agent: &mut Agent, shipping: &mut Shipping) {
        let acked = self.acked_to_ship(n, shipping);
        if !shipping.begun {
            if !self.put_rules(n) || self.cut_here(agent) || !self.complete_older(n, agent, shipping.term) {
                return;
            }
            shipping.begun = true;
        }
        let Some(acked) = acked else { return };
        let Some(first) =
            self.store.chain(shipping.term).and_then(|chain| chain.last().map(|reign| reign.start))
        else {
            return;
        };
        let from = self.store.next(shipping.term).unwrap_or(first);
        self.ship_range(n, shipping.term, from, acked);
        if let Some(stop) = shipping.backup.filter(|stop| self.store.next(shipping.term) >= Some(*stop)) {
            let Some(log) = self.log(n).map(|log| log.prefix(stop)) else { return };
            self.store.backups.push(Backup { term: shipping.term, stop, log });
            self.counts.one("backup");
            shipping.backup = None;
        }
    }

    fn ship_range(&mut self, n: usize, term: Term, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (Some(log), Some(server)) = (self.log(n), self.process(n)) else { return };
        let Some(records) = log.records().get(from..to).map(<[Record]>::to_vec) else { return };
        let by = server.timeline;
        self.check_shipped(by, from, &records);
        if self.store.ship(term, by, from, &records) {
            self.counts.one("log shipped");
        }
    }

    /// How far log is acked while rules may be open beside one another (`acking.rs`).
    fn acked_to_ship(&self, n: usize, shipping: &mut Shipping) -> Option<usize> {
        let durable = self.files(n)?.durable;
        if self.mutates(Mutant::ShipUnacked) {
            return Some(durable);
        }
        let rules = self.log(n)?.newest_rules();
        let newest = rules.first()?;
        for rule in open_rules(&rules).iter().rev() {
            if shipping.open.first().is_none_or(|known| known.id < rule.id) {
                shipping.open.insert(0, rule.clone());
            }
        }
        if shipping.settled == Some(newest.id) {
            return self.acked_by(n, &AckQuorum::of(newest));
        }
        let behind = match shipping.behind_marker {
            Some((id, behind)) if id == newest.id => behind,
            Some(_) | None => durable,
        };
        shipping.behind_marker = Some((newest.id, behind));
        let acked = self.acked_by(n, &AckQuorum::of_open(newest, &shipping.open))?;
        if acked >= behind {
            shipping.settled = Some(newest.id);
            shipping.open.truncate(1);
        }
        Some(acked)
    }

    /// Tells the store how each term of this log began (`older.rs`).
    fn put_rules(&mut self, n: usize) -> bool {
        let Some(log) = self.log(n) else { return false };
        // Newest first, so that the first version of each term is the one that stays.
        let begun: BTreeMap<Term, _> = log.rules().map(|rule| (rule.id.term, rule.clone())).collect();
        for rule in begun.values() {
            if let Err(there) = self.store.put_rule(rule) {
                self.violated(format!(
                    "{} says that {rule:?} began a term, the store says {there:?}",
                    name(n)
                ));
                return false;
            }
        }
        true
    }

    /// Ships what is missing of older terms; whether the own one may be begun.
    fn complete_older(&mut self, n: usize, agent: &mut Agent, own: Term) -> bool {
        let Some(chain) = self.store.chain(own) else { return false };
        for reign in chain {
            let Some(end) = reign.end else { continue };
            let from = self.store.next(reign.term).unwrap_or(reign.start);
            if from >= end {
                continue;
            }
            let Some(log) = self.log(n) else { return false };
            let left = log.began(reign.term).and_then(|_| log.left(reign.term));
            if left != Some(end) {
                self.counts.one("older term not completed");
                self.violated(format!(
                    "rules say that term {} was left at {end}, timelines say {left:?}: its log cannot be completed",
                    reign.term
                ));
                continue;
            }
            self.ship_range(n, reign.term, from, end);
            self.counts.one("older term completed");
            if self.cut_here(agent) {
                return false;
            }
        }
        true
    }

    /// An operator takes a backup of whoever serves.
    pub(crate) fn take_backup(&mut self, n: usize) {
        let Some(stop) = self.log(n).map(crate::log::Log::len) else { return };
        if let Some(shipping) = self.nodes[n].agent.as_mut().and_then(|agent| agent.shipping.as_mut()) {
            shipping.backup = Some(stop);
        }
    }
}
