//! The gate loop: sole owner of what clients may do on the engine.
//!
//! Runs every second while nothing changes, ten times a second while it works towards another gate, and at once when
//! the disk, the process or the reconcile loop's wish changes. It may always close by itself; the reconcile loop can
//! ask it to hold the gate closed, and nobody can ask it to open.
//!
//! Each turn: look at the engine, write the opening marker of this start if it is due, see whether it is acked,
//! [`judge`](gate::judge), put the judgement in force.
//!
//! Invariants, each a test in `tests`:
//! * `a_marker_is_written_once_a_start_and_the_gate_opens_when_it_is_acked` (I2).
//! * `a_resumed_marker_must_satisfy_every_rule_that_may_be_open`.
//! * `a_new_process_starts_closed_again`.
//! * `an_unhealthy_disk_closes_an_open_gate`, and `an_unsafe_disk_is_told_before_the_engine_is_asked`.
//! * `nothing_is_written_under_a_higher_promise` (I3).
//! * `an_adopted_engine_keeps_its_clients`.
//! * `an_adopted_engine_stays_open_while_its_volume_is_looked_up`.
//!
//! Not here: starting and stopping the engine, and why a gate should be held. See `reconcile`.

mod opening;
#[cfg(test)]
mod tests;

use std::time::Duration;

use holdfast_agent_decide::gate::{self, GateInputs};
use holdfast_engine::engine::{Engine, EngineError, EngineStatus};
use holdfast_engine::postgres::SyncStandbys;
use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{Lsn, Member, Promise, Rule, Zone};
use holdfast_replication::quorum::AckQuorum;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::chain::Chain;
use crate::child::process::ProcessId;

pub use opening::first as first_rule;

const STEADY: Duration = Duration::from_secs(1);
const WORKING: Duration = Duration::from_millis(100);

/// What the gate loop is told by the rest of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GateOrders {
    /// The engine's process, if one runs.
    pub process: Option<ProcessId>,
    /// This member and what it has promised; `None` before a volume is mounted.
    pub member: Option<Membership>,
    /// Whether the last probe write returned in time.
    pub disk_healthy: bool,
    /// Whether free space is below the reserve.
    pub nearly_full: bool,
    /// Keep the gate closed, for this reason.
    pub hold: Option<GateClosed>,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The member.
    pub member: Member,
    /// Its zone.
    pub zone: Zone,
    /// What it promised.
    pub promise: Option<Promise>,
    /// The rule with which a refounding begins its term, until it is in the log.
    pub opening: Option<Rule>,
}

/// What the gate loop says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReport {
    /// What is in force. Only ever more than `Closed` after it was proven by a probe login.
    pub gate: Gate,
    /// What the engine answered last; `None` while it does not.
    pub engine: Option<EngineStatus>,
    /// The newest rule in the engine's log, as last read.
    pub rule: Option<Rule>,
    /// The process that this is about.
    pub process: Option<ProcessId>,
    /// What keeps the gate from being what it should be.
    pub failing: Option<String>,
}

impl GateReport {
    /// Before anything is known.
    #[must_use]
    pub const fn unknown() -> Self {
        let gate = Gate::Closed { why: GateClosed::Starting };
        Self { gate, engine: None, rule: None, process: None, failing: None }
    }
}

/// The opening marker of this start of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Marker {
    Due,
    /// Until it is seen acked, by what satisfies every rule that may be open.
    Written {
        quorum: AckQuorum,
        at: Lsn,
    },
    Acked,
}

/// Sole owner of the engine's session and fence.
#[derive(Debug)]
pub struct GateLoop<E> {
    engine: E,
    orders: watch::Receiver<GateOrders>,
    report: watch::Sender<GateReport>,
    /// What is in force; `None` while that is not known.
    applied: Option<Gate>,
    marker: Marker,
}

