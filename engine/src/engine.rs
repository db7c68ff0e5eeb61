//! What the agent's loops ask of an engine, so that a real one and a simulated one are interchangeable.
//!
//! Not here: processes (the agent starts a [`crate::Launch`], finds it again and stops it) and files below
//! the data directory (workers read and write those).

use std::error::Error;

use async_trait::async_trait;
use holdfast_model::status::Gate;
use holdfast_model::{Lsn, Rule, Term};

use crate::postgres::SyncStandbys;
use crate::postgres::backup::BackupEnd;
use crate::postgres::flushed::Flushed;

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
    pub flushed: Lsn,
}

/// One engine with its data directory. All calls have deadlines of their own.
#[async_trait]
pub trait Engine: Send {
    /// What it is doing.
    async fn status(&mut self) -> Result<EngineStatus, EngineError>;

    /// The newest rule in its own log and that rule's predecessor, newest first; fewer when there are fewer.
    async fn newest_rules(&mut self) -> Result<Vec<Rule>, EngineError>;

    /// Writes a rule and its marker; returns a position past both. Idempotent for the newest rule.
    async fn write_rule(&mut self, rule: &Rule) -> Result<Lsn, EngineError>;

    /// How far its log is flushed, here and on those who may ack.
    async fn flushed(&mut self) -> Result<Flushed, EngineError>;

    /// Puts gate and ack list in force and proves it. On an error the gate is not known to be either way.
    async fn apply_gate(&mut self, gate: &Gate, sync: &SyncStandbys) -> Result<(), EngineError>;

    /// Ends clients that came in before the gate closed; returns how many. Refused while commits wait for acks.
    async fn end_clients(&mut self, rule: &Rule) -> Result<u64, EngineError>;

    /// Begins a base backup; returns where its replay begins. One at a time.
    async fn begin_backup(&mut self, label: &str) -> Result<Lsn, EngineError>;

    /// Ends the backup under way.
    async fn end_backup(&mut self) -> Result<BackupEnd, EngineError>;
}
