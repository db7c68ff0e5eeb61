//! What a member is asked by whoever coordinates: to vote, to be recruited, promoted, closed. Mirrors
//! `agent/src/daemon/replication.rs`, and of `agent/src/api/target.rs` whether a call is meant for this member.

use holdfast_model::peer::{Part, PeerView};
use holdfast_model::status::Gate;
use holdfast_model::{Member, Position, Promise, Term, Tick};
use holdfast_orchestrator::failover::{Declined, Vote};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{self, Attempt, Promised, Standing};

use super::{Agent, Data};
use crate::coordinator::{Answered, Ask, newest_rule};
use crate::engine::{Server, name};
use crate::log::{position, records};
use crate::mutant::Mutant;
use crate::net::Body;
use crate::world::World;

const MISSED_MS: u64 = 2_000;
const NEAR_RECORDS: usize = 8;
const STANDBY_MS: u64 = 9_000;
const PROMOTE_MS: u64 = 12_000;
const CLOSE_MS: u64 = 5_000;
const HANDOVER_MS: u64 = 30_000;

/// Which coordinator asks, and by which call.
type CallId = (u64, u64);

/// A call that waits for something.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    from: usize,
    of: CallId,
    what: Waits,
    until: Tick,
}

#[derive(Debug, Clone)]
enum Waits {
    /// Promised; the engine is to be a standby.
    Standby(Attempt, Member),
    Rule(Term),
    Closed,
    Position(usize),
}

fn unavailable() -> Declined {
    Declined::Unreachable { why: "not now".to_owned() }
}

impl World {
    fn answer(&mut self, n: usize, to: usize, of: CallId, answer: Answered) {
        let (coordinator, call) = of;
        self.send(n, to, Body::Answer { coordinator, call, answer: Box::new(answer) });
    }

    pub(crate) fn take_call(&mut self, n: usize, back: (usize, CallId), meant: (&Member, Term), ask: Ask) {
        let ((from, of), (to, known)) = (back, meant);
        self.with_agent(n, |world, agent| {
            let own_term = agent.report.rule.as_ref().map(|rule| rule.id.term);
            let is_it = agent.mounted.as_ref() == Some(to);
            let in_time = own_term.is_none_or(|own| known >= own);
            let names_a_term = matches!(ask, Ask::Recruit(_) | Ask::Promote(_) | Ask::Follow);
            if ask == Ask::Gate {
                let open = match agent.view.gate {
                    Gate::Open { term } if is_it => Some(term),
                    Gate::Open { .. } | Gate::ReadOnly { .. } | Gate::Closed { .. } => None,
                };
                world.answer(n, from, of, Answered::Gate(open));
            } else if is_it && (names_a_term || in_time) {
                world.call(n, agent, (from, of), ask);
            } else {
                world.answer(n, from, of, Answered::Declined(unavailable()));
            }
        });
    }

    fn call(&mut self, n: usize, agent: &mut Agent, back: (usize, CallId), ask: Ask) {
        let (from, of) = back;
        match ask {
            Ask::Vote(primary) => {
                let vote = if self.misses(agent, &primary) { Vote::MissesPrimary } else { Vote::SeesPrimary };
                self.answer(n, from, of, Answered::Vote(vote));
            }
            Ask::Recruit(attempt) => self.take_recruit(n, agent, back, attempt),
            Ask::Promote(certificate) => self.begin_reign(n, agent, back, &certificate),
            Ask::Follow => self.wake_soon(n, agent),
            Ask::Near(candidate) => {
                let near = self.is_near(n, agent, &candidate);
                self.answer(n, from, of, Answered::Near(near));
            }
            Ask::Close => {
                agent.handover_until = Some(self.now.after_millis(HANDOVER_MS));
                self.wake_soon(n, agent);
                self.wait(agent, back, Waits::Closed, CLOSE_MS * 2);
            }
            Ask::Await(position) => {
                self.wait(agent, back, Waits::Position(records(&position)), CLOSE_MS);
                self.wake_soon(n, agent);
            }
            Ask::Reopen => {
                agent.handover_until = None;
                self.wake_soon(n, agent);
                self.answer(n, from, of, Answered::Reopened);
            }
            Ask::Gate => {}
        }
    }

    fn wait(&self, agent: &mut Agent, back: (usize, CallId), what: Waits, ms: u64) {
        let (from, of) = back;
        agent.calls.push(Call { from, of, what, until: self.now.after_millis(ms) });
    }

