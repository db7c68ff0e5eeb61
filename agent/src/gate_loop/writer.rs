//! A server that writes: its opening marker, what is in force on it, who attaches to it, and changes of its rule.
//!
//! Invariants, each a test in `tests`:
//! * `a_member_is_named_only_after_it_caught_up` (I8).
//! * `files_are_lent_to_who_is_let_in_and_once_they_tell_of_the_reign`.
//! * `an_adopted_engine_that_may_not_go_on_counts_nobody`.
//! * `a_removed_member_is_expelled_before_the_rule_without_it_is_written`.
//! * `a_change_ends_with_a_rule_that_says_the_same_again`.
//! * `a_change_that_was_cut_off_goes_on_from_what_is` (in `replication`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_engine::Ackers;
use holdfast_engine::engine::{Engine, EngineError};
use holdfast_model::peer::Part;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::step;
use holdfast_model::{Member, Position, Rule};
use holdfast_replication::catch_up::CatchUp;
use holdfast_replication::change::{self, Change, Seen, Step, Underway};
use holdfast_replication::quorum::{AckQuorum, open_rules};
use tracing::{debug, info};

use super::orders::{GateOrders, GateReport};
use super::{GateLoop, opening};
use crate::chain::Chain;

/// For a removed member's connections to end, and for streams to come back younger.
const STREAMS_DEADLINE: Duration = Duration::from_secs(3);
/// Steps of a change in one turn; each of them is one exchange with the engine.
const STEPS_MAX: usize = 8;

/// The opening marker of this start of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    Due,
    /// Until it is seen acked, by what satisfies every rule that may be open.
    Written {
        quorum: AckQuorum,
        at: Position,
    },
    Acked,
}

/// What was put in force and proven.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InForce {
    gate: Gate,
    sync: Ackers,
    attach: BTreeSet<Member>,
    borrow: BTreeSet<Member>,
}

/// A change of the rule under way.
#[derive(Debug)]
struct Changing {
    what: Change,
    /// Whether the rule was changed, and is now written once more as it is. Whoever is promoted takes the newest rule in its
    /// log and the one before for open: as long as those differ, its marker needs acks of members that one of them names and
    /// the other does not, who may be the very ones that are lost.
    confirms: bool,
    underway: Underway,
    /// What is, or is next to be, in force. At first, and whenever nothing is known, what satisfies both rules.
    quorum: AckQuorum,
    /// Whether that was proven, for every stream.
    proven: bool,
    marker: Option<Position>,
}

/// What is known about a server that writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) marker: Marker,
    /// `None` while that is not known.
    applied: Option<InForce>,
    /// Whether it was found to let clients in when nothing was put in force yet; `None` while that is not known.
    found_open: Option<bool>,
    catch_up: BTreeMap<Member, CatchUp<Position>>,
    changing: Option<Changing>,
    /// The opening rule, if the one before it says something else: it is written once more when it is acked.
    confirm: Option<Rule>,
}

impl Writer {
    /// Of a server that was not looked at yet.
    pub(super) fn new() -> Self {
        let catch_up = BTreeMap::new();
        Self { marker: Marker::Due, applied: None, found_open: None, catch_up, changing: None, confirm: None }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.marker == Marker::Acked && self.changing.is_none()
    }

    /// Whether the gate is left as it was found until the marker is acked: nothing was put in force yet, on a server that may
    /// serve clients, or that nobody needs to attach to. One that serves nobody may be of an agent that died before it let
    /// its members attach, and without them no marker is ever acked.
    pub(super) fn stays_as_found(&self, orders: &GateOrders) -> bool {
        let waits_for_members = matches!(&self.marker, Marker::Written { quorum, .. } if quorum.k > 0);
        let serves_nobody = orders.fresh || self.found_open == Some(false);
        self.applied.is_none() && !(serves_nobody && waits_for_members)
    }

    /// Whose acks commits are to wait for.
    fn sync(&self, rule: Option<&Rule>) -> Ackers {
        // Never by the newest rule alone while that is not acked: a widened list would count whom nobody knows of.
        if let Some(changing) = &self.changing {
            return Ackers::of_quorum(changing.quorum.clone());
        }
        match (&self.marker, rule) {
            (Marker::Written { quorum, .. }, _) => Ackers::of_quorum(quorum.clone()),
            (Marker::Acked, Some(rule)) => Ackers::of(rule),
            // Of an engine that was found running nobody knows yet whether its newest rule was acked: its commits wait on.
            (Marker::Due, _) | (Marker::Acked, None) => Ackers::Nobody,
        }
    }

