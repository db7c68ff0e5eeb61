//! A server that writes: its opening marker, what is in force on it, who attaches to it, and changes of its rule. Mirrors
//! `agent/src/gate_loop/writer.rs` and `agent/src/gate_loop/opening.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use holdfast_model::peer::Part;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{Member, Position, Rule, Term};
use holdfast_replication::catch_up::{Attachment, CatchUp};
use holdfast_replication::change::{self, Change, Seen, Step, Underway};
use holdfast_replication::quorum::{AckQuorum, open_rules};
use holdfast_replication::resume::{self, Flushing};

use super::{Agent, GateOrders, GateReport, Membership};
use crate::engine::{Refused, Status, Sync};
use crate::log::position;
use crate::mutant::Mutant;
use crate::world::World;

const STEPS_MAX: usize = 8;

/// The opening marker of this start of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marker {
    Due,
    Written { quorum: AckQuorum, at: usize },
    Acked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InForce {
    gate: Gate,
    sync: Sync,
    attach: BTreeSet<Member>,
}

/// A change of the rule under way.
#[derive(Debug)]
struct Changing {
    what: Change,
    confirms: bool,
    underway: Underway,
    quorum: AckQuorum,
    proven: bool,
    marker: Option<usize>,
}

/// What is known about a server that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) marker: Marker,
    applied: Option<InForce>,
    promoted: bool,
    catch_up: BTreeMap<Member, CatchUp<usize>>,
    changing: Option<Changing>,
    confirm: Option<Rule>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            marker: Marker::Due,
            applied: None,
            promoted: false,
            catch_up: BTreeMap::new(),
            changing: None,
            confirm: None,
        }
    }

    pub(crate) fn promoted() -> Self {
        Self { promoted: true, ..Self::new() }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.marker == Marker::Acked && self.changing.is_none()
    }

    pub(crate) fn stays_as_found(&self, orders: &GateOrders) -> bool {
        let waits = matches!(&self.marker, Marker::Written { quorum, .. } if quorum.k > 0);
        self.applied.is_none() && !((orders.fresh || self.promoted) && waits)
    }

    fn sync(&self, rule: Option<&Rule>, mutant: Option<Mutant>) -> Sync {
        if let Some(changing) = &self.changing {
            return Sync::Quorum(changing.quorum.clone());
        }
        match (&self.marker, rule) {
            (Marker::Written { quorum, .. }, _) => Sync::Quorum(quorum.clone()),
            (Marker::Acked, Some(rule)) => Sync::Quorum(AckQuorum::of(rule)),
            (Marker::Due, Some(rule)) if mutant == Some(Mutant::ListFromUnackedMarker) => {
                Sync::Quorum(AckQuorum::of(rule))
            }
            (Marker::Due, _) | (Marker::Acked, None) => Sync::Nobody,
        }
    }

    fn attach(&self, orders: &GateOrders, rule: Option<&Rule>) -> BTreeSet<Member> {
        let own = orders.member.as_ref().map(|membership| &membership.member);
        let voters = rule.into_iter().flat_map(|rule| rule.voters.iter().map(|voter| &voter.member));
        let removed = match self.changing.as_ref().map(|changing| &changing.what) {
            Some(Change::Remove(member)) => Some(member),
            Some(Change::Add(_) | Change::SetK(_)) | None => None,
        };
        let all = voters.chain(&orders.admit);
        all.filter(|member| Some(*member) != own && Some(*member) != removed).cloned().collect()
    }
}

type Orders<'a> = (&'a GateOrders, u64);

impl World {
    pub(super) fn look_at_writer(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        report: &mut GateReport,
    ) {
        report.part = Part::Writes { streams: BTreeMap::new(), change: None, lends: Self::lends(agent) };
        match agent.writer.marker.clone() {
            Marker::Acked => {}
            Marker::Due => self.write_marker(n, agent, orders, report),
            Marker::Written { quorum, at } => self.see_marker(n, agent, &quorum, at),
        }
        self.look_at_streams(n, agent, orders.0, report);
    }

