//! What callers are told, in model terms, where the model itself has no word for it.

use holdfast_model::status::{Gate, LogView, Operation};
use holdfast_model::volume::DeviceVerdict;
use holdfast_model::{ByteCount, Member, Position, Term, Vouch};
use holdfast_replication::account::LossCertificate;
use serde::Serialize;

/// What a dry run would do with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedStep {
    /// Leave it alone.
    None,
    /// Format and mount it.
    Format,
    /// Mount it.
    Mount,
    /// It is the volume in use.
    Keep,
}

/// A device, what it is to this node, and what would be done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedDevice {
    /// The device and its verdict.
    pub found: DeviceVerdict,
    /// What would be done.
    pub step: PlannedStep,
    /// Why that and not something else; a lowercase fragment.
    pub why: String,
}

/// Leave to wipe exactly what was found, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WipeConsent {
    /// Opaque; goes into [`crate::request::WipeVolume`].
    pub token: String,
    /// Milliseconds until it ends.
    pub valid_for_ms: u64,
    /// What would be lost.
    pub found: DeviceVerdict,
}

/// One thing that is missing, and what would bring it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// What is missing.
    pub missing: String,
    /// What would resolve it.
    pub resolve: String,
}

/// Why a node does what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What clients may do.
    #[serde(flatten)]
    pub gate: Gate,
    /// What the agent does now, and why.
    pub reason: String,
    /// What keeps clients from writing; empty when they may write.
    pub blockers: Vec<Blocker>,
    /// Single and double faults that would stop writes now.
    pub would_stop_writes: Vec<String>,
    /// The last word that this node took in place of votes.
    pub vouch: Option<Vouch>,
    /// How the newest reign came about, if by a failover or a switchover.
    pub certificate: Option<LossCertificate>,
    /// What this node was asked for lately and refused.
    pub refused: Vec<Operation>,
    /// What broke the promise that an answered commit is held elsewhere, or lets it be broken.
    pub breaches: Vec<Blocker>,
}

/// One complete backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Who took it.
    pub member: Member,
    /// In which reign.
    pub term: Term,
    /// Log is needed from here ...
    pub start: Position,
    /// ... at least to here.
    pub stop: Position,
    /// RFC 3339, for people.
    pub started: String,
    /// RFC 3339, for people.
    pub finished: String,
    /// As the engine prints it.
    pub engine_version: String,
    /// What it restores to.
    pub data: ByteCount,
    /// What it added to the repository.
    pub added: ByteCount,
    /// The backup whose chunks it shares.
    pub parent: Option<String>,
}

/// What one backup is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BackupContent {
    /// Files.
    pub files: u64,
    /// Chunks.
    pub chunks: u64,
    /// Packs of its own.
    pub packs: u64,
    /// Other backups whose packs it reads.
    pub shares_with: Vec<String>,
}

/// One backup in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupDetail {
    /// What the list shows.
    pub backup: Backup,
    /// What it is made of.
    pub content: BackupContent,
}

/// Log of one term in the repository without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRange {
    /// The reign.
    pub term: Term,
    /// From.
    pub start: Position,
    /// To, exclusive.
    pub end: Position,
}

/// How far the log is shipped, and what of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogStatus {
    /// Shipping as last seen.
    pub log: LogView,
    /// What the repository holds, by term and position.
    pub ranges: Vec<LogRange>,
}

/// What a member says of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// It has seen neither log nor a heartbeat of it for as long as it takes.
    MissesPrimary,
    /// It still hears of it.
    SeesPrimary,
}

/// A primary that keeps clients out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Closed {
    /// Where its log ends; nothing is written any more.
    pub position: Position,
}