    /// Who may attach: the voters of the rule, and who is admitted; never the one that is being removed.
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

impl<E: Engine> GateLoop<E> {
    /// Reads the engine, and moves the marker on.
    pub(super) async fn look_at_writer(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        let lends = self.lends(report).await?;
        report.part = Part::Writes { streams: BTreeMap::new(), change: None, lends };
        match self.writer.marker.clone() {
            Marker::Acked => {}
            Marker::Due => self.write_marker(orders, report).await?,
            Marker::Written { quorum, at } => self.see_marker(&quorum, &at).await?,
        }
        if matches!(self.writer.marker, Marker::Written { .. }) && self.writer.found_open.is_none() {
            self.writer.found_open = Some(self.engine.lets_clients_in().await?);
        }
        self.look_at_streams(orders, report).await
    }

    /// Only where somebody may attach: a node that is alone asks for nothing.
    async fn look_at_streams(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        if self.writer.marker == Marker::Due || self.writer.attach(orders, report.rule.as_ref()).is_empty() {
            return Ok(());
        }
        report.held_out = self.engine.held_out().await?;
        let attached = self.engine.streams().await?;
        // Read after the streams were seen (I8).
        let own = self.engine.flushed().await?.local;
        let mut before = std::mem::take(&mut self.writer.catch_up);
        for (member, attachment) in &attached {
            let known = before.remove(member).unwrap_or(CatchUp::Detached);
            self.writer.catch_up.insert(member.clone(), known.observe(Some(attachment), &own));
        }
        let streams = attached.into_iter().map(|(member, stream)| (member, stream.flushed)).collect();
        if let Part::Writes { streams: told, .. } = &mut report.part {
            *told = streams;
        }
        Ok(())
    }

    /// Who may read this server's files now, and will find its reign in them.
    async fn lends(&mut self, report: &GateReport) -> Result<BTreeSet<Member>, EngineError> {
        let borrow = self.writer.applied.as_ref().map(|applied| applied.borrow.clone()).unwrap_or_default();
        let Some(status) = report.engine.as_ref().filter(|_| !borrow.is_empty()) else {
            return Ok(BTreeSet::new());
        };
        let own = self.engine.checkpointed_in().await? == status.term;
        Ok(if own { borrow } else { BTreeSet::new() })
    }

    async fn write_marker(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        let rules = self.engine.newest_rules().await?;
        report.rule = rules.first().cloned();
        let (Some(status), Some(membership)) = (&report.engine, &orders.member) else { return Ok(()) };
        let reigns = match (&report.rule, orders.process) {
            (Some(newest), Some(process)) if opening::is_promotion(membership, status, newest) => {
                let hands = self.hands.of(process);
                // Promoted already: it only says where the term began.
                let promoted = self.engine.promote(&*hands, status.term, STREAMS_DEADLINE).await?;
                let reigns = promoted.reigns_after(newest.id.term, status.term);
                reigns
                    .ok_or(EngineError::Order("promotion: the log is not of the term of its newest rule"))?
            }
            (_, _) => Vec::new(),
        };
        let rules_due = opening::rules(membership, status, &rules, &reigns);
        let Some((missing, rule)) = rules_due else { return Ok(()) };
        let at = self.engine.write_rules(&missing, &rule).await?;
        let before = missing.iter().map(|rule| rule.id.to_string()).collect::<Vec<_>>();
        info!(rule = %rule.id, position = %at, ?before, "opening marker written");
        // Only what is carried is of the same term, and says something else.
        let carries = missing.last().is_some_and(|before| before.id.term == rule.id.term);
        self.writer.confirm = carries.then(|| rule.clone());
        debug!(target: step::TARGET, step = step::promote::MARKED.name());
        report.rule = Some(rule.clone());
        // A refounding is the one exception: whoever could have acked under the rules before it is lost.
        let open = if membership.opening.as_ref() == Some(&rule) { &[] } else { open_rules(&rules) };
        let quorum = AckQuorum::of_open(&rule, open);
        self.writer.marker = Marker::Written { quorum: quorum.clone(), at: at.clone() };
        self.see_marker(&quorum, &at).await
    }

