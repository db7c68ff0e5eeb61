//! What members ask of this node, and what it coordinates for others.
//!
//! Not here: judging a promise (`holdfast_replication::promise`), an attempt at another primary
//! (`holdfast_orchestrator`).

use holdfast_model::status::Operation;
use holdfast_model::{Position, Rule};
use holdfast_replication::choose::Report;

use crate::api::control::{
    AskNear, AskVote, AwaitPosition, CallError, ChangeMember, Close, Failover, Follow, Promote, Recruit,
    Reopen, Switchover, Vote,
};
use crate::reconcile::Node;

impl Node {
    /// Every rule in this member's log, oldest first.
    pub(super) async fn own_rules(&self) -> Result<Vec<Rule>, CallError> {
        self.rules_of_log().await
    }

    /// Whether this member misses the primary too.
    pub(super) async fn vote(&self, request: AskVote) -> Result<Vote, CallError> {
        Ok(if self.misses(&request.primary) { Vote::MissesPrimary } else { Vote::SeesPrimary })
    }

    /// As the primary: whether the candidate lacks little.
    pub(super) async fn near(&self, request: AskNear) -> Result<bool, CallError> {
        Ok(self.is_near(&request.candidate))
    }

    /// Promises, stops receiving, reports.
    pub(super) async fn be_recruited(&self, request: Recruit) -> Result<Report<Position>, CallError> {
        self.take_recruit(request.attempt).await
    }

    /// Begins the promised term.
    pub(super) async fn be_promoted(&self, request: Promote) -> Result<Rule, CallError> {
        self.begin_reign(request.certificate).await
    }

    /// Receives from the primary of a rule.
    pub(super) async fn begin_following(&self, _request: Follow) -> Result<(), CallError> {
        self.look_whom_to_follow();
        Ok(())
    }

    /// As the primary: keeps clients out, tells where the log ends.
    pub(super) async fn close_gate(&self, _request: Close) -> Result<Position, CallError> {
        self.close_for_handover().await
    }

    /// Answers once the log up to a position is held.
    pub(super) async fn hold_position(&self, request: AwaitPosition) -> Result<(), CallError> {
        self.received(&request.position).await
    }

    /// As the primary: lets clients in again.
    pub(super) async fn reopen_gate(&self, _request: Reopen) -> Result<(), CallError> {
        self.reopen();
        Ok(())
    }

    /// Coordinates a failover.
    pub(super) async fn begin_failover(&self, request: Failover, by: &str) -> Result<Operation, CallError> {
        self.coordinate_failover(request, by).await
    }

    /// Coordinates a switchover.
    pub(super) async fn begin_switchover(&self, request: Switchover) -> Result<Operation, CallError> {
        self.coordinate_switchover(request).await
    }

    /// Coordinates a change of who votes.
    pub(super) async fn begin_change(&self, request: ChangeMember) -> Result<Operation, CallError> {
        self.coordinate_change(request).await
    }
}
