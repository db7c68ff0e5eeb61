//! What a landed base needs to replay its log: recovery's files on the volume, made right again before each start, and
//! a worker that answers recovery's requests.

use std::time::Duration;

use holdfast_backup::BackupId;
use holdfast_backup::rules::Chain;
use tracing::info;

use super::{FoundingError, WORKER_DEADLINE};
use crate::daemon::places;
use crate::data::Refounding;
use crate::jobs::log::LogJob;
use crate::jobs::restore::{PrepareJob, Replay, RestoreOrders};
use crate::reconcile::{Node, Reconciler};
use crate::worker::{JobEnd, JobHandle, Role};

/// A few small files.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30);
/// Opening the repository and finding where its log ends.
const SERVE_DEADLINE: Duration = Duration::from_secs(60);

/// How the restored server of a refounding gets its log.
pub(super) async fn replay(node: &Node, refounding: &Refounding) -> Result<Replay, FoundingError> {
    let access = node.access(refounding.cluster.clone()).ok_or(FoundingError::NoRepository)?;
    let rules = access.open().await?.rules().await?;
    let from = refounding.rule.previous.ok_or(FoundingError::NoCluster)?.term;
    let chain = Chain::to(from, &rules)?;
    let ancestors =
        chain.reigns().iter().filter_map(|reign| reign.end.map(|end| (reign.term, end))).collect();
    Ok(Replay {
        from,
        ancestors,
        to: refounding.rule.id.term,
        program: node.program.clone(),
        socket: places::fetch_socket(&node.config),
    })
}

/// Makes the landed base of a refounding ready to replay, whatever an earlier start left, and says how it replays.
pub(in crate::reconcile) async fn prepare(
    node: &Node,
    refounding: &Refounding,
) -> Result<Replay, FoundingError> {
    let replay = replay(node, refounding).await?;
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
        refounding: &Refounding,
    ) -> Result<(), FoundingError> {
        // One that served an earlier try of the same recovery may have ended with it: always a fresh one.
        self.log_worker = None;
        let node = &self.node;
        let access = node.access(refounding.cluster.clone()).ok_or(FoundingError::NoRepository)?;
        let backup: BackupId = refounding.backup.parse()?;
        let job = LogJob {
            access,
            from: (backup.term(), backup.start()),
            to: refounding.rule.id.term,
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