    /// Acked means seen: the named voters' flush positions are past the marker, whatever COMMIT returned.
    async fn see_marker(&mut self, quorum: &AckQuorum, at: &Position) -> Result<(), EngineError> {
        if self.engine.flushed().await?.holds(quorum, at) {
            info!(position = %at, "opening marker acked");
            debug!(target: step::TARGET, step = step::promote::ACKED.name());
            self.writer.marker = Marker::Acked;
            self.writer.changing =
                self.writer.confirm.take().and_then(|rule| Changing::again(rule, at.clone()));
        }
        Ok(())
    }

    /// Puts `wanted`, the list and the members that may attach in force if they are not. A gate that could not be opened
    /// stays reported as closed; one that could not be closed stays reported as it was, so that nobody relies on it.
    pub(super) async fn enforce(
        &mut self,
        orders: &GateOrders,
        wanted: &Gate,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        let sync = self.writer.sync(report.rule.as_ref());
        let attach = self.writer.attach(orders, report.rule.as_ref());
        let borrow = &attach & &orders.borrow;
        let to = InForce { gate: wanted.clone(), sync, attach, borrow };
        let before = self.writer.applied.clone();
        if before.as_ref().is_some_and(|applied| applied.is_same(&to)) {
            report.gate = wanted.clone();
            return Ok(());
        }
        let closing = matches!(wanted, Gate::Closed { .. });
        let was_open = before.as_ref().is_some_and(|applied| same_for_clients(&applied.gate, wanted));
        if !closing && !was_open {
            report.gate = Gate::Closed { why: GateClosed::MarkerNotAcked };
        }
        self.writer.applied = None;
        let newcomers =
            before.is_none_or(|applied| applied.attach != to.attach || applied.borrow != to.borrow);
        if newcomers && report.engine.as_ref().is_some_and(|status| !status.in_recovery) {
            self.engine.admit(&to.attach, &to.borrow).await?;
        }
        self.engine.apply_gate(wanted, &to.sync).await?;
        if let (true, Some(rule)) = (closing, &report.rule)
            && let Err(err) = self.engine.end_clients(rule).await
        {
            // They wait for acks: ending them would show what they wrote, or tell them that it is committed.
            info!(error = %Chain(&err), "client sessions not ended");
        }
        self.writer.applied = Some(to);
        report.gate = wanted.clone();
        Ok(())
    }

    /// Begins a change that is wanted, or goes on with the one under way, as far as it goes without waiting.
    pub(super) async fn go_on_with_change(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        if self.writer.marker != Marker::Acked || matches!(report.gate, Gate::Closed { .. }) {
            return Ok(());
        }
        if self.writer.changing.is_none() {
            let Some(what) = &orders.change else { return Ok(()) };
            match self.begin_change(what, report) {
                Ok(Some(changing)) => self.writer.changing = Some(changing),
                // The order is older than the rule.
                Ok(None) => return Ok(()),
                Err(why) => {
                    tell_change(report, Some(why));
                    return Ok(());
                }
            }
        }
        for _ in 0..STEPS_MAX {
            let Some(changing) = &self.writer.changing else { break };
            tell_change(report, Some(describe(&changing.what)));
            let waits = self.change_step(orders, report).await?;
            if waits {
                break;
            }
        }
        if self.writer.changing.is_none() {
            tell_change(report, None);
        }
        Ok(())
    }

    fn begin_change(&self, what: &Change, report: &GateReport) -> Result<Option<Changing>, String> {
        let (Some(from), Some(status)) = (&report.rule, &report.engine) else {
            return Err("the rule in force is not known yet".to_owned());
        };
        let done = match what {
            Change::Add(voter) => from.voters.contains(voter),
            Change::Remove(member) => from.voters.iter().all(|voter| voter.member != *member),
            Change::SetK(k) => from.k == *k,
        };
        if done {
            return Ok(None);
        }
        if let Change::Add(voter) = what {
            match self.writer.catch_up.get(&voter.member) {
                Some(CatchUp::Ready { .. }) => {}
                Some(CatchUp::Behind { target, .. }) => {
                    return Err(format!("adding {}: it has to receive up to {target} first", voter.member));
                }
                Some(CatchUp::Detached) | None => {
                    return Err(format!("adding {}: it is not attached", voter.member));
                }
            }
        }
        let to =
            change::changed(from, what, status.flushed.clone()).map_err(|refused| refused.to_string())?;
        info!(from = %from.id, to = %to.id, change = describe(what), "changing the rule");
        debug!(target: step::TARGET, step = step::change::BEGUN.name());
        let underway = Underway { from: from.clone(), to };
        let quorum = AckQuorum::of_open(&underway.to, std::slice::from_ref(&underway.from));
        let what = what.clone();
        Ok(Some(Changing { what, confirms: false, underway, quorum, proven: false, marker: None }))
    }