    fn look_at_streams(&mut self, n: usize, agent: &mut Agent, orders: &GateOrders, report: &mut GateReport) {
        if agent.writer.marker == Marker::Due
            || agent.writer.attach(orders, report.rule.as_deref()).is_empty()
        {
            return;
        }
        let Some(log) = self.log(n) else { return };
        report.held_out = log.held_out().iter().map(|node| self.nodes[*node].name.clone()).collect();
        let own = self.files(n).map_or(0, |files| files.durable);
        let Some(server) = self.process(n) else { return };
        let (mut catch_up, mut streams) = (BTreeMap::new(), BTreeMap::new());
        for sender in &server.senders {
            let before = agent.writer.catch_up.get(&sender.member).copied().unwrap_or(CatchUp::Detached);
            let attachment = Attachment { stream: sender.stream, flushed: sender.flushed };
            catch_up.insert(sender.member.clone(), before.observe(Some(&attachment), &own));
            streams.insert(sender.member.clone(), position(sender.flushed));
        }
        agent.writer.catch_up = catch_up;
        report.part = Part::Writes { streams, change: None, lends: Self::lends(agent) };
    }

    fn write_marker(&mut self, n: usize, agent: &mut Agent, orders: Orders<'_>, report: &mut GateReport) {
        let (orders, process) = orders;
        let Some(log) = self.log(n) else { return };
        let (rules, newest) = (log.newest_rules(), log.newest_rule().cloned());
        report.rule = newest;
        let (Some(status), Some(membership)) = (report.engine, &orders.member) else { return };
        let promoted = rules.first().filter(|newest| is_promotion(membership, status, newest));
        let mut reigns = promoted.map(|newest| log.reigns_after(newest.id.term)).unwrap_or_default();
        if self.mutates(Mutant::StartAtRulelessReign) {
            reigns = reigns.pop().into_iter().collect();
        }
        let Some(due) = opening(membership, status, &rules, &reigns) else { return };
        if self.cut_here(agent) {
            return;
        }
        // One transaction: all of them are there, or none.
        let Some(Ok(at)) = due.iter().map(|rule| self.write_rule(n, process, rule)).last() else { return };
        let Some(rule) = due.last().cloned() else { return };
        report.rule = Some(Rc::new(rule.clone()));
        if self.cut_here(agent) {
            return;
        }
        let carries = due.iter().rev().nth(1).is_some_and(|before| before.id.term == rule.id.term);
        agent.writer.confirm = carries.then(|| rule.clone());
        let open = if self.mutates(Mutant::ListFromUnackedMarker) { &[] } else { open_rules(&rules) };
        let quorum = AckQuorum::of_open(&rule, open);
        agent.writer.marker = Marker::Written { quorum: quorum.clone(), at };
        self.see_marker(n, agent, &quorum, at);
    }

    fn see_marker(&mut self, n: usize, agent: &mut Agent, quorum: &AckQuorum, at: usize) {
        let early = self.mutates(Mutant::OpenBeforeAcked);
        if early || self.is_acked(n, quorum, at) {
            agent.writer.marker = Marker::Acked;
            agent.writer.changing =
                agent.writer.confirm.take().and_then(|rule| Changing::again(rule, position(at)));
        }
    }

    pub(super) fn enforce(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        wanted: &Gate,
        report: &mut GateReport,
    ) {
        let (orders, process) = orders;
        let sync = agent.writer.sync(report.rule.as_deref(), self.mutant);
        let attach = agent.writer.attach(orders, report.rule.as_deref());
        let to = InForce { gate: wanted.clone(), sync, attach };
        let before = agent.writer.applied.take();
        if before.as_ref().is_some_and(|applied| applied.is_same(&to)) {
            agent.writer.applied = before;
            report.gate = wanted.clone();
            return;
        }
        let closing = matches!(wanted, Gate::Closed { .. });
        let was_open = before.as_ref().is_some_and(|applied| same_for_clients(&applied.gate, wanted));
        if !closing && !was_open {
            report.gate = Gate::Closed { why: GateClosed::MarkerNotAcked };
        }
        if before.is_none_or(|applied| applied.attach != to.attach)
            && self.admit(n, process, &to.attach).is_err()
        {
            return;
        }
        if self.cut_here(agent) || self.apply_gate(n, process, wanted, &to.sync).is_err() {
            return;
        }
        agent.writer.applied = Some(to);
        report.gate = wanted.clone();
    }

