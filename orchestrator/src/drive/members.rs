//! What a driver needs of members: that requests are carried to them.

use async_trait::async_trait;
use holdfast_model::{Member, Position, Rule, Term};
use holdfast_replication::choose::{Certificate, Report};
use holdfast_replication::promise::Attempt;

use crate::failover::{Declined, Vote};

/// Carries requests to members and brings back their answers: one method for each kind of request of the cores.
///
/// Each method ends by a deadline of its own, with [`Declined::Unreachable`] when nothing was heard by then: a request is
/// not repeated while it is still under way. It may be dropped at any await, and the member may have done what it was
/// asked all the same.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Whether `to` misses `primary` too.
    async fn ask_vote(&self, to: &Member, primary: &Member) -> Result<Vote, Declined>;

    /// `to` promises, stops receiving, and tells how far its log goes.
    async fn recruit(&self, to: &Member, attempt: Attempt) -> Result<Report<Position>, Declined>;

    /// `to` begins the term, and answers with its first rule once that is in its log.
    async fn promote(&self, to: &Member, certificate: &Certificate<Position>) -> Result<Rule, Declined>;

    /// `to` receives from the primary of `rule`, which `attempt` made.
    async fn follow(&self, to: &Member, rule: &Rule, attempt: Attempt) -> Result<(), Declined>;

    /// The term in which the gate of `member` is open; none when it is not, or when that is not known.
    async fn opened(&self, member: &Member) -> Option<Term>;

    /// The repository keeps `certificate`. Nobody waits for it.
    async fn keep(&self, certificate: &Certificate<Position>);

    /// Whether `candidate` is so near to the primary `to` that the rest is sent in an instant.
    async fn ask_near(&self, to: &Member, candidate: &Member) -> Result<bool, Declined>;

    /// The primary `to` keeps clients out, ends what runs, and tells where its log ends.
    async fn close(&self, to: &Member) -> Result<Position, Declined>;

    /// Answers once `to` holds everything up to `position`.
    async fn await_position(&self, to: &Member, position: &Position) -> Result<(), Declined>;

    /// The primary `to` lets clients in again.
    async fn reopen(&self, to: &Member) -> Result<(), Declined>;
}
