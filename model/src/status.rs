//! What a node says about itself: one [`NodeView`], made by observing, read by `decide`, status streams and metrics.
//!
//! Every state is an enum whose variants carry what is valid in that state.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::peer::{Part, PeerView};
use crate::volume::{DeviceVerdict, DiskHealth, Space, VolumeIdentity};
use crate::{ByteCount, ClusterId, ClusterName, NodeName, Position, Promise, Rule, Term, Tick, Zone};

/// What clients may do on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum Gate {
    /// Nobody but the agent may connect.
    Closed {
        /// Why.
        why: GateClosed,
    },
    /// Clients may read.
    ReadOnly {
        /// The reign.
        term: Term,
    },
    /// Clients may read and write.
    Open {
        /// The reign.
        term: Term,
    },
}

impl Gate {
    /// The word alone, for metrics, logs and HTTP.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::ReadOnly { .. } => "read-only",
            Self::Open { .. } => "open",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { why } => write!(f, "closed: {why}"),
            Self::ReadOnly { term } => write!(f, "read-only in term {term}"),
            Self::Open { term } => write!(f, "open in term {term}"),
        }
    }
}

/// Why the gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateClosed {
    /// The agent has just started and knows nothing yet.
    Starting,
    /// There is no running engine to open.
    NoEngine,
    /// The newest rule does not name this member as primary.
    NotPrimary,
    /// The promise is above the newest rule: another reign may have begun.
    PromisedHigher,
    /// The rule marker of this start was not yet seen acked.
    MarkerNotAcked,
    /// The disk is not healthy.
    DiskUnsafe,
    /// The agent is stopping or was asked to stop the engine.
    Stopping,
}

impl fmt::Display for GateClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "the agent is starting",
            Self::NoEngine => "the engine is not running",
            Self::NotPrimary => "this member is not the primary of the newest rule",
            Self::PromisedHigher => "this member has promised a higher term",
            Self::MarkerNotAcked => "the rule marker of this start was not yet seen acked",
            Self::DiskUnsafe => "the disk is not healthy",
            Self::Stopping => "the engine is being stopped",
        })
    }
}

/// The volume, from "never looked" to "mounted".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "volume", rename_all = "snake_case")]
pub enum VolumeView {
    /// Nothing was looked at yet.
    Unknown,
    /// No usable device; every verdict says why.
    Absent {
        /// What was looked at.
        verdicts: Vec<DeviceVerdict>,
    },
    /// A provably blank device could be formatted.
    Blank {
        /// The device.
        device: crate::volume::DeviceId,
    },
    /// Our volume is there but not mounted.
    Unmounted {
        /// The device.
        device: crate::volume::DeviceId,
    },
    /// Our volume is mounted.
    Mounted {
        /// The device.
        device: crate::volume::DeviceId,
        /// The record on it.
        identity: Box<VolumeIdentity>,
        /// How the device is doing.
        health: DiskHealth,
        /// Free space.
        space: Space,
    },
}

/// The database directory on the mounted volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "data", rename_all = "snake_case")]
pub enum DataView {
    /// Not looked at, or no volume.
    Unknown,
    /// There is none. Never means "new cluster".
    Absent,
    /// An initialisation or a restore was begun and not finished; nothing may start on it.
    Incomplete,
    /// A bootstrap is making it.
    Initialising,
    /// A restore is running.
    Restoring {
        /// How far.
        progress: Progress,
    },
    /// Whole, of this incarnation, fully verified.
    Ready,
    /// Whole as well, with log that the cluster went without: a copy beside it is brought onto the log of a reign, and is to
    /// take its place.
    Rewinding {
        /// The reign.
        onto: Term,
        /// How far the copy is.
        stage: RewindStage,
    },
    /// There is something that cannot be used.
    Broken {
        /// What is wrong with it.
        why: String,
    },
}

/// How far a copy is that is to take the place of data whose log left the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewindStage {
    /// It is made, and brought back; begun anew when that was cut off.
    Copying,
    /// Its engine replays what it takes to be whole. Nobody counts on it yet.
    Replaying,
    /// It is whole: it takes the place, or has.
    Taking,
}

/// Bytes done of bytes expected, and what is being done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// A lowercase fragment, e.g. `reading chunks`.
    pub phase: String,
    /// Done so far.
    pub done: ByteCount,
    /// Expected in all; 0 while unknown.
    pub total: ByteCount,
}

/// The engine's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "snake_case")]
pub enum EngineView {
    /// No process holds the engine lock.
    Stopped {
        /// Times it ended by itself since it last ran for a minute.
        crashes: u32,
        /// When it last ended, if it ended under this agent.
        since: Option<Tick>,
    },
    /// A process runs and does not answer queries yet.
    Starting {
        /// The postmaster.
        pid: i32,
        /// Since when.
        since: Tick,
    },
    /// It answers queries.
    Running {
        /// The postmaster.
        pid: i32,
        /// Version as the engine prints it.
        version: String,
        /// Whether it is still in recovery.
        in_recovery: bool,
        /// Timeline, which is the term of its data.
        timeline: Term,
        /// Durable on the local disk up to here.
        flushed: Position,
    },
    /// It was asked to stop.
    Stopping {
        /// The postmaster.
        pid: i32,
        /// Since when.
        since: Tick,
    },
    /// It survives SIGKILL: it waits for a disk that does not answer.
    Unkillable {
        /// The postmaster.
        pid: i32,
    },
}

