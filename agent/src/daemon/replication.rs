//! What a member is asked by whoever coordinates: to vote, to be recruited, promoted, closed. Safety is this member's own
//! judgement (`replication`), on its own volume's promise and its own engine's log; the caller's word counts for nothing.
//!
//! Each call may be repeated, cut off anywhere, and heard late (I16): what was promised stays promised, and everything else
//! follows from that and from what is on the volume, in the loops.

use std::sync::Arc;
use std::time::Duration;

use holdfast_model::peer::{Part, PeerView};
use holdfast_model::status::Gate;
use holdfast_model::step;
use holdfast_model::{Member, Position, Promise, Rule};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::{self, Attempt, Promised, Standing};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::control::refused;
use super::coordinate::newest_rule;
use crate::api::control::{CallError, Reason};
use crate::chain::Chain;
use crate::data::DataRecord;
use crate::gate_loop::GateReport;
use crate::reconcile::{Desk, Node};

/// A primary that was not heard for so long is missed. Four questions of `peers`.
const MISSED_MS: u64 = 2_000;
/// What a candidate may lack when a handover begins: a second of a busy log.
const NEAR_BYTES: u64 = 16 << 20;
/// The same where transactions are counted.
const NEAR_TRANSACTIONS: u64 = 10_000;
/// For an engine that has to be stopped, and started again as a standby, before it can be recruited.
const STANDBY_WITHIN: Duration = Duration::from_secs(9);
const RECRUIT_WITHIN: Duration = Duration::from_secs(9);
const PROMOTE_WITHIN: Duration = Duration::from_secs(12);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const RULES_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks whether clients have ended.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

impl Node {
    fn member_desk(&self) -> Result<Arc<Desk>, CallError> {
        self.desk.borrow().clone().ok_or_else(|| {
            refused(Reason::NoVolume, "this node has no volume now", "see 'holdfast status' of this node")
        })
    }

    fn gate_report(&self) -> GateReport {
        self.gate.borrow().clone()
    }

    async fn gate_shows(
        &self,
        within: Duration,
        what: &'static str,
        wanted: impl Fn(&GateReport) -> bool,
    ) -> Result<GateReport, CallError> {
        let mut gate = self.gate.clone();
        match timeout(within, gate.wait_for(|report| wanted(report))).await {
            Ok(Ok(report)) => Ok(report.clone()),
            Ok(Err(_)) | Err(_) => {
                Err(CallError::Unavailable { what, why: self.view.borrow().reason.clone() })
            }
        }
    }

    /// Every rule in this member's log, oldest first.
    pub(super) async fn rules_of_log(&self) -> Result<Vec<Rule>, CallError> {
        self.gate_loop.rules(RULES_WITHIN).await.map_err(|err| unavailable("the engine", &err))
    }

    /// Whether this node misses the primary: neither its agent nor its log is heard of, or its agent says that it does not
    /// write. One that only waits for acks does write.
    pub(super) fn misses(&self, primary: &Member) -> bool {
        let view = self.view.borrow().clone();
        // A coordinator that knows less than this node must not depose whoever came after.
        if newest_rule(&view).is_some_and(|rule| rule.primary != *primary) {
            return false;
        }
        // A connection alone says nothing: TCP finds out late that nobody is there.
        let lately = Duration::from_millis(MISSED_MS);
        let receives = matches!(&view.part, Part::Follows { primary: from, streaming: true } if from == primary)
            && self.gate_report().received.is_some_and(|at| at.elapsed() < lately);
        let peer = view.peers.iter().find(|peer| peer.node == primary.node);
        match peer {
            Some(peer) if is_heard(peer) => !peer.said.as_ref().is_some_and(|said| {
                said.member.as_ref() == Some(primary) && matches!(said.part, Part::Writes { .. })
            }),
            Some(_) => !receives,
            // Its own engine.
            None if view.node == primary.node => !matches!(view.part, Part::Writes { .. }),
            None => !receives,
        }
    }

    /// Whether a member that receives from here lacks only what is sent in an instant.
    pub(super) fn is_near(&self, candidate: &Member) -> bool {
        let report = self.gate_report();
        let (Part::Writes { streams, .. }, Some(engine)) = (&report.part, &report.engine) else {
            return false;
        };
        let near = match engine.flushed {
            Position::Lsn(_) => NEAR_BYTES,
            Position::Gtids(_) => NEAR_TRANSACTIONS,
        };
        streams
            .get(candidate)
            .is_some_and(|flushed| engine.flushed.ordinal().saturating_sub(flushed.ordinal()) <= near)
    }

