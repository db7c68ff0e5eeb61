//! A turn of the gate loop: mirrors `agent/src/gate_loop/mod.rs`.

use std::rc::Rc;

use holdfast_agent_decide::gate::{self, GateInputs};
use holdfast_model::peer::Part;
use holdfast_model::status::{Gate, GateClosed};

use super::writer::{Marker, Writer};
use super::{Agent, GateOrders, GateReport};
use crate::world::{Event, World};

const STEADY_MS: u64 = 1_000;
const WORKING_MS: u64 = 200;

impl World {
    pub(crate) fn gate_is_due(&mut self, n: usize, life: u64) {
        let now = self.now;
        if self.nodes[n].agent.as_ref().is_some_and(|agent| agent.life == life && agent.gate_due == now) {
            self.with_agent(n, |world, agent| world.gate_turn(n, agent));
        }
    }

    /// One look and one step, and what callers waited for.
    pub(super) fn gate_turn(&mut self, n: usize, agent: &mut Agent) {
        let orders = Rc::clone(&agent.orders);
        let before = Gist::of(&agent.report);
        let mut report = agent.report.clone();
        if report.process != orders.process {
            report = GateReport { process: orders.process, ..GateReport::unknown() };
            agent.writer = Writer::new();
            agent.standby = agent.standby.of_new_process();
        }
        if orders.member.is_some() && !orders.disk_healthy {
            report.gate = Gate::Closed { why: orders.hold.unwrap_or(GateClosed::DiskUnsafe) };
        }
        match orders.process {
            Some(process) => self.gate_step(n, agent, (&orders, process), &mut report),
            None => {
                report.gate = Gate::Closed { why: orders.hold.unwrap_or(GateClosed::NoEngine) };
                report.part = Part::None;
            }
        }
        report.received = agent.standby.received();
        let steady = is_settled(&orders, &report, &agent.writer);
        agent.report = report;
        let ms = if steady { STEADY_MS } else { WORKING_MS };
        agent.gate_due = self.now.after_millis(ms);
        self.at(agent.gate_due, Event::Gate { n, life: agent.life });
        if Gist::of(&agent.report) != before {
            let at = self.now.after_millis(1);
            agent.reconcile_due = at;
            self.at(at, Event::Reconcile { n, life: agent.life });
        }
        self.go_on_with_calls(n, agent);
    }

    fn gate_step(&mut self, n: usize, agent: &mut Agent, to: (&GateOrders, u64), report: &mut GateReport) {
        let (orders, process) = to;
        report.engine = self.status(n, process);
        match report.engine {
            None => report.part = Part::None,
            Some(status) if status.recovers && orders.replays => {
                report.part = Part::Waits { why: String::new() };
            }
            Some(status) if status.recovers => self.stand_by(n, agent, (orders, process), report),
            Some(_) => self.look_at_writer(n, agent, (orders, process), report),
        }
        let writable = report.engine.is_some_and(|status| !status.recovers);
        let wanted = gate::judge(&GateInputs {
            member: orders.member.as_ref().map(|m| &m.member),
            engine_writable: writable,
            rule: report.rule.as_deref(),
            promise: orders.member.as_ref().and_then(|m| m.promise.as_ref()),
            marker_acked: agent.writer.marker == Marker::Acked,
            disk_healthy: orders.disk_healthy,
            nearly_full: false,
            hold: orders.hold,
        });
        match (report.engine, &wanted) {
            (None, Gate::Closed { why: GateClosed::DiskUnsafe | GateClosed::Stopping }) => {
                report.gate = wanted
            }
            (None, _) => {}
            (Some(status), wanted) if status.recovers => {
                report.gate = match agent.standby.read_in(&report.part) {
                    Some(term) => Gate::ReadOnly { term },
                    None => wanted.clone(),
                };
            }
            (Some(_), Gate::Closed { why: GateClosed::Starting | GateClosed::MarkerNotAcked })
                if agent.writer.stays_as_found(orders) =>
            {
                report.gate = wanted;
            }
            (Some(_), _) => {
                self.enforce(n, agent, (orders, process), &wanted, report);
                self.go_on_with_change(n, agent, (orders, process), report);
            }
        }
    }
}

fn is_settled(orders: &GateOrders, report: &GateReport, writer: &Writer) -> bool {
    let serving = !matches!(report.gate, Gate::Closed { .. });
    match &report.part {
        _ if orders.process.is_none() => true,
        Part::Follows { streaming, .. } => *streaming,
        Part::Diverged { .. } | Part::Recruited { .. } | Part::Rewinds { .. } => true,
        Part::Writes { .. } => serving && writer.is_settled() && orders.change.is_none(),
        Part::Waits { .. } | Part::None => false,
    }
}

/// What of a report wakes the reconcile loop: everything but positions.
#[derive(PartialEq)]
struct Gist {
    gate: Gate,
    recovers: Option<bool>,
    rule: Option<holdfast_model::RuleId>,
    part: u8,
    streams: usize,
    process: Option<u64>,
}

impl Gist {
    fn of(report: &GateReport) -> Self {
        let (part, streams) = match &report.part {
            Part::None => (0, 0),
            Part::Writes { streams, change, .. } => (1 + u8::from(change.is_some()), streams.len()),
            Part::Follows { streaming, .. } => (3 + u8::from(*streaming), 0),
            Part::Recruited { .. } => (5, 0),
            Part::Waits { .. } => (6, 0),
            Part::Diverged { .. } => (7, 0),
            Part::Rewinds { .. } => (8, 0),
        };
        Self {
            gate: report.gate.clone(),
            recovers: report.engine.map(|status| status.recovers),
            rule: report.rule.as_ref().map(|rule| rule.id),
            part,
            streams,
            process: report.process,
        }
    }
}