    pub(super) fn go_on_with_change(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        report: &mut GateReport,
    ) {
        if agent.writer.marker != Marker::Acked || matches!(report.gate, Gate::Closed { .. }) {
            return;
        }
        if agent.writer.changing.is_none() {
            let Some(what) = &orders.0.change else { return };
            match self.begin_change(what, agent, report) {
                Ok(Some(changing)) => agent.writer.changing = Some(changing),
                Ok(None) => return,
                Err(why) => {
                    tell_change(report, Some(why));
                    return;
                }
            }
        }
        for _ in 0..STEPS_MAX {
            if agent.writer.changing.is_none() || agent.dies {
                break;
            }
            tell_change(report, Some(String::from("changing")));
            if self.change_step(n, agent, orders, report).unwrap_or(true) {
                break;
            }
        }
        if agent.writer.changing.is_none() {
            tell_change(report, None);
        }
    }

    fn begin_change(
        &self,
        what: &Change,
        agent: &Agent,
        report: &GateReport,
    ) -> Result<Option<Changing>, String> {
        let (Some(from), Some(status)) = (&report.rule, &report.engine) else { return Err(String::new()) };
        let done = match what {
            Change::Add(voter) => from.voters.contains(voter),
            Change::Remove(member) => from.voters.iter().all(|voter| voter.member != *member),
            Change::SetK(k) => from.k == *k,
        };
        if done {
            return Ok(None);
        }
        if let Change::Add(voter) = what
            && !matches!(agent.writer.catch_up.get(&voter.member), Some(CatchUp::Ready { .. }))
        {
            return Err(format!("adding {}: it is behind", voter.member));
        }
        let to =
            change::changed(from, what, position(status.flushed)).map_err(|refused| refused.to_string())?;
        let underway = Underway { from: (**from).clone(), to };
        let quorum = self.both(&underway);
        Ok(Some(Changing {
            what: what.clone(),
            confirms: false,
            underway,
            quorum,
            proven: false,
            marker: None,
        }))
    }

    fn both(&self, underway: &Underway) -> AckQuorum {
        if self.mutates(Mutant::WidenBeforeAcked) {
            return AckQuorum::of(&underway.to);
        }
        AckQuorum::of_open(&underway.to, std::slice::from_ref(&underway.from))
    }

    /// One step; whether the next one has to wait.
    fn change_step(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        report: &mut GateReport,
    ) -> Result<bool, Refused> {
        let Some(changing) = &agent.writer.changing else { return Ok(true) };
        let marker = match changing.marker {
            None => change::Marker::Due,
            Some(at) if changing.proven && self.is_acked(n, &changing.quorum, at) => change::Marker::Acked,
            Some(_) => change::Marker::Written,
        };
        let in_force = changing.proven.then_some(&changing.quorum);
        match changing.underway.next(Seen { in_force, marker }) {
            Step::Enforce(quorum) => {
                let quorum = if self.mutates(Mutant::WidenBeforeAcked) && changing.marker.is_none() {
                    // What the rule says that is not written yet.
                    self.both(&changing.underway)
                } else {
                    quorum
                };
                let early =
                    self.mutates(Mutant::WidenBeforeAcked) && changing.proven && changing.marker.is_none();
                if early {
                    let to = changing.underway.to.clone();
                    return self.write_changed(n, agent, orders.1, report, &to);
                }
                self.enforce_quorum(n, agent, orders, report, quorum)?;
                Ok(false)
            }
            Step::Write(rule) => self.write_changed(n, agent, orders.1, report, &rule),
            Step::Wait => Ok(true),
            Step::Done => {
                let begun = || changing.underway.to.start.clone();
                let start = report.engine.map_or_else(begun, |status| position(status.flushed));
                let next = changing.confirmation(start);
                if next.is_none() {
                    self.counts.one(match &changing.what {
                        Change::Add(_) => "member added",
                        Change::Remove(_) => "member removed",
                        Change::SetK(_) => "k changed",
                    });
                }
                agent.writer.changing = next;
                Ok(agent.writer.changing.is_none())
            }
        }
    }

