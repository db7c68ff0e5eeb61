//! What stands on the volume about its own data: the record `.holdfast/data`, beside identity and promise.
//!
//! It is on the volume because it is lost together with what it speaks of: a fresh disk has no record, so it has no
//! data, whatever the ledger on the root disk remembers.
//!
//! Invariant: an engine starts only when the record says `Landed`, `Ready` or `Rewinding` (I15); the test is
//! `an_engine_never_starts_on_data_that_is_not_ready` in `decide`.

use holdfast_model::record::RecordKind;
use holdfast_model::status::RewindStage;
use holdfast_model::{ClusterId, Member, Position, Rule, Term};
use serde::{Deserialize, Serialize};

/// The frame of [`DataRecord`].
pub const DATA_RECORD: RecordKind = RecordKind { tag: *b"data", version: 1, name: "data record" };

/// How far the data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DataRecord {
    /// A bootstrap began; what is there is thrown away if it did not finish. No client ever saw it.
    Initialising {
        /// The cluster that it is to be.
        cluster: ClusterId,
        /// The bootstrap's attempt id, which its promise carries.
        #[serde(with = "holdfast_model::hex128")]
        attempt: u128,
    },
    /// A restore began: files may be missing or half written.
    Restoring(Refounding),
    /// Every file of the base is there, verified and fsynced; the log is yet to be replayed to its end.
    Landed(Refounding),
    /// Data of a member that joins a cluster which reigns elsewhere.
    Joining(Joining),
    /// Whole, of a member whose log left the cluster's: a copy beside is to take its place.
    Rewinding(Rewinding),
    /// Whole: the engine has opened it once as a member of the cluster.
    Ready {
        /// The cluster.
        cluster: ClusterId,
        /// The term that this member was founded in or promoted to last; none while it follows. Written before a promotion,
        /// and before it follows: only who promised no more than this may resume in place.
        reign: Option<Term>,
    },
}

impl DataRecord {
    /// The cluster that the data belongs to.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        match self {
            Self::Initialising { cluster, .. } | Self::Ready { cluster, .. } => cluster,
            Self::Restoring(refounding) | Self::Landed(refounding) => &refounding.cluster,
            Self::Joining(joining) => &joining.cluster,
            Self::Rewinding(rewinding) => &rewinding.cluster,
        }
    }
}

/// A refounding under way: everything that it fixed at its beginning, so that it resumes and never starts over under
/// yet another term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refounding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The reserved rule: the new term, this incarnation alone, `start` = the end of the restored log.
    pub rule: Rule,
    /// The attempt id, which its promise carries.
    #[serde(with = "holdfast_model::hex128")]
    pub attempt: u128,
    /// The backup that is restored.
    pub backup: String,
    /// The acked end of the shipped log: what was acknowledged after it is lost.
    pub shipped_end: Position,
}

/// A member that restores in order to follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The cluster.
    pub cluster: ClusterId,
    /// How far it is.
    pub stage: JoinStage,
}

/// How far a join is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum JoinStage {
    /// Whatever is in the directory is to go, once its tail is kept.
    Begun {
        /// What it has beyond the cluster's chain.
        tail: Option<Tail>,
    },
    /// The backup is being landed.
    Landing(Landing),
    /// It is there, verified and fsynced; its log is replayed up to the end.
    Landed(Landing),
}

/// What is landed for a join, fixed at its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landing {
    /// The backup.
    pub backup: String,
    /// The newest reign of the shipped log.
    pub from: Term,
    /// Behind the last whole record of it: what comes after is received from the primary.
    pub end: Position,
}

/// A rewind under way. Until the copy has taken its place the data directory is what the member has, whatever becomes of the
/// copy: given up, the member is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewinding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Onto whose log.
    pub primary: Member,
    /// In which reign.
    pub onto: Term,
    /// What the data directory has beyond that log.
    pub tail: Tail,
    /// How far the copy is.
    pub stage: RewindStage,
}

/// Log of a member that the cluster's chain does not have. Nobody was told that it is committed; people may want to know
/// what it was (I13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The reign that it is of.
    pub term: Term,
    /// Where the chain left that reign, or an earlier position when that is not known.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}
