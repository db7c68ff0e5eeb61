//! Why the agent does what it does: one sentence that names what is missing and what would resolve it (I14).

use std::fmt;

use holdfast_model::status::{GateClosed, OperationKind, RewindStage};
use holdfast_model::volume::{DeviceId, DeviceVerdict, DiskHealth};
use holdfast_model::{ClusterId, NodeName, RuleId, Term};

/// The reason behind a [`Plan`](crate::Plan).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each variant is its documentation, right below")]
pub enum Reason {
    LookingAtDisks,
    NoUsableDisk(Vec<DeviceVerdict>),
    VolumeFound,
    FormatNotAllowed(DeviceId),
    FormattingBlank(DeviceId),
    AskingRepository,
    RepositoryUnreachable(String),
    NoClusterYet,
    ClusterExists(ClusterId),
    AllLost(ClusterId),
    LookingAtData,
    DataBroken(String),
    Working(OperationKind),
    DiskUnsafe(DiskHealth),
    EngineWithoutVolume,
    EngineWithoutData,
    Superseded(Term),
    NoPrimary,
    Joining(NodeName),
    Following(NodeName),
    Recruited(Term),
    Deposed(RuleId),
    Diverged(String),
    Rewinding(Term, RewindStage),
    RewindGivenUp(Term),
    StartingEngine,
    EngineStarting,
    EngineCrashed { again_in_ms: u64 },
    EngineStopping,
    EngineUnkillable(i32),
    StoppedByOperator,
    GateClosed(GateClosed),
    Serving(Term),
    ServingReads(Term),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookingAtDisks => f.write_str("looking at the disks"),
            Self::NoUsableDisk(verdicts) if verdicts.is_empty() => {
                f.write_str("no disk: nothing matches [volume]; attach one, or name it in the configuration")
            }
            Self::NoUsableDisk(verdicts) => {
                f.write_str("no usable disk")?;
                for (n, found) in verdicts.iter().enumerate() {
                    write!(
                        f,
                        "{} {} is {}",
                        if n == 0 { ":" } else { ";" },
                        found.device.path.display(),
                        found.verdict
                    )?;
                }
                f.write_str("; attach a blank one, or see 'holdfast volume plan'")
            }
            Self::VolumeFound => f.write_str("our volume was found: mounting it"),
            Self::FormatNotAllowed(device) => write!(
                f,
                "{device} is blank, but [volume] format_blank is false: run 'holdfast volume format', or set it"
            ),
            Self::FormattingBlank(device) => write!(f, "formatting the blank {device}"),
            Self::AskingRepository => f.write_str("asking the repository whether this cluster exists"),
            Self::RepositoryUnreachable(why) => write!(
                f,
                "the volume is empty and the repository cannot be read ({why}): waiting, since it may hold this cluster"
            ),
            Self::NoClusterYet => f.write_str(
                "no data and no such cluster in the repository: run 'holdfastd bootstrap' to make a new one",
            ),
            Self::ClusterExists(cluster) => write!(
                f,
                "bootstrap refused: the repository already holds {cluster}; restore it with 'holdfast restore', or use another cluster name or prefix"
            ),
            Self::AllLost(cluster) => write!(
                f,
                "every copy of {cluster} but the repository's is gone: run 'holdfast restore', or set [recovery] when_all_lost = \"restore\"; commits of about the last second may be missing"
            ),
            Self::LookingAtData => f.write_str("looking at the data on the volume"),
            Self::DataBroken(why) => write!(f, "the data cannot be used: {why}"),
            Self::Working(OperationKind::Bootstrap) => {
                f.write_str("making the first member of a new cluster")
            }
            Self::Working(OperationKind::Backup) => f.write_str("taking a backup"),
            Self::Working(OperationKind::Restore) => f.write_str("restoring from the repository"),
            Self::Working(OperationKind::Format) => f.write_str("formatting a device"),
            Self::Working(OperationKind::Join) => f.write_str("restoring behind the newest rule, to follow"),
            Self::Working(OperationKind::Rewind) => {
                f.write_str("bringing a copy of the data back onto the primary's log")
            }
            Self::Working(OperationKind::Failover) => f.write_str("making another member the primary"),
            Self::Working(OperationKind::Switchover) => f.write_str("handing over to another primary"),
            Self::Working(OperationKind::ChangeMember) => f.write_str("changing who votes"),
            Self::DiskUnsafe(health) => write!(f, "the disk is {health}: nothing may run on it"),
            Self::EngineWithoutVolume => f.write_str("the engine runs without its volume: stopping it"),
            Self::EngineWithoutData => f.write_str("the engine runs without whole data: stopping it"),
            Self::Superseded(term) => write!(
                f,
                "the data is of an older reign than term {term} of the repository: put back the disk of that reign, or give this one up (wipe it) and restore"
            ),
            Self::NoPrimary => f.write_str(
                "no peer reigns: waiting for one; if none comes back, see 'holdfast status' and 'holdfast failover'",
            ),
            Self::Joining(node) => write!(f, "restoring from the repository, to follow {node}"),
            Self::Following(node) => write!(f, "following {node}"),
            Self::Recruited(term) => {
                write!(f, "term {term} is promised: waiting for its primary; if none comes, run 'holdfast failover'")
            }
            Self::Deposed(rule) => write!(f, "rule {rule} reigns elsewhere: stepping down to follow"),
            Self::Diverged(why) => write!(
                f,
                "{why}; this is done by itself once the primary's rule does not name this member any more"
            ),
            Self::Rewinding(onto, RewindStage::Copying) => {
                write!(f, "the log has left that of term {onto}: a copy of the data is brought back onto it")
            }
            Self::Rewinding(onto, RewindStage::Replaying) => {
                write!(f, "a copy of the data replays the log of term {onto}; nobody counts on it before it is whole")
            }
            Self::Rewinding(onto, RewindStage::Taking) => {
                write!(f, "a copy of the data that is of term {onto} takes its place")
            }
            Self::RewindGivenUp(onto) => {
                write!(f, "the data is not brought onto the log of term {onto} any more: going on with it as it is")
            }
            Self::StartingEngine => f.write_str("data ready: starting the engine"),
            Self::EngineStarting => f.write_str("waiting for the engine to answer"),
            Self::EngineCrashed { again_in_ms } => {
                write!(f, "the engine ended by itself: starting it again in {again_in_ms} ms")
            }
            Self::EngineStopping => f.write_str("waiting for the engine to stop"),
            Self::EngineUnkillable(pid) => {
                write!(
                    f,
                    "engine process {pid} survives SIGKILL: it waits in the kernel for a disk that does not answer"
                )
            }
            Self::StoppedByOperator => f.write_str("stopped by an operator: run 'holdfast engine start'"),
            Self::GateClosed(why) => write!(f, "clients are kept out: {why}"),
            Self::Serving(term) => write!(f, "serving in term {term}"),
            Self::ServingReads(term) => {
                write!(
                    f,
                    "serving reads only in term {term}: the disk is nearly full; free space or use a larger one"
                )
            }
        }
    }
}
