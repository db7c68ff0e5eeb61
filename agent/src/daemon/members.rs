//! What members ask of this node, and what it coordinates for others.
//!
//! Not here: judging a promise (`holdfast_replication::promise`), an attempt at another primary
//! (`holdfast_orchestrator`).

use holdfast_model::status::Operation;
use holdfast_model::{Lsn, Rule};
use holdfast_replication::choose::Report;

use crate::api::control::{
    AskNear, AskVote, AwaitPosition, CallError, ChangeMember, Close, Failover, Follow, Promote, Recruit,
    Reopen, Switchover, Vote,
};
use crate::reconcile::Node;

fn not_joined() -> CallError {
    CallError::Unavailable { what: "replication", why: "not joined yet".to_owned() }
}

impl Node {
    /// Every rule in this member's log, oldest first.
    pub(super) async fn own_rules(&self) -> Result<Vec<Rule>, CallError> {
        Err(not_joined())
    }

    /// Whether this member misses the primary too.
    pub(super) async fn vote(&self, _request: AskVote) -> Result<Vote, CallError> {
        Err(not_joined())
    }

    /// As the primary: whether the candidate lacks little.
    pub(super) async fn near(&self, _request: AskNear) -> Result<bool, CallError> {
        Err(not_joined())
    }

    /// Promises, stops receiving, reports.
    pub(super) async fn be_recruited(&self, _request: Recruit) -> Result<Report<Lsn>, CallError> {
        Err(not_joined())
    }

    /// Begins the promised term.
    pub(super) async fn be_promoted(&self, _request: Promote) -> Result<Rule, CallError> {
        Err(not_joined())
    }

    /// Receives from the primary of a rule.
    pub(super) async fn begin_following(&self, _request: Follow) -> Result<(), CallError> {
        Err(not_joined())
    }

    /// As the primary: keeps clients out, tells where the log ends.
    pub(super) async fn close_gate(&self, _request: Close) -> Result<Lsn, CallError> {
        Err(not_joined())
    }

    /// Answers once the log up to a position is held.
    pub(super) async fn hold_position(&self, _request: AwaitPosition) -> Result<(), CallError> {
        Err(not_joined())
    }

    /// As the primary: lets clients in again.
    pub(super) async fn reopen_gate(&self, _request: Reopen) -> Result<(), CallError> {
        Err(not_joined())
    }

    /// Coordinates a failover.
    pub(super) async fn begin_failover(&self, _request: Failover) -> Result<Operation, CallError> {
        Err(not_joined())
    }

    /// Coordinates a switchover.
    pub(super) async fn begin_switchover(&self, _request: Switchover) -> Result<Operation, CallError> {
        Err(not_joined())
    }

    /// Coordinates a change of who votes.
    pub(super) async fn begin_change(&self, _request: ChangeMember) -> Result<Operation, CallError> {
        Err(not_joined())
    }
}
