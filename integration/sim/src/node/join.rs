//! Restoring behind a cluster that reigns elsewhere, in order to follow it. Mirrors
//! `agent/src/reconcile/founding/{join,settle}.rs`.

use holdfast_agent_decide::members;
use holdfast_model::Promise;

use super::{Agent, Data};
use crate::engine::{Files, name};
use crate::world::{Event, World};

/// How long a restore takes, and how long until one that failed is tried again.
const LAND_MS: (u64, u64) = (200, 1_500);
const AGAIN_MS: u64 = 1_000;

impl World {
    pub(super) fn begin_join(&mut self, n: usize, agent: &mut Agent) {
        agent.joining = true;
        self.say(|| format!("{} restores", name(n)));
        if !self.promise_for_join(n, agent) || !self.write_data(n, agent, Data::Joining) {
            return;
        }
        if let Some(files) = self.files_mut(n) {
            *files = Files::default();
        }
        let ms = self.chance.between(LAND_MS.0, LAND_MS.1);
        self.after(ms, Event::Landed { n, life: agent.life });
    }

    /// A member without a promise is a lost one: it takes part in nothing below the term that reigns.
    fn promise_for_join(&mut self, n: usize, agent: &mut Agent) -> bool {
        let heard = members::reigning(&agent.view).map(|reigning| reigning.rule.id.term);
        let kept = self.store.rules.keys().next_back().copied();
        let (Some(term), Some(disk)) = (heard.max(kept), &self.nodes[n].disk) else { return false };
        if disk.promise.as_ref().is_some_and(|promise| promise.max_term >= term) {
            return true;
        }
        let (member, attempt) = (disk.member.clone(), self.chance.bits());
        let promise = Promise { cluster: self.cluster.clone(), member, max_term: term, attempt };
        self.persist_promise(n, agent, promise)
    }

    pub(crate) fn landed(&mut self, n: usize, life: u64) {
        self.with_agent(n, |world, agent| {
            let there = agent.mounted.is_some() && agent.mounted.as_ref() == world.nodes[n].member();
            if agent.life != life || !agent.joining || !there {
                return;
            }
            let restored = if world.nodes[n].reaches_store { world.store.restore() } else { None };
            let Some(log) = restored else {
                world.counts.one("restore put off");
                world.after(AGAIN_MS, Event::Landed { n, life });
                return;
            };
            world.check_restored(n, &log);
            let end = log.len();
            if let Some(files) = world.files_mut(n) {
                *files = Files { log, durable: end, standby: true };
            }
            if !world.write_data(n, agent, Data::Landed { end }) {
                return;
            }
            world.say(|| format!("{} has restored up to {end}", name(n)));
            world.counts.one("restored");
            agent.joining = false;
            world.wake_soon(n, agent);
        });
    }

    /// Once replay has reached the end of the shipped log the server is started again as one that streams.
    pub(super) fn settle_join(&mut self, n: usize, agent: &mut Agent) {
        let Some(Data::Landed { end }) = self.nodes[n].disk.as_ref().map(|disk| disk.data.clone()) else {
            return;
        };
        let Some(status) = agent.report.process.and_then(|process| self.status(n, process)) else { return };
        if !status.recovers || status.flushed < end {
            return;
        }
        self.stop_server(n);
        self.write_data(n, agent, Data::Ready { reign: None });
    }
}