impl<E: Engine> GateLoop<E> {
    /// A loop that has not looked yet.
    pub fn new(engine: E, orders: watch::Receiver<GateOrders>, report: watch::Sender<GateReport>) -> Self {
        Self { engine, orders, report, applied: None, marker: Marker::Due }
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
                () = tokio::time::sleep(pause) => {} // cancel-safe
            }
        }
    }

    /// One look and one step; every call inside has a deadline of the engine's session.
    async fn turn(&mut self, orders: &GateOrders) -> Duration {
        let mut report = self.report.borrow().clone();
        if report.process != orders.process {
            report = GateReport { process: orders.process, ..GateReport::unknown() };
            self.applied = None;
            self.marker = Marker::Due;
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
        }
        let failing = step.err().map(|err| Chain(&err).to_string());
        if failing.is_some() && failing != report.failing {
            debug!(error = failing, "gate not settled");
        }
        report.failing = failing;
        let settled = report.failing.is_none() && self.marker == Marker::Acked;
        let serving = !matches!(report.gate, Gate::Closed { .. });
        self.publish(report);
        if orders.process.is_none() || (settled && serving) { STEADY } else { WORKING }
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
        let looked = self.look(orders, report).await;
        let writable = report.engine.as_ref().is_some_and(|status| !status.in_recovery);
        let wanted = gate::judge(&GateInputs {
            member: orders.member.as_ref().map(|m| &m.member),
            engine_writable: writable,
            rule: report.rule.as_ref(),
            promise: orders.member.as_ref().and_then(|m| m.promise.as_ref()),
            marker_acked: self.marker == Marker::Acked,
            disk_healthy: orders.disk_healthy,
            nearly_full: orders.nearly_full,
            hold: orders.hold,
        });
        match (&report.engine, &wanted) {
            // Nobody can close an engine that does not answer but by stopping it, which whoever holds the gate does
            // next. Its files are closed already, so that it never comes back open.
            (None, Gate::Closed { why: GateClosed::DiskUnsafe | GateClosed::Stopping }) => {
                report.gate = wanted.clone();
                self.enforce(&wanted, report).await?;
            }
            (None, _) => {}
            // An engine in recovery was started closed, and its files also say how it recovers: leave them alone.
            (Some(status), _) if status.in_recovery => report.gate = wanted,
            // An engine that this loop has just met is closed by its files if it was just started, and was opened under
            // the rules if it was adopted: while its volume and its marker are looked up it stays as it was found.
            (Some(_), Gate::Closed { why: GateClosed::Starting | GateClosed::MarkerNotAcked })
                if self.applied.is_none() =>
            {
                report.gate = wanted;
            }
            (Some(_), _) => self.enforce(&wanted, report).await?,
        }
        looked
    }

    /// Reads the engine, and moves the marker on.
    async fn look(&mut self, orders: &GateOrders, report: &mut GateReport) -> Result<(), EngineError> {
        let status = self.engine.status().await;
        report.engine = status.as_ref().ok().cloned();
        if status?.in_recovery {
            return Ok(());
        }
        match self.marker.clone() {
            Marker::Acked => Ok(()),
            Marker::Due => self.write_marker(orders, report).await,
            Marker::Written { quorum, at } => self.see_marker(&quorum, at).await,
        }
    }

    async fn write_marker(
        &mut self,
        orders: &GateOrders,
        report: &mut GateReport,
    ) -> Result<(), EngineError> {
        let rules = self.engine.newest_rules().await?;
        report.rule = rules.first().cloned();
        let (Some(status), Some(membership)) = (&report.engine, &orders.member) else { return Ok(()) };
        let Some(rule) = opening::rule(membership, status, report.rule.as_ref()) else { return Ok(()) };
        let at = self.engine.write_rule(&rule).await?;
        info!(rule = %rule.id, position = %at, "opening marker written");
        report.rule = Some(rule.clone());
        // A refounding is the one exception: whoever could have acked under the rules before it is lost.
        let open = if membership.opening.as_ref() == Some(&rule) { &[] } else { &rules[..] };
        let quorum = AckQuorum::of_open(&rule, open);
        self.marker = Marker::Written { quorum: quorum.clone(), at };
        self.see_marker(&quorum, at).await
    }

    /// Acked means seen: the named voters' flush positions are past the marker, whatever COMMIT returned.
    async fn see_marker(&mut self, quorum: &AckQuorum, at: Lsn) -> Result<(), EngineError> {
        let flushed = self.engine.flushed().await?;
        if flushed.acked(quorum).is_some_and(|acked| acked >= at) {
            info!(position = %at, "opening marker acked");
            self.marker = Marker::Acked;
        }
        Ok(())
    }

    /// Puts `wanted` in force if it is not. A gate that could not be opened stays reported as closed; one that could
    /// not be closed stays reported as it was, so that nobody relies on it.
    async fn enforce(&mut self, wanted: &Gate, report: &mut GateReport) -> Result<(), EngineError> {
        if self.applied.as_ref().is_some_and(|applied| same_for_clients(applied, wanted)) {
            report.gate = wanted.clone();
            return Ok(());
        }
        let closing = matches!(wanted, Gate::Closed { .. });
        if !closing {
            report.gate = Gate::Closed { why: GateClosed::MarkerNotAcked };
        }
        self.applied = None;
        let sync = match (&self.marker, &report.rule) {
            (Marker::Written { quorum, .. }, _) => SyncStandbys::of_quorum(quorum.clone()),
            (Marker::Due | Marker::Acked, Some(rule)) => SyncStandbys::of(rule),
            (Marker::Due | Marker::Acked, None) => SyncStandbys::Nobody,
        };
        self.engine.apply_gate(wanted, &sync).await?;
        if let (true, Some(rule)) = (closing, &report.rule)
            && let Err(err) = self.engine.end_clients(rule).await
        {
            warn!(error = %Chain(&err), "client sessions not ended");
        }
        self.applied = Some(wanted.clone());
        report.gate = wanted.clone();
        Ok(())
    }
}

/// Two closed gates differ only in what is said about them.
fn same_for_clients(a: &Gate, b: &Gate) -> bool {
    a == b || matches!((a, b), (Gate::Closed { .. }, Gate::Closed { .. }))
}