    /// One step; whether the next one has to wait.
    async fn change_step(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<bool, EngineError> {
        let Some(changing) = &self.writer.changing else { return Ok(true) };
        let marker = match &changing.marker {
            None => change::Marker::Due,
            Some(at) if changing.proven && self.engine.flushed().await?.holds(&changing.quorum, at) => {
                change::Marker::Acked
            }
            Some(_) => change::Marker::Written,
        };
        let in_force = changing.proven.then_some(&changing.quorum);
        match changing.underway.next(Seen { in_force, marker }) {
            Step::Enforce(quorum) => {
                self.enforce_quorum(orders, report, quorum).await?;
                Ok(false)
            }
            Step::Write(rule) => {
                let at = self.engine.write_rules(&[], &rule).await?;
                info!(rule = %rule.id, position = %at, "rule written");
                debug!(target: step::TARGET, step = step::change::WRITTEN.name());
                report.rule = Some(rule);
                if let Some(changing) = &mut self.writer.changing {
                    changing.marker = Some(at);
                }
                Ok(false)
            }
            Step::Wait => Ok(true),
            Step::Done => {
                info!(rule = %changing.underway.to.id, "rule in force");
                let done = if changing.confirms { step::change::CONFIRMED } else { step::change::HOLDS };
                debug!(target: step::TARGET, step = done.name());
                let engine = report.engine.as_ref();
                let start = engine.map_or(&changing.underway.to.start, |status| &status.flushed);
                self.writer.changing = changing.confirmation(start.clone());
                Ok(self.writer.changing.is_none())
            }
        }
    }

    /// Puts a quorum in force and proves it for every stream.
    async fn enforce_quorum(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
        quorum: AckQuorum,
    ) -> Result<(), EngineError> {
        let gate = report.gate.clone();
        let Some(changing) = &mut self.writer.changing else { return Ok(()) };
        let (what, from_k, k) = (changing.what.clone(), changing.underway.from.k, quorum.k);
        (changing.quorum, changing.proven) = (quorum, false);
        self.enforce(orders, &gate, report).await?;
        if let Change::Remove(member) = &what {
            self.engine.expel(member, STREAMS_DEADLINE).await?;
        }
        if k > from_k {
            self.engine.renew_streams(STREAMS_DEADLINE).await?;
        }
        if let Some(changing) = &mut self.writer.changing {
            changing.proven = true;
        }
        debug!(target: step::TARGET, step = step::change::ENFORCED.name());
        Ok(())
    }

    /// Ends whoever is still in behind a closed gate; where the log ends once nobody is.
    pub(super) async fn drain(&mut self) -> Result<Position, EngineError> {
        let report = self.report.borrow().clone();
        let Some(rule) = report.rule.filter(|_| matches!(report.gate, Gate::Closed { .. })) else {
            return Err(EngineError::Order("drain: the gate is not closed"));
        };
        // Who was told to end has ended only when it is not found any more.
        if self.engine.end_clients(&rule).await? > 0 {
            return Err(EngineError::Order("drain: clients are ending"));
        }
        Ok(self.engine.flushed().await?.local)
    }
}

impl Changing {
    /// `rule`, which is in force, once more.
    fn again(rule: Rule, start: Position) -> Option<Self> {
        let to = change::resumed(&rule, start).ok()?;
        let (quorum, what) = (AckQuorum::of(&to), Change::SetK(rule.k));
        let underway = Underway { from: rule, to };
        Some(Self { what, confirms: true, underway, quorum, proven: false, marker: None })
    }

    /// The same rule again, after one that changed something.
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
        same_for_clients(&self.gate, &other.gate)
            && self.sync == other.sync
            && self.attach == other.attach
            && self.borrow == other.borrow
    }
}

/// Two closed gates differ only in what is said about them.
fn same_for_clients(a: &Gate, b: &Gate) -> bool {
    a == b || matches!((a, b), (Gate::Closed { .. }, Gate::Closed { .. }))
}

fn tell_change(report: &mut GateReport, told: Option<String>) {
    if let Part::Writes { change, .. } = &mut report.part {
        *change = told;
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Add(voter) => format!("adding {}", voter.member),
        Change::Remove(member) => format!("removing {member}"),
        Change::SetK(k) => format!("setting k to {k}"),
    }
}