    /// As [`World::wake`], from within a step of the agent.
    pub(super) fn wake_soon(&mut self, n: usize, agent: &mut Agent) {
        let at = self.now.after_millis(1);
        let life = agent.life;
        (agent.gate_due, agent.reconcile_due) = (at, at);
        self.at(at, crate::world::Event::Reconcile { n, life });
        self.at(at, crate::world::Event::Gate { n, life });
    }

    fn take_recruit(&mut self, n: usize, agent: &mut Agent, back: (usize, CallId), attempt: Attempt) {
        let Some(disk) = &self.nodes[n].disk else {
            return self.answer(n, back.0, back.1, Answered::Declined(unavailable()));
        };
        let (member, promise) = (disk.member.clone(), disk.promise.clone());
        let last_rule = agent.report.rule.as_ref().map(|rule| rule.id);
        let standing = Standing { member: &member, promise: promise.as_ref(), last_rule };
        match promise::recruit(standing, attempt) {
            Err(refused) => {
                self.counts.one("recruit refused");
                return self.answer(n, back.0, back.1, Answered::Declined(refused.into()));
            }
            Ok(Promised::Now(Attempt { term, id })) => {
                let (cluster, member) = (self.cluster.clone(), member.clone());
                let promise = Promise { cluster, member, max_term: term, attempt: id };
                if !self.persist_promise(n, agent, promise) {
                    return;
                }
            }
            Ok(Promised::Already) => {}
        }
        self.wake_soon(n, agent);
        self.wait(agent, back, Waits::Standby(attempt, member), STANDBY_MS);
    }

    /// The engine is a standby: it holds still, and its log is told.
    fn report_recruit(&mut self, n: usize, agent: &mut Agent, attempt: Attempt) -> Answered {
        let Ok(standing) = self.recruit(n, agent, attempt.term) else {
            self.stop_server(n);
            return Answered::Declined(unavailable());
        };
        let Some(disk) = &self.nodes[n].disk else { return Answered::Declined(unavailable()) };
        let (member, promise) = (disk.member.clone(), disk.promise.clone());
        let last_rule = standing.rules.first().map(|rule| rule.id);
        let own = Standing { member: &member, promise: promise.as_ref(), last_rule };
        if let Err(refused) = promise::recruit(own, attempt) {
            return Answered::Declined(refused.into());
        }
        let before = promise.map(|promise| promise.max_term).filter(|term| *term < attempt.term);
        self.note_report(n, attempt.term, standing.position);
        self.counts.one("recruited");
        let position = position(standing.position);
        let report = Report { member, rules: standing.rules, position, promised_before: before };
        Answered::Recruited(report)
    }

    fn begin_reign(
        &mut self,
        n: usize,
        agent: &mut Agent,
        back: (usize, CallId),
        certificate: &Certificate<Position>,
    ) {
        let decline =
            |world: &mut Self, declined| world.answer(n, back.0, back.1, Answered::Declined(declined));
        let Some(disk) = &self.nodes[n].disk else { return decline(self, unavailable()) };
        let (member, promise) = (disk.member.clone(), disk.promise.clone());
        let term = certificate.attempt.term;
        let last_rule = agent.report.rule.as_ref().map(|rule| rule.id);
        let standing = Standing { member: &member, promise: promise.as_ref(), last_rule };
        if let Err(refused) = promise::promote(standing, certificate.attempt) {
            self.counts.one("promotion refused");
            return decline(self, refused.into());
        }
        if certificate.chosen != member || !(certificate.holds() || self.mutates(Mutant::WithoutU)) {
            self.counts.one("certificate refused");
            return decline(self, unavailable());
        }
        if !has_begun(agent, term) {
            if !self.write_data(n, agent, Data::Ready { reign: Some(term) }) {
                return;
            }
            self.tell_gate(n, agent);
            if self.promote(n, agent, term).is_err() {
                return decline(self, unavailable());
            }
            self.counts.one("promoted");
            if self.cut_here(agent) {
                return;
            }
            self.wake_soon(n, agent);
        }
        self.wait(agent, back, Waits::Rule(term), PROMOTE_MS);
        self.go_on_with_calls(n, agent);
    }

