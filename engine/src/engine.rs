//! What the agent's loops ask of an engine, so that a real one and a simulated one are interchangeable.
//!
//! Not here: processes (the agent starts a [`crate::Launch`], finds it again and stops it) and files below
//! the data directory (workers read and write those).

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::{Gate, Weakened};
use holdfast_model::{Member, NodeName, Position, Rule, Term};
use holdfast_replication::catch_up::Attachment;

use crate::ackers::Ackers;
use crate::flushed::Flushed;
use crate::links::Upstream;
use crate::postgres::standby::Hands;
use crate::standing::{Following, Promoted, Recruited};

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes, after a while.
    Backoff,
    /// Not before somebody changes something.
    Never,
}

/// The cause of an [`EngineError`].
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not run, does not answer yet, or answers no longer.
    #[error("{doing}: the engine does not answer")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// It answers and refuses, or would do the wrong thing.
    #[error("{doing}: the engine refuses")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Asked for in the wrong order.
    #[error("{0}")]
    Order(&'static str),
}

impl EngineError {
    /// It answers and refuses.
    pub(crate) fn refused(doing: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Refused { doing, source: Box::new(source) }
    }

    /// It does not answer now.
    pub(crate) fn unavailable(doing: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { doing, source: Box::new(source) }
    }

    /// By whether trying again can help.
    pub(crate) fn by(retry: Retry, doing: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        match retry {
            Retry::Backoff => Self::unavailable(doing, source),
            Retry::Never => Self::refused(doing, source),
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Backoff,
            Self::Refused { .. } | Self::Order(_) => Retry::Never,
        }
    }
}

/// A running engine, as the view of a node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    /// Version as people write it, e.g. `15.13`.
    pub version: String,
    /// Which cluster's data it serves, by the engine's own mark.
    pub system_identifier: u64,
    /// Whether it still replays log.
    pub in_recovery: bool,
    /// The term of its data.
    pub term: Term,
    /// Durable on the local disk up to here.
    pub flushed: Position,
}

/// What a restore needs besides a backup's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEnd {
    /// Replay begins here.
    pub start: Position,
    /// Replay must come at least to here before the data is consistent.
    pub stop: Position,
    /// What the engine must find in the restored directory before it starts, in a file of its own; empty when it needs none.
    pub label: String,
}

/// One engine with its data directory. All calls have deadlines of their own.
#[async_trait]
pub trait Engine: Send {
    /// What it is doing.
    async fn status(&mut self) -> Result<EngineStatus, EngineError>;

    /// The newest rule in its own log and that rule's predecessor, newest first; fewer when there are fewer.
    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError>;

    /// Every rule in its own log, oldest first.
    async fn rules(&mut self) -> Result<Vec<Rule>, EngineError>;

    /// Writes a rule and its marker, and with them, at once, those `before` it, oldest first; returns a position past all of
    /// them. Idempotent for the newest rule.
    async fn write_rules(&mut self, before: &[Rule], rule: &Rule) -> Result<Position, EngineError>;

    /// How far its log is flushed, here and on those who may ack.
    async fn flushed(&mut self) -> Result<Flushed, EngineError>;

    /// What members said of themselves: up to where each has the log on its disk. Only for an engine that is not told of acks by
    /// its members' streams; what a member has said that it holds, it holds.
    fn hear(&mut self, _held: &BTreeMap<Member, Position>) {}

    /// Puts gate and ack list in force and proves it. On an error the gate is not known to be either way.
    async fn apply_gate(&mut self, gate: &Gate, ackers: &Ackers) -> Result<(), EngineError>;

    /// Whether a client that comes now is let in, whatever was put in force by whom.
    async fn lets_clients_in(&mut self) -> Result<bool, EngineError>;

    /// Ends clients that came in before the gate closed; returns how many. Refused while commits wait for acks.
    async fn end_clients(&mut self, rule: &Rule) -> Result<u64, EngineError>;

    /// Lets these members attach, from the next [`Engine::apply_gate`] on: each has a login and a slot of its own. Those who
    /// `borrow` may read its files besides, for a rewind. Only on a server that writes.
    async fn admit(
        &mut self,
        members: &BTreeSet<Member>,
        borrow: &BTreeSet<Member>,
    ) -> Result<(), EngineError>;

    /// The term of its last checkpoint: before that is its own, nobody can tell by its files that its reign has begun.
    async fn checkpointed_in(&mut self) -> Result<Term, EngineError>;

    /// Sees that a member can neither attach nor ack any more. The list and the files in force do not name it.
    async fn expel(&mut self, member: &Member, deadline: Duration) -> Result<(), EngineError>;

    /// Sees that every stream is younger than the files in force: only then may a raised `k` be counted on.
    async fn renew_streams(&mut self, deadline: Duration) -> Result<(), EngineError>;

    /// Nodes that an operator holds out: none of their members is admitted or named. Kept in the database, so that the next
    /// primary knows it as well.
    async fn held_out(&mut self) -> Result<BTreeSet<NodeName>, EngineError>;

    /// Holds a node out, or not any more. In the log before the rule that follows from it.
    async fn hold_out(&mut self, node: &NodeName, out: bool) -> Result<(), EngineError>;

    /// Each member's stream, by the login that it proved; ends streams that ack under another's name.
    async fn streams(&mut self) -> Result<BTreeMap<Member, Attachment<Position>>, EngineError>;

    /// Settings in force that let a commit be answered before it is held as its rule asks.
    async fn weakened(&mut self) -> Result<BTreeSet<Weakened>, EngineError>;

    /// Keeps log from `from` on, which may be on no store yet, on a server in recovery: whoever is promoted ships what is
    /// missing of the terms before. Lets go of what is older. Capped, as everything that holds log back is.
    async fn keep_log(&mut self, from: &Position) -> Result<(), EngineError>;

    /// Makes sure that a server in recovery receives nothing more, has applied all that it received, and only then reads
    /// how far it is. When it is late, stop the server at once, start it again as a standby and recruit it again.
    async fn recruit(&mut self, hands: &dyn Hands, deadline: Duration) -> Result<Recruited, EngineError>;

    /// Begins a term on a recruited server. Idempotent.
    async fn promote(
        &mut self,
        hands: &dyn Hands,
        term: Term,
        deadline: Duration,
    ) -> Result<Promoted, EngineError>;

    /// Points a server in recovery at another one. Whether it may was asked before. An error after the files are in force
    /// means that it goes on trying.
    async fn follow(&mut self, upstream: &Upstream, deadline: Duration) -> Result<Following, EngineError>;

    /// What it receives from there; `None` while it does not.
    async fn following(&mut self, upstream: &Upstream) -> Result<Option<Following>, EngineError>;

    /// Begins a base backup; returns where its replay begins. One at a time.
    async fn begin_backup(&mut self, label: &str) -> Result<Position, EngineError>;

    /// Ends the backup under way.
    async fn end_backup(&mut self) -> Result<BackupEnd, EngineError>;
}
