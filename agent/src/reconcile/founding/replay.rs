//! What a landed base needs to replay its log: recovery's files on the volume, made right again before each start, and
//! a worker that answers recovery's requests.

use std::time::Duration;

use holdfast_backup::BackupId;
use holdfast_backup::rules::Chain;
use holdfast_model::{ClusterId, Term};
use tracing::info;

use super::{FoundingError, WORKER_DEADLINE};
use crate::daemon::places;
use crate::data::{Landing, Refounding};
use crate::jobs::log::LogJob;
use crate::jobs::restore::{PrepareJob, Replay, RestoreOrders};
use crate::reconcile::{Node, Reconciler};
use crate::worker::{JobEnd, JobHandle, Role};

/// A few small files.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30);
/// Opening the repository and finding where its log ends.
const SERVE_DEADLINE: Duration = Duration::from_secs(60);

/// Which log is replayed after which backup.
#[derive(Debug, Clone)]
pub(in crate::reconcile) struct Replayed {
    cluster: ClusterId,
    backup: String,
    /// The newest reign of that log.
    from: Term,
    /// The reign that begins then.
    to: Option<Term>,
}

impl Replayed {
    /// To begin another reign.
    pub(in crate::reconcile) fn to_refound(refounding: &Refounding) -> Result<Self, FoundingError> {
        let from = refounding.rule.previous.ok_or(FoundingError::NoCluster)?.term;
        let (cluster, backup) = (refounding.cluster.clone(), refounding.backup.clone());
        Ok(Self { cluster, backup, from, to: Some(refounding.rule.id.term) })
    }

    /// To follow.
    pub(in crate::reconcile) fn to_join(cluster: ClusterId, landing: &Landing) -> Self {
        Self { cluster, backup: landing.backup.clone(), from: landing.from, to: None }
    }
}

/// How the restored server gets its log.
pub(super) async fn replay(node: &Node, replayed: &Replayed) -> Result<Replay, FoundingError> {
    let access = node.access(replayed.cluster.clone()).ok_or(FoundingError::NoRepository)?;
    let rules = access.open().await?.rules().await?;
    let chain = Chain::to(replayed.from, &rules)?;
    let ancestors =
        chain.reigns().iter().filter_map(|reign| reign.end.map(|end| (reign.term, end))).collect();
    Ok(Replay {
        from: replayed.from,
        ancestors,
        to: replayed.to,
        program: node.program.clone(),
        socket: places::fetch_socket(&node.config),
    })
}

/// Makes a landed base ready to replay, whatever an earlier start left, and says how it replays.
pub(in crate::reconcile) async fn prepare(node: &Node, replayed: &Replayed) -> Result<Replay, FoundingError> {
    let replay = replay(node, replayed).await?;
    let job = PrepareJob { data_dir: node.setup.layout.data_dir.clone(), replay: replay.clone() };
    let worker = node.helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
    let handle = JobHandle::start(worker, &RestoreOrders::Prepare(job), WORKER_DEADLINE).await?;
    let prepared = tokio::time::timeout(PREPARE_DEADLINE, handle.follow::<serde_json::Value>(drop)).await;
    prepared.map_err(|_| FoundingError::Late(PREPARE_DEADLINE))??;
    Ok(replay)
}

impl Reconciler {
    /// Starts the log worker if none serves, and waits until it does.
    pub(in crate::reconcile) async fn ensure_log_worker(
        &mut self,
        replayed: &Replayed,
    ) -> Result<(), FoundingError> {
        // One that served an earlier try of the same recovery may have ended with it: always a fresh one.
        self.log_worker = None;
        let node = &self.node;
        let access = node.access(replayed.cluster.clone()).ok_or(FoundingError::NoRepository)?;
        let backup: BackupId = replayed.backup.parse()?;
        let job = LogJob {
            access,
            from: (backup.term(), backup.start()),
            to: replayed.to.unwrap_or(replayed.from),
            socket: places::fetch_socket(&node.config),
        };
        let worker = node.helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
        let handle = JobHandle::start(worker, &RestoreOrders::ServeLog(job), WORKER_DEADLINE).await?;
        let serving = tokio::time::timeout(SERVE_DEADLINE, handle.next()).await;
        let serving = serving.map_err(|_| FoundingError::Late(SERVE_DEADLINE))??;
        match serving {
            JobEnd::Note(end) => info!(%end, "serving recovery its log"),
            JobEnd::Done(_) => return Err(FoundingError::NoLog),
        }
        self.log_worker = Some(handle);
        Ok(())
    }
}