impl EngineView {
    /// Where its log ends on the disk, while it answers.
    #[must_use]
    pub const fn flushed(&self) -> Option<&Position> {
        match self {
            Self::Running { flushed, .. } => Some(flushed),
            Self::Stopped { .. }
            | Self::Starting { .. }
            | Self::Stopping { .. }
            | Self::Unkillable { .. } => None,
        }
    }
}

/// The cluster's place in object storage as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "repository", rename_all = "snake_case")]
pub enum RepositoryView {
    /// Not asked yet.
    Unknown,
    /// Not configured.
    Disabled,
    /// It does not answer, or refuses.
    Unreachable {
        /// What it said.
        why: String,
    },
    /// It answers and holds no cluster at this prefix.
    Empty,
    /// It holds this cluster.
    Ready {
        /// Which cluster.
        cluster: ClusterId,
        /// The highest term seen in its rules and log keys.
        newest_term: Term,
        /// The newest complete backup.
        newest_backup: Option<String>,
    },
}

/// Log shipping.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogView {
    /// Whether something ships now.
    pub running: bool,
    /// Shipped without a gap up to here.
    pub shipped: Option<Position>,
    /// Acked, so allowed to be shipped, up to here.
    pub acked: Option<Position>,
    /// The last failure, until the next success.
    pub failing: Option<String>,
}

/// A setting that makes commits weaker than the promise that an answered commit is held elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weakened {
    /// Which setting.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// For which role; `None` is every role.
    pub role: Option<String>,
    /// In which database; `None` is every database.
    pub database: Option<String>,
}

impl fmt::Display for Weakened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.setting, self.value)?;
        match (&self.role, &self.database) {
            (Some(role), Some(database)) => write!(f, " for role {role} in database {database}"),
            (Some(role), None) => write!(f, " for role {role}"),
            (None, Some(database)) => write!(f, " in database {database}"),
            (None, None) => write!(f, " for everybody"),
        }
    }
}

/// Breaches of the promise that an answered commit is held elsewhere: what was seen of them, and what invites them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BreachesView {
    /// Commits that were answered although their wait for acks was cancelled, since the agent started; at least so many.
    pub cancelled: u64,
    /// Commits that became visible although their session was ended while they waited for acks.
    pub ended: u64,
    /// Settings that let commits be answered without acks.
    pub weakened: BTreeSet<Weakened>,
}

/// What kind of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Making the first member of a cluster.
    Bootstrap,
    /// A backup.
    Backup,
    /// A restore of the node's own data.
    Restore,
    /// Formatting a device.
    Format,
    /// Restoring the node's data behind the newest rule, to follow those who serve.
    Join,
    /// Bringing a copy of the node's data back onto the log of the primary.
    Rewind,
    /// Making another member the primary, because the primary is gone.
    Failover,
    /// Making another member the primary while the primary serves.
    Switchover,
    /// Changing who votes.
    ChangeMember,
}

/// How long work stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OperationState {
    /// Under way.
    Running {
        /// How far.
        progress: Progress,
    },
    /// Ended well.
    Done {
        /// What came of it, e.g. the backup's id.
        result: String,
    },
    /// Ended badly.
    Failed {
        /// The whole chain of causes.
        why: String,
    },
    /// Not done, because it must not be as things are. An answer, not a fault.
    Refused {
        /// What is missing.
        why: String,
    },
}

/// One piece of long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Names it in `WatchOperation`.
    pub id: String,
    /// What.
    pub kind: OperationKind,
    /// When it began.
    pub since: Tick,
    /// How it stands.
    pub state: OperationState,
}

/// Everything that this node knows about itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// When it was observed.
    pub at: Tick,
    /// The configured cluster name.
    pub cluster: ClusterName,
    /// This machine.
    pub node: NodeName,
    /// Where it stands.
    pub zone: Zone,
    /// Its volume.
    pub volume: VolumeView,
    /// The database directory.
    pub data: DataView,
    /// The engine's process.
    pub engine: EngineView,
    /// What clients may do.
    pub gate: Gate,
    /// The newest rule in the engine's own log.
    pub rule: Option<Rule>,
    /// What was promised on this volume.
    pub promise: Option<Promise>,
    /// What it takes part in.
    pub part: Part,
    /// The other nodes of the cluster.
    pub peers: Vec<PeerView>,
    /// Object storage.
    pub repository: RepositoryView,
    /// Log shipping.
    pub log: LogView,
    /// Breaches of the promise.
    pub breaches: BreachesView,
    /// Work under way and lately ended.
    pub operations: Vec<Operation>,
    /// Why the agent does what it does now; served by `Explain`.
    pub reason: String,
}
