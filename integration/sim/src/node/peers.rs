//! What agents hear of one another: each asks each peer about its status now and then. Mirrors `agent/src/peers/mod.rs`.

use holdfast_model::peer::{Part, PeerSaid};
use holdfast_model::status::{Gate, NodeView};
use holdfast_model::{Member, RuleId, Term};

use super::Agent;
use crate::net::Body;
use crate::world::{Event, World};

/// Between two questions; an answer is waited for as long.
const EVERY_MS: u64 = 700;

impl World {
    pub(crate) fn poll(&mut self, n: usize, life: u64, peer: usize) {
        self.next_id += 1;
        let asked = self.next_id;
        let node = self.nodes[peer].name.clone();
        let Some(agent) = self.nodes[n].agent.as_mut().filter(|agent| agent.life == life) else { return };
        if agent.asked[peer].replace(asked).is_some()
            && let Some(view) = agent.view.peers.iter_mut().find(|view| view.node == node)
            && view.failing.is_none()
        {
            view.failing = Some(String::from("late"));
            self.wake_reconcile(n);
        }
        self.send(n, peer, Body::AskStatus { life, asked });
        self.after(EVERY_MS, Event::Poll { n, life, peer });
    }

    pub(crate) fn tell_status(&mut self, n: usize, to: usize, life: u64, asked: u64) {
        let Some(agent) = &self.nodes[n].agent else { return };
        let said = Box::new(said(agent));
        self.send(n, to, Body::Status { life, asked, said });
    }

    pub(crate) fn take_status(&mut self, n: usize, from: usize, question: (u64, u64), said: PeerSaid) {
        let (life, asked) = question;
        let node = self.nodes[from].name.clone();
        let now = self.now;
        let Some(agent) = self.nodes[n].agent.as_mut().filter(|agent| agent.life == life) else { return };
        if agent.asked[from] != Some(asked) {
            return;
        }
        agent.asked[from] = None;
        agent.heard[from] = Some(now);
        let Some(view) = agent.view.peers.iter_mut().find(|view| view.node == node) else { return };
        let changed = view.failing.is_some() || view.said.as_ref().map(gist) != Some(gist(&said));
        view.failing = None;
        view.said = Some(said);
        if changed {
            self.wake_reconcile(n);
        }
    }

    /// Tells a peer every rule in the own log, oldest first.
    pub(crate) fn tell_rules(&mut self, n: usize, to: usize, life: u64) {
        if self.nodes[n].agent.is_none() || self.process(n).is_none() {
            return;
        }
        let Some(log) = self.log(n) else { return };
        let mut rules: Vec<_> = log.rules().map(|rule| (**rule).clone()).collect();
        rules.reverse();
        self.send(n, to, Body::Rules { life, rules });
    }
}

fn said(agent: &Agent) -> PeerSaid {
    let view: &NodeView = &agent.view;
    PeerSaid {
        member: agent.mounted.clone(),
        rule: view.rule.clone(),
        promised: view.promise.as_ref().map(|promise| promise.max_term),
        gate: view.gate.clone(),
        part: view.part.clone(),
        flushed: view.engine.flushed().cloned(),
        shipped: None,
    }
}

/// Everything but positions.
#[derive(PartialEq)]
struct Gist<'a> {
    member: Option<&'a Member>,
    rule: Option<RuleId>,
    promised: Option<Term>,
    gate: &'a Gate,
    part: (u8, usize),
}

fn gist(said: &PeerSaid) -> Gist<'_> {
    let part = match &said.part {
        Part::None => (0, 0),
        Part::Writes { streams, change, .. } => (1 + u8::from(change.is_some()), streams.len()),
        Part::Follows { streaming, .. } => (3 + u8::from(*streaming), 0),
        Part::Recruited { .. } => (5, 0),
        Part::Waits { .. } => (6, 0),
        Part::Diverged { .. } => (7, 0),
        Part::Rewinds { .. } => (8, 0),
    };
    let rule = said.rule.as_ref().map(|rule| rule.id);
    Gist { member: said.member.as_ref(), rule, promised: said.promised, gate: &said.gate, part }
}
