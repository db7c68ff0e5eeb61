//! The gate loop: sole owner of what clients may do on the engine, and of the agent's session to it.
//!
//! Runs every second while nothing changes, ten times a second while it works towards something else, and at once when
//! the disk, the process or the reconcile loop's wish changes. It may always close by itself; the reconcile loop can
//! ask it to hold the gate closed, and nobody can ask it to open.
//!
//! Each turn: look at the engine; on one that writes, write the opening marker of this start if it is due, see whether it is
//! acked, [`judge`](gate::judge), put the judgement in force, and go on with a change of the rule (`writer`); on one in
//! recovery, follow whom it is told to, if its log allows it (`standby`). Between two turns it does what callers wait for
//! ([`GateHandle`]).
//!
//! Invariants, each a test in `tests`:
//! * `a_marker_is_written_once_a_start_and_the_gate_opens_when_it_is_acked` (I2).
//! * `a_resumed_marker_must_satisfy_every_rule_that_may_be_open`.
//! * `a_new_process_starts_closed_again`.
//! * `an_unhealthy_disk_closes_an_open_gate`, and `an_unsafe_disk_is_told_before_the_engine_is_asked`.
//! * `nothing_is_written_under_a_higher_promise` (I3).
//! * `an_adopted_engine_keeps_its_clients`.
//! * `an_adopted_engine_stays_open_while_its_volume_is_looked_up`.
//! * `what_weakens_the_promise_is_told_and_taken_back`.
//! * `an_adopted_engine_that_lets_nobody_in_lets_its_members_attach`.
//!
//! Not here: starting and stopping the engine, why a gate should be held, whom to follow, whom to admit. See `reconcile`.

mod opening;
mod orders;
mod standby;
#[cfg(test)]
mod tests;
mod writer;

use std::time::Duration;

use holdfast_agent_decide::gate::{self, GateInputs};
use holdfast_engine::engine::{Engine, EngineError};
use holdfast_model::Term;
use holdfast_model::peer::Part;
use holdfast_model::status::{Gate, GateClosed};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::chain::Chain;
use orders::Command;
use standby::Standby;
use writer::{Marker, Writer};

pub use opening::first as first_rule;
pub use orders::{
    CommandError, FollowOrder, GateHandle, GateOrders, GateReport, HandsOf, Membership, Standing,
};

const STEADY: Duration = Duration::from_secs(1);
const WORKING: Duration = Duration::from_millis(100);
/// Between two looks for settings that weaken the promise. They are anybody's to change, and change seldom.
const AUDIT: Duration = Duration::from_secs(5);
const COMMANDS: usize = 4;

/// Sole owner of the engine's session and fence.
#[derive(Debug)]
pub struct GateLoop<E> {
    engine: E,
    hands: HandsOf,
    orders: watch::Receiver<GateOrders>,
    commands: mpsc::Receiver<Command>,
    report: watch::Sender<GateReport>,
    writer: Writer,
    standby: Standby,
    /// When settings were last looked at, of this process.
    audited: Option<Instant>,
}

impl<E: Engine> GateLoop<E> {
    /// A loop that has not looked yet.
    pub fn new(
        engine: E,
        hands: HandsOf,
        orders: watch::Receiver<GateOrders>,
        report: watch::Sender<GateReport>,
    ) -> (GateHandle, Self) {
        let (give, commands) = mpsc::channel(COMMANDS);
        let (writer, standby) = (Writer::new(), Standby::default());
        (GateHandle(give), Self { engine, hands, orders, commands, report, writer, standby, audited: None })
    }

