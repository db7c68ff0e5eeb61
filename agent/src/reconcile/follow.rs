//! Following a primary that reigns elsewhere: what is promised, written and asked before, and what is given up when the own
//! log cannot follow.
//!
//! Crash-safe by order: a promise before anything that it is for; that this member does not reign before it follows, so that
//! it never resumes; what is beyond the chain kept before its data is given up.

use std::sync::Arc;

use holdfast_agent_decide::members;
use holdfast_engine::links::Upstream;
use holdfast_model::step;
use holdfast_model::{NodeName, Promise, Rule};
use holdfast_proto::refusal::Reason;
use holdfast_replication::promise::{self, Attempt, Promised, Standing};
use tracing::{debug, info, warn};

use super::Reconciler;
use super::act::ActError;
use crate::api::CallError;
use crate::chain::Chain;
use crate::clock;
use crate::data::{DataRecord, JoinStage, Joining};
use crate::gate_loop::FollowOrder;

impl Reconciler {
    /// Takes part in nothing below a term that has begun elsewhere any more.
    pub(super) async fn promise(&self, rule: &Rule) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let (facts, member) = (desk.facts(), desk.member());
        let standing = Standing { member: &member, promise: facts.promise.as_ref(), last_rule: None };
        let attempt = Attempt { term: rule.id.term, id: clock::random_bits() };
        match promise::follow(standing, rule, attempt) {
            Ok(Promised::Now(Attempt { term, id })) => {
                let cluster = facts.identity.cluster_id.ok_or(ActError::NoCluster)?;
                desk.promise(Promise { cluster, member, max_term: term, attempt: id }).await?;
                info!(%term, by = %rule.primary, "term promised: it reigns elsewhere");
                debug!(target: step::TARGET, step = step::follow::PROMISED.name());
                Ok(())
            }
            Ok(Promised::Already) => Ok(desk.keep_promise().await?),
            Err(refused) => {
                warn!(%refused, "term not promised");
                Ok(())
            }
        }
    }

    /// Orders the gate loop to follow, with all that it needs to judge whether the own log allows it.
    pub(super) async fn follow(&mut self, node: &NodeName) -> Result<(), ActError> {
        let view = Arc::clone(&self.node.view.borrow());
        let Some(reigning) = members::reigning(&view).filter(|reigning| reigning.peer.node == *node) else {
            return Ok(());
        };
        let (rule, desk) = (reigning.rule, self.volume.desk().ok_or(ActError::NoVolume)?);
        let same = |order: &FollowOrder| {
            order.primary == rule.primary
                && order.upstream.term == rule.id.term
                && order.upstream.member == desk.member()
        };
        if self.follow.as_ref().is_some_and(same) {
            return Ok(());
        }
        let Some(peer) = self.node.config.peers.iter().find(|peer| peer.node == *node) else { return Ok(()) };
        let asked = self.node.peers.rules(node).await;
        let chain = asked.map_err(|source| ActError::Peer { node: node.clone(), source })?;
        if let Ok(Some(DataRecord::Ready { cluster, reign: Some(_) })) = desk.facts().data {
            desk.write_data(DataRecord::Ready { cluster, reign: None }).await?;
            debug!(target: step::TARGET, step = step::follow::RESIGNED.name());
        }
        let upstream =
            Upstream { node: node.clone(), address: peer.engine, member: desk.member(), term: rule.id.term };
        self.follow = Some(FollowOrder { primary: rule.primary.clone(), upstream, chain: Arc::new(chain) });
        debug!(target: step::TARGET, step = step::follow::ORDERED.name());
        self.tell_gate();
        Ok(())
    }

    /// Nobody counts on this data any more, and its log leads nowhere: it is replaced by what the cluster has.
    pub(super) async fn give_up_data(&mut self) -> Result<(), ActError> {
        let desk = self.volume.desk().ok_or(ActError::NoVolume)?;
        let Ok(Some(DataRecord::Ready { cluster, .. })) = desk.facts().data else { return Ok(()) };
        warn!("this member's log has left the cluster's: its data is replaced");
        let stage = JoinStage::Begun { tail: self.node.gate.borrow().tail.clone() };
        desk.write_data(DataRecord::Joining(Joining { cluster, stage })).await?;
        self.follow = None;
        Ok(())
    }

    /// The first backup of a cluster: without one no other node could join.
    pub(super) fn start_first_backup(&self) {
        let node = Arc::clone(&self.node);
        self.node.tasks.spawn(async move {
            match node.begin_backup().await {
                Ok(operation) => info!(operation = operation.id, "first backup of the cluster begun"),
                // By an operator, or by the plan of a moment ago.
                Err(CallError::Refused(refusal)) if refusal.reason == Reason::Busy => {
                    debug!(missing = refusal.missing, "first backup of the cluster not begun");
                }
                Err(err) => warn!(error = %Chain(&err), "first backup of the cluster not begun"),
            }
        });
    }
}
