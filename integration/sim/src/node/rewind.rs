//! Bringing a member whose log left the cluster's back onto it, in a copy that takes the place of its data. Mirrors
//! `agent/src/reconcile/rewind.rs`; what the copy's server replays is part of the time that a copy takes.

use holdfast_agent_decide::members;
use holdfast_model::peer::Part;
use holdfast_model::{Term, Tick};

use super::{Agent, Data};
use crate::engine::{Files, name};
use crate::mutant::Mutant;
use crate::world::{Event, World};

const COPY_MS: (u64, u64) = (200, 2_500);
const TRIES: u32 = 3;
const AGAIN_MS: u64 = 3_000;
const AGAIN_LATE_MS: u64 = 15_000;
/// One copy of so many is not brought back, for a reason of its own.
const FAILS_ONE_IN: u64 = 4;
/// How far a rewind in place goes back behind the fork.
const CHECKPOINT_RECORDS: usize = 12;

/// How rewinds went in this life of the agent.
#[derive(Debug, Default)]
pub(crate) struct Rewinds {
    /// A copy is being made.
    pub(super) copying: bool,
    failed: Option<(u32, Tick)>,
}

impl Rewinds {
    fn promising(&self, now: Tick) -> bool {
        self.failed.is_none_or(|(times, at)| times < TRIES || now.millis_since(at) > AGAIN_LATE_MS)
    }

    fn due(&self, now: Tick) -> bool {
        self.failed.is_none_or(|(_, at)| now.millis_since(at) > AGAIN_MS)
    }
}

impl World {
    /// What an agent says of itself while a copy is made, or is about to be.
    pub(super) fn rewinding_part(&self, n: usize, agent: &Agent) -> Part {
        let part = agent.report.part.clone();
        match (self.nodes[n].disk.as_ref().map(|disk| &disk.data), &part) {
            (Some(Data::Rewinding { primary, .. }), _) => Part::Rewinds { primary: primary.clone() },
            (Some(Data::Ready { .. }), Part::Diverged { .. }) => match &agent.follow {
                Some(order) if agent.rewinds.promising(self.now) => {
                    Part::Rewinds { primary: order.primary.clone() }
                }
                Some(_) | None => part,
            },
            (_, _) => part,
        }
    }

    pub(super) fn rewind(&mut self, n: usize, agent: &mut Agent, onto: Term) {
        match self.nodes[n].disk.as_ref().map(|disk| disk.data.clone()) {
            Some(Data::Ready { .. }) => {
                let Some(order) = agent.follow.clone().filter(|order| order.upstream.term == onto) else {
                    return;
                };
                if agent.rewinds.due(self.now) {
                    self.say(|| format!("{} rewinds onto {}", name(n), order.primary));
                    self.counts.one("rewind begun");
                    self.write_data(
                        n,
                        agent,
                        Data::Rewinding { onto, primary: order.primary, taking: false },
                    );
                    agent.follow = None;
                    self.wake_soon(n, agent);
                }
            }
            Some(Data::Rewinding { primary, taking: false, .. }) => {
                agent.rewinds.copying = true;
                if self.mutates(Mutant::RewindInPlace) {
                    self.go_back_in_place(n, &primary);
                }
                let ms = self.chance.between(COPY_MS.0, COPY_MS.1);
                self.after(ms, Event::Copied { n, life: agent.life });
            }
            Some(Data::Rewinding { .. } | Data::Absent | Data::Joining | Data::Landed { .. }) | None => {}
        }
    }

    /// To a checkpoint before the fork, on the data itself.
    fn go_back_in_place(&mut self, n: usize, primary: &holdfast_model::Member) {
        let theirs = self.node_of(primary).and_then(|source| self.log(source)).cloned();
        let (Some(theirs), Some(files)) = (theirs, self.files_mut(n)) else { return };
        let same = files.log.records().iter().zip(theirs.records()).take_while(|(own, other)| own == other);
        let kept = same.count().saturating_sub(CHECKPOINT_RECORDS);
        files.log.truncate(kept);
        files.durable = kept;
    }

    pub(crate) fn copied(&mut self, n: usize, life: u64) {
        self.with_agent(n, |world, agent| {
            let there = agent.mounted.is_some() && agent.mounted.as_ref() == world.nodes[n].member();
            if agent.life != life || !std::mem::take(&mut agent.rewinds.copying) || !there {
                return;
            }
            let Some(Data::Rewinding { onto, primary, taking: false }) =
                world.nodes[n].disk.as_ref().map(|disk| disk.data.clone())
            else {
                return;
            };
            let promise = world.nodes[n].disk.as_ref().and_then(|disk| disk.promise.clone());
            let promised = promise.is_some_and(|promise| promise.max_term > onto);
            let tries = agent.rewinds.failed.map_or(0, |(times, _)| times);
            let fails = tries < TRIES && (world.rewinds_fail || world.chance.one_in(FAILS_ONE_IN));
            let copy = if promised || fails { None } else { world.copy_of(n, onto, &primary) };
            let Some(copy) = copy else {
                if !promised {
                    agent.rewinds.failed = Some((tries + 1, world.now));
                }
                world.counts.one("rewind given up");
                world.write_data(n, agent, Data::Ready { reign: None });
                return world.wake_soon(n, agent);
            };
            if let Some(disk) = &mut world.nodes[n].disk {
                disk.beside = Some(copy);
            }
            world.write_data(n, agent, Data::Rewinding { onto, primary, taking: true });
            world.wake_soon(n, agent);
        });
    }

    /// What the primary has flushed by now, if it can be read.
    fn copy_of(&mut self, n: usize, onto: Term, primary: &holdfast_model::Member) -> Option<Files> {
        let source = self.node_of(primary)?;
        let reached = !self.net.is_cut(n, source) && !self.net.is_cut(source, n);
        let reigns = self.process(source).is_some_and(|server| !server.recovers && server.timeline == onto);
        if !reached || !reigns || self.nodes[source].member() != Some(primary) {
            return None;
        }
        let files = self.files(source)?;
        Some(Files { log: files.log.prefix(files.durable), durable: files.durable, standby: true })
    }

    pub(super) fn take_rewound(&mut self, n: usize, agent: &mut Agent) {
        if let Some(disk) = &mut self.nodes[n].disk
            && let Some(copy) = disk.beside.take()
        {
            disk.files = copy;
            self.counts.one("rewound");
            self.say(|| format!("{} is rewound", name(n)));
        }
        agent.rewinds.failed = None;
        agent.follow = None;
        self.write_data(n, agent, Data::Ready { reign: None });
    }

    pub(super) fn give_up_rewind(&mut self, n: usize, agent: &mut Agent) {
        self.counts.one("rewind given up");
        if let Some(disk) = &mut self.nodes[n].disk {
            disk.beside = None;
        }
        self.write_data(n, agent, Data::Ready { reign: None });
    }

    /// Who says that it is rewound onto this node.
    pub(super) fn lends(agent: &Agent) -> std::collections::BTreeSet<holdfast_model::Member> {
        members::borrowers(&agent.view, &std::collections::BTreeSet::new())
    }
}