    fn write_changed(
        &mut self,
        n: usize,
        agent: &mut Agent,
        process: u64,
        report: &mut GateReport,
        rule: &Rule,
    ) -> Result<bool, Refused> {
        if self.cut_here(agent) {
            return Ok(true);
        }
        let at = self.write_rule(n, process, rule)?;
        report.rule = Some(Rc::new(rule.clone()));
        if let Some(changing) = &mut agent.writer.changing {
            changing.marker = Some(at);
        }
        Ok(self.cut_here(agent))
    }

    fn enforce_quorum(
        &mut self,
        n: usize,
        agent: &mut Agent,
        orders: Orders<'_>,
        report: &mut GateReport,
        quorum: AckQuorum,
    ) -> Result<(), Refused> {
        let gate = report.gate.clone();
        let Some(changing) = &mut agent.writer.changing else { return Ok(()) };
        let (what, from_k, k) = (changing.what.clone(), changing.underway.from.k, quorum.k);
        (changing.quorum, changing.proven) = (quorum, false);
        self.enforce(n, agent, orders, &gate, report);
        if agent.writer.applied.is_none() {
            return Err(Refused);
        }
        if let Change::Remove(member) = &what {
            self.expel(n, orders.1, member)?;
        }
        if k > from_k {
            self.renew_streams(n, orders.1)?;
        }
        if let Some(changing) = &mut agent.writer.changing {
            changing.proven = true;
        }
        Ok(())
    }
}

/// Which rule this member may write as the opening marker of a start.
fn opening(
    membership: &Membership,
    status: Status,
    newest_first: &[Rule],
    reigns: &[(Term, Position)],
) -> Option<Vec<Rule>> {
    let promise = membership.promise.as_ref().filter(|promise| promise.member == membership.member)?;
    if promise.max_term != status.timeline {
        return None;
    }
    let (newest, open) = (newest_first.first()?, open_rules(newest_first));
    if is_promotion(membership, status, newest) {
        let mut rules = change::promoted_through(newest, &membership.member, reigns);
        let last = rules.pop()?;
        rules.extend(change::carrying(open, last).ok()?);
        return Some(rules);
    }
    resume::may_resume(promise, newest, &membership.member, Flushing::Strong).ok()?;
    change::carrying(open, change::resumed(newest, position(status.flushed)).ok()?).ok()
}

fn is_promotion(membership: &Membership, status: Status, newest: &Rule) -> bool {
    membership.reign == Some(status.timeline) && newest.id.term < status.timeline
}

impl Changing {
    fn again(rule: Rule, start: Position) -> Option<Self> {
        let to = change::resumed(&rule, start).ok()?;
        let (quorum, what) = (AckQuorum::of(&to), Change::SetK(rule.k));
        let underway = Underway { from: rule, to };
        Some(Self { what, confirms: true, underway, quorum, proven: false, marker: None })
    }

    fn confirmation(&self, start: Position) -> Option<Self> {
        if self.confirms {
            return None;
        }
        let from = self.underway.to.clone();
        let to = change::resumed(&from, start).ok()?;
        let (quorum, what) = (AckQuorum::of(&to), self.what.clone());
        let underway = Underway { from, to };
        Some(Self { what, confirms: true, underway, quorum, proven: self.proven, marker: None })
    }
}

impl InForce {
    fn is_same(&self, other: &Self) -> bool {
        same_for_clients(&self.gate, &other.gate) && self.sync == other.sync && self.attach == other.attach
    }
}

fn same_for_clients(a: &Gate, b: &Gate) -> bool {
    a == b || matches!((a, b), (Gate::Closed { .. }, Gate::Closed { .. }))
}

fn tell_change(report: &mut GateReport, told: Option<String>) {
    if let Part::Writes { change, .. } = &mut report.part {
        *change = told;
    }
}