    /// Runs until cancelled. The gate stays as it is then: an engine outlives its agent.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let orders = self.orders.borrow_and_update().clone();
            let pause = self.turn(&orders).await;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return, // cancel-safe
                changed = self.orders.changed() => if changed.is_err() { return }, // cancel-safe
                Some(command) = self.commands.recv() => { // cancel-safe
                    let orders = self.orders.borrow().clone();
                    self.command(command, &orders).await;
                }
                () = tokio::time::sleep(pause) => {} // cancel-safe
            }
        }
    }

    /// One look and one step; every call inside has a deadline of the engine's session.
    async fn turn(&mut self, orders: &GateOrders) -> Duration {
        let mut report = self.report.borrow().clone();
        if report.process != orders.process {
            report = GateReport { process: orders.process, ..GateReport::unknown() };
            self.writer = Writer::new();
            self.standby = self.standby.of_new_process();
            self.audited = None;
        }
        if orders.member.is_some() && !orders.disk_healthy {
            // Load balancers and whoever holds the gate hear it before the engine does: one whose file system is gone can
            // let a query hang, and is stopped next whatever it answers.
            report.gate = Gate::Closed { why: orders.hold.unwrap_or(GateClosed::DiskUnsafe) };
            self.publish(report.clone());
        }
        let step = if orders.process.is_some() { self.step(orders, &mut report).await } else { Ok(()) };
        if orders.process.is_none() {
            report.gate = Gate::Closed { why: orders.hold.unwrap_or(GateClosed::NoEngine) };
            report.part = Part::None;
        }
        if report.engine.is_some() && !orders.replays {
            self.audit(&mut report).await;
        }
        report.tail = self.standby.tail().cloned();
        report.received = self.standby.received();
        let failing = step.err().map(|err| Chain(&err).to_string());
        if failing.is_some() && failing != report.failing {
            debug!(error = failing, "gate not settled");
        }
        report.failing = failing;
        let steady = self.is_settled(orders, &report);
        self.publish(report);
        if steady { STEADY } else { WORKING }
    }

    fn is_settled(&self, orders: &GateOrders, report: &GateReport) -> bool {
        let serving = !matches!(report.gate, Gate::Closed { .. });
        match &report.part {
            _ if orders.process.is_none() => true,
            _ if report.failing.is_some() => false,
            Part::Follows { streaming, .. } => *streaming,
            Part::Diverged { .. } | Part::Recruited { .. } | Part::Rewinds { .. } => true,
            Part::Writes { .. } => serving && self.writer.is_settled() && orders.change.is_none(),
            Part::Waits { .. } | Part::None => false,
        }
    }

    fn publish(&self, report: GateReport) {
        self.report.send_if_modified(|old| {
            if old.gate != report.gate {
                info!(gate = %report.gate, "gate changed");
            }
            let changed = *old != report;
            *old = report;
            changed
        });
    }

    async fn step(&mut self, orders: &GateOrders, report: &mut GateReport) -> Result<(), EngineError> {
        let status = self.engine.status().await;
        report.engine = status.as_ref().ok().cloned();
        let recovers = report.engine.as_ref().is_some_and(|status| status.in_recovery);
        let looked = match status {
            Err(err) => {
                report.part = Part::None;
                Err(err)
            }
            // Its files say whom it receives from, and how it recovers: the standby's side alone writes them.
            Ok(_) if recovers && orders.replays => {
                report.part = Part::Waits { why: "the engine replays what was restored".to_owned() };
                Ok(())
            }
            Ok(_) if recovers => self.stand_by(orders, report).await,
            Ok(_) => self.look_at_writer(orders, report).await,
        };
        let writable = report.engine.as_ref().is_some_and(|status| !status.in_recovery);
        let wanted = gate::judge(&GateInputs {
            member: orders.member.as_ref().map(|m| &m.member),
            engine_writable: writable,
            rule: report.rule.as_ref(),
            promise: orders.member.as_ref().and_then(|m| m.promise.as_ref()),
            marker_acked: self.writer.marker == Marker::Acked,
            disk_healthy: orders.disk_healthy,
            nearly_full: orders.nearly_full,
            hold: orders.hold,
        });
        match (&report.engine.clone(), &wanted) {
            // Nobody can close an engine that does not answer but by stopping it, which whoever holds the gate does
            // next. Its files are closed already, so that it never comes back open.
            (None, Gate::Closed { why: GateClosed::DiskUnsafe | GateClosed::Stopping }) => {
                report.gate = wanted.clone();
                self.enforce(orders, &wanted, report).await?;
            }
            (None, _) => {}
            (Some(status), wanted) if status.in_recovery => {
                report.gate = of_standby(wanted, orders, self.standby.read_in(&report.part));
            }
            // An engine that this loop has just met was opened under the rules if it lets clients in: while its volume and its
            // marker are looked up it stays as it was found. One that does not may let no member attach yet either.
            (Some(_), Gate::Closed { why: GateClosed::Starting | GateClosed::MarkerNotAcked })
                if self.writer.stays_as_found(orders) =>
            {
                report.gate = wanted;
            }
            (Some(_), _) => {
                self.enforce(orders, &wanted, report).await?;
                self.go_on_with_change(orders, report).await?;
            }
        }
        looked
    }

    /// Looks for what weakens the promise, now and then. It is told, and nothing is done about it: an operator may want it.
    async fn audit(&mut self, report: &mut GateReport) {
        if self.audited.is_some_and(|at| at.elapsed() < AUDIT) {
            return;
        }
        match self.engine.weakened().await {
            Ok(found) => {
                for weakened in found.difference(&report.weakened) {
                    warn!(%weakened, "commits may be answered before they are held elsewhere");
                }
                report.weakened = found;
                self.audited = Some(Instant::now());
            }
            Err(err) => debug!(error = %Chain(&err), "settings not looked at"),
        }
    }

    /// What a caller waits for. Whoever does not wait any more asks again.
    async fn command(&mut self, command: Command, orders: &GateOrders) {
        match command {
            Command::Recruit { member, term, reply } => {
                let done = self.recruit(member, term, orders).await;
                drop(reply.send(done.map_err(|err| Chain(&err).to_string())));
            }
            Command::Promote { member, term, reply } => {
                let done = self.promote(&member, term, orders).await;
                drop(reply.send(done.map_err(|err| Chain(&err).to_string())));
            }
            Command::Drain { reply } => {
                let done = self.drain().await;
                drop(reply.send(done.map_err(|err| Chain(&err).to_string())));
            }
            Command::HoldOut { node, out, reply } => {
                let done = self.engine.hold_out(&node, out).await;
                drop(reply.send(done.map_err(|err| Chain(&err).to_string())));
            }
            Command::Rules { reply } => {
                let rules = self.engine.rules().await;
                drop(reply.send(rules.map_err(|err| Chain(&err).to_string())));
            }
        }
    }
}

/// Behind a standby's closed gate is an engine that runs; one that follows is read, by its files.
fn of_standby(wanted: &Gate, orders: &GateOrders, read_in: Option<Term>) -> Gate {
    match (wanted, read_in) {
        (Gate::Closed { why: GateClosed::NoEngine }, Some(term)) => Gate::ReadOnly { term },
        (Gate::Closed { why: GateClosed::NoEngine }, None) if !orders.replays => {
            Gate::Closed { why: GateClosed::NotPrimary }
        }
        (Gate::Closed { .. } | Gate::ReadOnly { .. } | Gate::Open { .. }, _) => wanted.clone(),
    }
}
