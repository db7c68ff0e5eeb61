//! What the engine crate wants done on a server that it cannot do itself: processes are the root helper's, files on the
//! volume a worker's.
//!
//! Invariant: `the_hands_reach_processes_and_files_of_a_running_engine` (in `tests/supervisor/`).
//!
//! Not here: what a walreceiver is, and when to end it. See `holdfast_engine::postgres::standby`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_engine::engine::Cause;
use holdfast_engine::postgres::recovery::RecoveryFile;
use holdfast_engine::postgres::standby::Hands;
use holdfast_model::status::Progress;
use serde::de::DeserializeOwned;

use crate::child::process::ProcessId;
use crate::helper::{CallError, HelperClient};
use crate::jobs::restore::RestoreOrders;
use crate::jobs::standby::MadeStandby;

use crate::worker::{JobError, JobHandle, Role};

/// A look into `/proc`, in a process of its own. What waits longer waits for a disk.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
const WORKER_DEADLINE: Duration = Duration::from_secs(10);
/// A few small files, each with two fsyncs.
const FILES_DEADLINE: Duration = Duration::from_secs(30);

/// Why files on the volume were not made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No worker.
    #[error("start a worker for the data directory")]
    Worker(#[from] CallError),
    /// It failed.
    #[error("work in the data directory")]
    Job(#[from] JobError),
    /// It does not answer. It may still do what it was told.
    #[error("work in the data directory: not done within {} ms", .0.as_millis())]
    Late(Duration),
}

/// Hands on one running engine.
#[derive(Debug, Clone)]
pub struct EngineHands {
    /// Asks the helper.
    pub helper: HelperClient,
    /// The engine's first process.
    pub process: ProcessId,
    /// Its data directory on the volume.
    pub data_dir: PathBuf,
}

#[async_trait]
impl Hands for EngineHands {
    async fn receivers(&self) -> Result<u32, Cause> {
        Ok(self.helper.receivers(self.process, LOOK_DEADLINE).await?)
    }

    async fn end_receivers(&self) -> Result<u32, Cause> {
        Ok(self.helper.end_receivers(self.process, LOOK_DEADLINE).await?)
    }

    async fn ensure_files(&self, files: &[RecoveryFile]) -> Result<(), Cause> {
        if files.is_empty() {
            return Ok(());
        }
        let (data_dir, files) = (self.data_dir.clone(), files.to_vec());
        let done = run(&self.helper, RestoreOrders::EnsureFiles { data_dir, files }).await;
        Ok(done?)
    }
}

/// Makes the next start of the server in `data_dir` one of a standby. The server does not run.
///
/// # Errors
/// [`FilesError`]; to be called again before the start.
pub async fn make_standby(helper: &HelperClient, data_dir: PathBuf) -> Result<MadeStandby, FilesError> {
    run(helper, RestoreOrders::AsStandby { data_dir }).await
}

/// Takes away what must not be there when the server in `data_dir` starts as what it was. The server does not run.
///
/// # Errors
/// [`FilesError`]; to be called again before the start.
pub async fn mend_log(helper: &HelperClient, data_dir: PathBuf) -> Result<MadeStandby, FilesError> {
    run(helper, RestoreOrders::Mend { data_dir }).await
}

async fn run<T: DeserializeOwned>(helper: &HelperClient, orders: RestoreOrders) -> Result<T, FilesError> {
    let done = tokio::time::timeout(FILES_DEADLINE, run_job(helper, &orders, drop)).await;
    done.map_err(|_| FilesError::Late(FILES_DEADLINE))?
}

/// Runs a job of the restore worker to its end, however long that is.
///
/// # Errors
/// There is no worker, or it failed.
pub async fn run_job<T, E>(
    helper: &HelperClient,
    orders: &RestoreOrders,
    tell: impl Fn(Progress) + Send,
) -> Result<T, E>
where
    T: DeserializeOwned,
    E: From<CallError> + From<JobError>,
{
    let worker = helper.start_worker(Role::Restore, WORKER_DEADLINE).await?;
    let handle = JobHandle::start(worker, orders, WORKER_DEADLINE).await?;
    Ok(handle.follow(tell).await?)
}