    /// Promises, stops receiving, and tells how far the log goes. A primary is stopped and comes up as a standby first.
    pub(super) async fn take_recruit(&self, attempt: Attempt) -> Result<Report<Position>, CallError> {
        let desk = self.member_desk()?;
        let (facts, member) = (desk.facts(), desk.member());
        let last_rule = self.gate_report().rule.map(|rule| rule.id);
        let standing = Standing { member: &member, promise: facts.promise.as_ref(), last_rule };
        match promise::recruit(standing, attempt)? {
            Promised::Now(Attempt { term, id }) => {
                let cluster = facts.identity.cluster_id.clone().ok_or_else(no_data)?;
                let promise = Promise { cluster, member: member.clone(), max_term: term, attempt: id };
                desk.promise(promise).await.map_err(|err| unavailable("the disk", &err))?;
                info!(%term, "term promised to whoever recruits for it");
                debug!(target: step::TARGET, step = step::recruit::PROMISED.name());
            }
            Promised::Already => desk.keep_promise().await.map_err(|err| unavailable("the disk", &err))?,
        }
        self.wake.notify_one();
        // What replays is none of this member's data yet.
        let orders = self.orders.subscribe();
        let recovers = |report: &GateReport| {
            report.engine.as_ref().is_some_and(|engine| engine.in_recovery) && !orders.borrow().replays
        };
        self.gate_shows(STANDBY_WITHIN, "the engine", recovers).await?;
        let stands = match self.gate_loop.recruit(member.clone(), attempt.term, RECRUIT_WITHIN).await {
            Ok(stands) => stands,
            // The server is that of another incarnation by now.
            Err(err) if self.member_desk()?.member() != member => {
                return Err(unavailable("the member", &err));
            }
            Err(err) => {
                // It may still receive: stopped at once, and started again by files without an upstream.
                warn!(error = %Chain(&err), "not recruited in time, stopping the engine");
                self.engine.stop(crate::supervisor::stop::StopBy::Immediate).await;
                return Err(unavailable("the engine", &err));
            }
        };
        // What was promised meanwhile, and what was found in the log, count as well.
        let facts = desk.facts();
        let last_rule = stands.rules.first().map(|rule| rule.id);
        promise::recruit(Standing { member: &member, promise: facts.promise.as_ref(), last_rule }, attempt)?;
        let before = facts.promise.map(|promise| promise.max_term).filter(|term| *term < attempt.term);
        debug!(target: step::TARGET, step = step::recruit::REPORTED.name());
        Ok(Report { member, rules: stands.rules, position: stands.position, promised_before: before })
    }

    /// Begins the term that was promised. The answer is its first rule, in this member's log and not yet acked.
    pub(super) async fn begin_reign(&self, certificate: Certificate<Position>) -> Result<Rule, CallError> {
        let desk = self.member_desk()?;
        let (facts, member) = (desk.facts(), desk.member());
        let term = certificate.attempt.term;
        let last_rule = self.gate_report().rule.map(|rule| rule.id);
        let standing = Standing { member: &member, promise: facts.promise.as_ref(), last_rule };
        promise::promote(standing, certificate.attempt)?;
        if certificate.chosen != member || !certificate.holds() {
            let missing =
                format!("the certificate of term {term} does not show that {member} may be promoted");
            return Err(refused(Reason::WrongTarget, missing, "recruit again, above this term"));
        }
        let begun = |report: &GateReport| {
            report.rule.as_ref().is_some_and(|rule| rule.id.term == term && rule.primary == member)
        };
        if !begun(&self.gate_report()) {
            self.shelf().keep_certificate(certificate);
            let cluster = facts.identity.cluster_id.clone().ok_or_else(no_data)?;
            let record = DataRecord::Ready { cluster, reign: Some(term) };
            desk.write_data(record).await.map_err(|err| unavailable("the disk", &err))?;
            debug!(target: step::TARGET, step = step::promote::RECORDED.name());
            self.wake.notify_one();
            self.gate_loop
                .promote(member.clone(), term, PROMOTE_WITHIN)
                .await
                .map_err(|err| unavailable("the engine", &err))?;
            self.wake.notify_one();
        }
        let report = self.gate_shows(PROMOTE_WITHIN, "the engine", begun).await?;
        report.rule.ok_or_else(no_data)
    }

    /// Looks at once whom to follow; who that is, and whether the log allows it, this member finds out by itself.
    pub(super) fn look_whom_to_follow(&self) {
        self.wake.notify_one();
    }

    /// Keeps clients out and ends what runs; where the log ends then. Opens again by itself after a while.
    pub(super) async fn close_for_handover(&self) -> Result<Position, CallError> {
        self.handover.begin();
        self.wake.notify_one();
        let closed = |report: &GateReport| matches!(report.gate, Gate::Closed { .. });
        self.gate_shows(CLOSE_WITHIN, "the gate", closed).await?;
        let until = Instant::now() + CLOSE_WITHIN;
        loop {
            match self.gate_loop.drain(CLOSE_WITHIN).await {
                Ok(position) => return Ok(position),
                Err(err) if Instant::now() >= until => {
                    self.handover.end();
                    self.wake.notify_one();
                    return Err(unavailable("the engine's clients", &err));
                }
                Err(_) => tokio::time::sleep(DRAIN_EVERY).await,
            }
        }
    }

    /// Lets clients in again, if this member still is the primary.
    pub(super) fn reopen(&self) {
        self.handover.end();
        self.wake.notify_one();
    }

    /// Waits until this member has received everything up to `position`.
    pub(super) async fn received(&self, position: &Position) -> Result<(), CallError> {
        let has = |report: &GateReport| {
            report.engine.as_ref().is_some_and(|engine| engine.in_recovery && engine.flushed >= *position)
        };
        self.gate_shows(CLOSE_WITHIN, "the log", has).await?;
        Ok(())
    }
}

fn is_heard(peer: &PeerView) -> bool {
    peer.heard_ms.is_some_and(|heard| heard < MISSED_MS) && peer.failing.is_none()
}

fn no_data() -> CallError {
    refused(Reason::NoData, "this node belongs to no cluster yet", "let it join: see 'holdfast status'")
}

fn unavailable(what: &'static str, err: &(dyn std::error::Error + 'static)) -> CallError {
    CallError::Unavailable { what, why: Chain(err).to_string() }
}