    fn is_near(&self, n: usize, agent: &Agent, candidate: &Member) -> bool {
        let Part::Writes { streams, .. } = &agent.report.part else { return false };
        let durable = self.files(n).map_or(0, |files| files.durable);
        streams.get(candidate).is_some_and(|flushed| durable.saturating_sub(records(flushed)) <= NEAR_RECORDS)
    }

    /// Whether this node misses the primary.
    fn misses(&self, agent: &Agent, primary: &Member) -> bool {
        let view = &agent.view;
        if newest_rule(view).is_some_and(|rule| rule.primary != *primary) {
            return false;
        }
        let receives = matches!(&view.part, Part::Follows { primary: from, streaming: true } if from == primary)
            && agent.report.received.is_some_and(|at| self.now.millis_since(at) < MISSED_MS);
        match view.peers.iter().find(|peer| peer.node == primary.node) {
            Some(peer) if self.is_heard(agent, peer) => !peer.said.as_ref().is_some_and(|said| {
                said.member.as_ref() == Some(primary) && matches!(said.part, Part::Writes { .. })
            }),
            Some(_) => !receives,
            None if view.node == primary.node => !matches!(view.part, Part::Writes { .. }),
            None => !receives,
        }
    }

    fn is_heard(&self, agent: &Agent, peer: &PeerView) -> bool {
        let at = self.nodes.iter().position(|node| node.name == peer.node);
        let heard = at.and_then(|at| agent.heard[at]);
        heard.is_some_and(|heard| self.now.millis_since(heard) < MISSED_MS) && peer.failing.is_none()
    }

    /// Answers those calls whose time has come, one way or the other.
    pub(super) fn go_on_with_calls(&mut self, n: usize, agent: &mut Agent) {
        if agent.calls.is_empty() || agent.dies {
            return;
        }
        for call in std::mem::take(&mut agent.calls) {
            match self.waited(n, agent, &call.what) {
                Some(answer) => self.answer(n, call.from, call.of, answer),
                None if self.now >= call.until => {
                    if matches!(call.what, Waits::Closed) {
                        agent.handover_until = None;
                        self.wake_soon(n, agent);
                    }
                    self.answer(n, call.from, call.of, Answered::Declined(unavailable()));
                }
                None => agent.calls.push(call),
            }
            if agent.dies {
                return;
            }
        }
    }

    fn waited(&mut self, n: usize, agent: &mut Agent, what: &Waits) -> Option<Answered> {
        match what {
            // Another disk is another member: what was promised on the one before says nothing about the log of this one.
            Waits::Standby(_, member) if agent.mounted.as_ref() != Some(member) => {
                Some(Answered::Declined(unavailable()))
            }
            Waits::Standby(attempt, _) => {
                let recovers = agent.report.engine.is_some_and(|engine| engine.recovers);
                recovers.then(|| self.report_recruit(n, agent, *attempt))
            }
            Waits::Rule(term) if has_begun(agent, *term) => {
                agent.report.rule.as_ref().map(|rule| Answered::Promoted((**rule).clone()))
            }
            Waits::Rule(_) => None,
            Waits::Closed => {
                if !matches!(agent.report.gate, Gate::Closed { .. }) || agent.report.rule.is_none() {
                    return None;
                }
                let server = self.process(n).filter(|server| Some(server.id) == agent.report.process)?;
                let ended = server.waiting.is_empty() && matches!(server.gate, Gate::Closed { .. });
                let durable = self.files(n)?.durable;
                ended.then(|| Answered::Closed(position(durable)))
            }
            Waits::Position(position) => {
                let engine = agent.report.engine?;
                (engine.recovers && engine.flushed >= *position).then_some(Answered::Holds)
            }
        }
    }

    /// An engine that this agent's own supervisor shows as running.
    pub(super) fn running(&self, n: usize) -> Option<u64> {
        match &self.nodes[n].server {
            Server::Alive(process) => Some(process.id),
            Server::Stopping { id, .. } => Some(*id),
            Server::Stopped { .. } => None,
        }
    }

    /// What a member is held to once it has reported for a term.
    fn note_report(&mut self, n: usize, term: Term, position: usize) {
        self.say(|| format!("{} reports {position} for term {term}", name(n)));
        self.oracle.reported(n, term, position);
    }
}

/// Whether the term's rule is in this member's own log.
fn has_begun(agent: &Agent, term: Term) -> bool {
    agent
        .report
        .rule
        .as_ref()
        .is_some_and(|rule| rule.id.term == term && Some(&rule.primary) == agent.mounted.as_ref())
}
