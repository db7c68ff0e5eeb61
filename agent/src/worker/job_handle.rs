//! The daemon's side of a job: how far it is, what it says, how it ended.
//!
//! Dropping the handle closes the channel, which cancels the job. Nobody waits for a worker that hangs on a disk.
//!
//! Invariants, each a test below:
//! * `a_worker_that_dies_is_a_failed_job`.
//! * `progress_is_watched_and_notes_are_taken`.
//! * `a_job_that_is_followed_tells_its_progress_and_then_its_result`.
//! * `dropping_the_handle_cancels_the_job`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use holdfast_model::status::Progress;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::Greeting;
use super::job::{JobEvent, JobFailure, LogLevel, Order};
use crate::child::process::ProcessId;
use crate::child::spec::Refusal;
use crate::helper::wire::{AsyncChannel, WireError};

/// How a job ended, if not well.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The body says why.
    #[error("job failed")]
    Failed(#[source] JobFailure),
    /// The stage before the worker gave up.
    #[error("job worker was not started")]
    Refused(#[source] Refusal),
    /// The worker did not even start within the deadline.
    #[error("job worker did not start within {} ms", deadline.as_millis())]
    NotStarted {
        /// The deadline.
        deadline: Duration,
    },
    /// The worker ended, or was killed, in the middle.
    #[error("job worker is gone")]
    Gone(#[source] WireError),
    /// The channel could not be set up, or the job is not valid JSON.
    #[error("set up the job")]
    Setup(#[source] io::Error),
    /// It ended well, with another result than jobs of its kind have.
    #[error("result of the job not understood")]
    Result(#[source] serde_json::Error),
}

/// What [`JobHandle::next`] returns: what was said, or the end.
#[derive(Debug)]
pub enum JobEnd {
    /// A note of the body.
    Note(Value),
    /// It ended well, with this result.
    Done(Value),
}

/// A job under way.
#[derive(Debug)]
pub struct JobHandle {
    process: ProcessId,
    channel: AsyncChannel,
    progress: watch::Sender<Progress>,
}

impl JobHandle {
    /// Hands a job to the worker that [`crate::helper::HelperClient::start_worker`] returned.
    ///
    /// # Errors
    /// [`JobError`]; the worker ends then.
    pub async fn start<J: Serialize + Sync>(
        (process, end): (ProcessId, OwnedFd),
        job: &J,
        deadline: Duration,
    ) -> Result<Self, JobError> {
        let channel = AsyncChannel::new(end).map_err(JobError::Setup)?;
        let job = serde_json::to_value(job).map_err(|err| JobError::Setup(err.into()))?;
        let begin = async {
            match channel.receive::<Greeting>().await.map_err(JobError::Gone)?.0 {
                Greeting::Ready => channel.send(&Order::Start(job)).await.map_err(JobError::Gone),
                Greeting::Refused(refusal) => Err(JobError::Refused(refusal)),
            }
        };
        tokio::time::timeout(deadline, begin).await.map_err(|_| JobError::NotStarted { deadline })??;
        Ok(Self { process, channel, progress: watch::Sender::new(Progress::default()) })
    }

    /// The worker's process.
    #[must_use]
    pub const fn process(&self) -> ProcessId {
        self.process
    }

    /// How far the job is; moves while somebody is in [`Self::next`].
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Tells the body something.
    ///
    /// # Errors
    /// [`JobError::Gone`].
    pub async fn tell(&self, note: Value) -> Result<(), JobError> {
        self.channel.send(&Order::Note(note)).await.map_err(JobError::Gone)
    }

    /// Asks the body to stop; it then fails.
    ///
    /// # Errors
    /// [`JobError::Gone`].
    pub async fn cancel(&self) -> Result<(), JobError> {
        self.channel.send(&Order::Cancel).await.map_err(JobError::Gone)
    }

    /// Follows a job that asks nothing to its end; `tell` hears how far it is.
    ///
    /// # Errors
    /// [`JobError`]; the job has ended.
    pub async fn follow<T: DeserializeOwned>(self, tell: impl Fn(Progress) + Send) -> Result<T, JobError> {
        let mut progress = self.progress();
        loop {
            tokio::select! {
                biased; // what was heard before a note or the end is told before it
                Ok(()) = progress.changed() => tell(progress.borrow_and_update().clone()), // cancel-safe
                end = self.next() => match end? { // cancel-safe
                    JobEnd::Done(result) => return serde_json::from_value(result).map_err(JobError::Result),
                    JobEnd::Note(_) => {}
                },
            }
        }
    }

    /// Waits for the next note or the end; logs and progress are taken care of. Cancel-safe.
    ///
    /// # Errors
    /// [`JobError`]; the job has ended.
    pub async fn next(&self) -> Result<JobEnd, JobError> {
        loop {
            match self.channel.receive::<JobEvent>().await {
                Ok((event, _)) => {
                    if let Some(end) = self.take(event)? {
                        return Ok(end);
                    }
                }
                Err(WireError::Malformed(err)) => {
                    warn!(error = %err, "event of a job not understood, dropped")
                }
                Err(err) => return Err(JobError::Gone(err)),
            }
        }
    }

    fn take(&self, event: JobEvent) -> Result<Option<JobEnd>, JobError> {
        match event {
            JobEvent::Progress(progress) => {
                self.progress.send_replace(progress);
                Ok(None)
            }
            JobEvent::Log { level, message } => {
                let process = self.process;
                match level {
                    LogLevel::Error => error!(%process, "{message}"),
                    LogLevel::Warn => warn!(%process, "{message}"),
                    LogLevel::Info => info!(%process, "{message}"),
                    LogLevel::Debug => debug!(%process, "{message}"),
                }
                Ok(None)
            }
            JobEvent::Note(note) => Ok(Some(JobEnd::Note(note))),
            JobEvent::Done(result) => Ok(Some(JobEnd::Done(result))),
            JobEvent::Failed(failure) => Err(JobError::Failed(failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use holdfast_model::ByteCount;
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::*;
    use crate::helper::wire;
    use crate::worker::job::{JobBody, JobContext, JobRetry};
    use crate::worker::job_worker::{self, JobWorkerError};

    const LONG: Duration = Duration::from_secs(20);

    /// Does what its job says.
    struct Scripted;

    #[async_trait]
    impl JobBody for Scripted {
        async fn run(&self, job: Value, mut context: JobContext) -> Result<Value, JobFailure> {
            let reporter = context.reporter();
            match job.as_str().unwrap() {
                "copy" => {
                    reporter.progress(half());
                    reporter.note(json!("nobody needs to answer")).await;
                    Ok(json!(7))
                }
                "talk" => {
                    reporter.progress(half());
                    reporter.note(json!("how far?")).await;
                    Ok(json!({ "told": context.note().await }))
                }
                "wait" => {
                    context.cancelled().cancelled().await;
                    Err(JobFailure { retry: JobRetry::Later, why: "cancelled".to_owned() })
                }
                "ignore" => std::future::pending().await,
                other => panic!("no such script: {other}"),
            }
        }
    }

    fn half() -> Progress {
        Progress { phase: "copying".into(), done: ByteCount::mib(1), total: ByteCount::mib(2) }
    }

    type Worker = JoinSet<Result<(), JobWorkerError>>;

    async fn start(job: &str) -> (JobHandle, Worker) {
        let (ours, theirs) = wire::pair().unwrap();
        let mut worker = JoinSet::new();
        let channel = AsyncChannel::new(theirs).unwrap();
        worker.spawn(job_worker::serve(channel, Box::new(Scripted)));
        let process = ProcessId::own().unwrap();
        (JobHandle::start((process, ours), &json!(job), LONG).await.unwrap(), worker)
    }

    #[tokio::test]
    async fn progress_is_watched_and_notes_are_taken() {
        let (job, mut worker) = start("talk").await;
        let progress = job.progress();
        assert!(matches!(job.next().await.unwrap(), JobEnd::Note(note) if note == json!("how far?")));
        assert_eq!(progress.borrow().done, ByteCount::mib(1));
        job.tell(json!(42)).await.unwrap();
        assert!(matches!(job.next().await.unwrap(), JobEnd::Done(result) if result == json!({ "told": 42 })));
        worker.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_job_that_is_followed_tells_its_progress_and_then_its_result() {
        let (job, _worker) = start("copy").await;
        let told = std::sync::Mutex::new(Vec::new());
        let copied: u32 = job.follow(|progress| told.lock().unwrap().push(progress.done)).await.unwrap();
        assert_eq!((copied, told.into_inner().unwrap()), (7, vec![ByteCount::mib(1)]));
        let (job, _worker) = start("copy").await;
        assert!(matches!(job.follow::<String>(drop).await, Err(JobError::Result(_))));
    }

    #[tokio::test]
    async fn a_cancelled_job_fails() {
        let (job, mut worker) = start("wait").await;
        job.cancel().await.unwrap();
        assert!(matches!(job.next().await, Err(JobError::Failed(JobFailure { retry: JobRetry::Later, .. }))));
        worker.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn dropping_the_handle_cancels_the_job() {
        let (job, mut worker) = start("wait").await;
        drop(job);
        let ended = worker.join_next().await.unwrap().unwrap();
        assert!(matches!(ended, Err(JobWorkerError::Channel(WireError::Closed))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_ignores_its_cancelling_is_cut_off() {
        let (job, mut worker) = start("ignore").await;
        job.cancel().await.unwrap();
        let ended = worker.join_next().await.unwrap().unwrap();
        assert!(matches!(ended, Err(JobWorkerError::CutOff)), "{ended:?}");
    }

    #[tokio::test]
    async fn a_body_that_panics_is_a_failed_job() {
        let (job, _worker) = start("nonsense").await;
        assert!(matches!(job.next().await, Err(JobError::Failed(JobFailure { retry: JobRetry::Never, .. }))));
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_a_failed_job() {
        let (job, mut worker) = start("ignore").await;
        worker.shutdown().await;
        assert!(matches!(job.next().await, Err(JobError::Gone(WireError::Closed))));
    }
}
