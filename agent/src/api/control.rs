//! What the API needs from the daemon. Requests come in model terms, validated and meant for this node.
//!
//! Every mutating call is checked against the newest view by [`super::target`] before it gets here; whoever acts on
//! it re-checks just before the effect, because the view may have changed in between. A repeated request id must
//! have the effect of one request, also across a restart of the daemon (I16): persist it before the effect.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_model::status::{NodeView, Operation};
use holdfast_model::{Position, Rule, Vouch};
use holdfast_proto::refusal::Refusal;
use holdfast_replication::account::LossCertificate;
use holdfast_replication::choose::Report;
use holdfast_replication::promise;
use tokio::sync::watch;

pub use holdfast_proto::refusal::Reason;
pub use holdfast_proto::reply::{
    Backup, BackupContent, BackupDetail, Blocker, Explanation, LogRange, LogStatus, PlannedDevice,
    PlannedStep, Vote, WipeConsent,
};
pub use holdfast_proto::request::{
    AllowWipe, AskNear, AskVote, AwaitPosition, Bootstrap, ChangeMember, Close, Failover, Follow,
    FormatVolume, MemberChange, Promote, Recruit, Reopen, RequestId, Restore, SeenDevice, Switchover, Target,
    VerdictKind, WipeVolume,
};

/// Why a call had no effect, or none that can be vouched for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not obeyed: says what is missing and what would resolve it. Sent with the code of its reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The member stands by something else. Sent with what that is, so that a coordinator can begin above it.
    #[error(transparent)]
    Declined(#[from] promise::Refused),
    /// Something that this needs does not answer now; the same call may be made again. Sent as `UNAVAILABLE`.
    #[error("{what} does not answer now: {why}")]
    Unavailable {
        /// What does not answer, e.g. `the repository`.
        what: &'static str,
        /// The whole chain of causes.
        why: String,
    },
    /// It was tried and failed. Sent as `INTERNAL`.
    #[error("{what} failed: {why}")]
    Failed {
        /// What was tried, e.g. `read backup 20250101T000000Z`.
        what: String,
        /// The whole chain of causes.
        why: String,
    },
}

/// The daemon as the API sees it. Every method answers soon: long work is begun, and followed as an
/// [`Operation`] in the view under the id that the call returned.
///
/// Calls are dropped when the caller goes away, so whatever must finish runs in a task of the daemon's own.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// The newest view and each that follows.
    fn view(&self) -> watch::Receiver<Arc<NodeView>>;

    /// Looks at every candidate device and says what would be done with it; writes nothing.
    async fn plan_volume(&self) -> Result<Vec<PlannedDevice>, CallError>;

    /// Formats the named device if it is still blank. Called only when remote format is switched on.
    async fn format_volume(&self, request: FormatVolume) -> Result<Operation, CallError>;

    /// Looks at the named device again and issues a single-use token to wipe exactly what is there. Called only
    /// when remote format is switched on.
    async fn allow_wipe(&self, request: AllowWipe) -> Result<WipeConsent, CallError>;

    /// Wipes what the token names. Called only when remote format is switched on.
    async fn wipe_volume(&self, request: WipeVolume) -> Result<Operation, CallError>;

    /// Begins to make the first member of a new cluster. The token was compared with the cluster's name.
    async fn bootstrap(&self, request: Bootstrap) -> Result<Operation, CallError>;

    /// Records that the engine shall run.
    async fn start_engine(&self, target: Target) -> Result<(), CallError>;

    /// Records that the engine shall be stopped and stay so.
    async fn stop_engine(&self, target: Target) -> Result<(), CallError>;

    /// Begins to rebuild this node's data from the repository; never on top of data that is there.
    async fn restore(&self, request: Restore) -> Result<Operation, CallError>;

    /// Begins a backup.
    async fn create_backup(&self, target: Target) -> Result<Operation, CallError>;

    /// Complete backups, newest first, at most `limit`.
    async fn list_backups(&self, limit: u32) -> Result<Vec<Backup>, CallError>;

    /// One backup; [`Reason::NotFound`] when there is none of that id.
    async fn show_backup(&self, id: &str) -> Result<BackupDetail, CallError>;

    /// How far the log is shipped, and what of it the repository holds.
    async fn log_status(&self) -> Result<LogStatus, CallError>;

    /// Every rule in this member's log, oldest first.
    async fn rules(&self) -> Result<Vec<Rule>, CallError>;

    /// Whether this member misses the primary too.
    async fn ask_vote(&self, request: AskVote) -> Result<Vote, CallError>;

    /// As the primary: whether the candidate lacks so little that it is sent in an instant.
    async fn ask_near(&self, request: AskNear) -> Result<bool, CallError>;

    /// Promises the term, stops receiving for certain, and tells how far the log goes with everything applied. Its target's
    /// term was not compared: [`CallError::Declined`] tells what this member stands by. As for the next two.
    async fn recruit(&self, request: Recruit) -> Result<Report<Position>, CallError>;

    /// Begins the term that was promised, if the certificate holds: answers with its first rule once that is in the log.
    async fn promote(&self, request: Promote) -> Result<Rule, CallError>;

    /// Receives from the primary of the rule. Answers once that is stored; the view tells what comes of it.
    async fn follow(&self, request: Follow) -> Result<(), CallError>;

    /// As the primary: keeps clients out, ends what runs, and tells where the log ends. Opens by itself again if nothing is
    /// heard for a while.
    async fn close(&self, request: Close) -> Result<Position, CallError>;

    /// Answers once this member holds the log up to the position; [`CallError::Unavailable`] when that takes long, and the
    /// caller asks again.
    async fn await_position(&self, request: AwaitPosition) -> Result<(), CallError>;

    /// As the primary: lets clients in again after [`Self::close`].
    async fn reopen(&self, request: Reopen) -> Result<(), CallError>;

    /// Begins to make another member the primary, because the primary is gone; this node coordinates. `by` names whose
    /// call it is.
    async fn failover(&self, request: Failover, by: &str) -> Result<Operation, CallError>;

    /// The last word that this node took in place of votes.
    async fn vouch(&self) -> Result<Option<Vouch>, CallError>;

    /// How the newest reign that this node knows of came about, if by a failover or a switchover. May ask the repository.
    async fn certificate(&self) -> Result<Option<LossCertificate>, CallError>;

    /// Begins to make a named node's member the primary; this node coordinates.
    async fn switchover(&self, request: Switchover) -> Result<Operation, CallError>;

    /// Begins to change who votes; this node coordinates, and the primary changes its rule.
    async fn change_member(&self, request: ChangeMember) -> Result<Operation, CallError>;
}
