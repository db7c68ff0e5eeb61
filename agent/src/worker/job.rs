//! Long jobs: what daemon and job worker say to each other, and what a job's body is given.
//!
//! One worker, one job: the daemon sends a [`Order::Start`], the worker sends [`JobEvent`]s and at last `Done` or `Failed`,
//! and ends. What is inside job, result and notes is between the body and whoever started it.
//!
//! Not here: the bodies. See `bodies`.

use std::time::Duration;

use async_trait::async_trait;
use holdfast_model::status::Progress;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Between two reports of one job, so that fast work is not all reports.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// What the daemon says to a job worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The job; first, and once.
    Start(Value),
    /// Something that the job wants to know while it runs, such as how far log may be shipped.
    Note(Value),
    /// Stop soon and fail.
    Cancel,
}

/// What a job worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEvent {
    /// How far it is; only the newest counts.
    Progress(Progress),
    /// Something for the daemon's log.
    Log {
        /// How bad.
        level: LogLevel,
        /// A lowercase fragment.
        message: String,
    },
    /// Something that whoever started the job wants to know while it runs, or a question to be answered by a note.
    Note(Value),
    /// It ended well; the last event.
    Done(Value),
    /// It ended badly; the last event.
    Failed(JobFailure),
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct JobFailure {
    /// Whether the same job may work later.
    pub retry: JobRetry,
    /// The whole chain of causes.
    pub why: String,
}

/// Whether a failed job is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobRetry {
    /// Yes, after a pause: the network, the object store, a full disk.
    Later,
    /// No: somebody must change something first.
    Never,
}

/// As `tracing`'s levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Data or availability at risk.
    Error,
    /// Unexpected, being retried.
    Warn,
    /// A state changed.
    Info,
    /// Everything else.
    Debug,
}

/// The work itself. It runs on a multi-threaded runtime, and may block only in `spawn_blocking`.
#[async_trait]
pub trait JobBody: Send + Sync {
    /// Does the job. When [`JobContext::cancelled`] fires it should fail soon; the process exits a while later anyway, at any
    /// point, so everything it writes must be safe to be cut off.
    async fn run(&self, job: Value, context: JobContext) -> Result<Value, JobFailure>;
}

/// What a body is given beside its job.
#[derive(Debug)]
pub struct JobContext {
    pub(super) events: mpsc::Sender<JobEvent>,
    pub(super) notes: mpsc::Receiver<Value>,
    pub(super) cancel: CancellationToken,
}

/// Tells the daemon how a job goes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter {
    events: mpsc::Sender<JobEvent>,
}

impl JobContext {
    /// For the parts of the body that report.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter { events: self.events.clone() }
    }

    /// Fires when the job was cancelled or the daemon is gone.
    #[must_use]
    pub const fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// The next note of the daemon; `None` when there will be none. Cancel-safe.
    pub async fn note(&mut self) -> Option<Value> {
        self.notes.recv().await
    }
}

impl Reporter {
    /// One whose events somebody else takes.
    #[cfg(test)]
    pub(crate) const fn over(events: mpsc::Sender<JobEvent>) -> Self {
        Self { events }
    }

    /// Says how far the job is. Never waits: with the channel full a report is dropped, and the next one tells more.
    pub fn progress(&self, progress: Progress) {
        // Closed means that the job is being cancelled; nobody wants to know any more.
        drop(self.events.try_send(JobEvent::Progress(progress)));
    }

    /// Does `work`, and says meanwhile what its meter shows. The work is dropped when this is.
    pub async fn metered<T>(&self, mut meter: watch::Receiver<Progress>, work: impl Future<Output = T>) -> T {
        let reporting = async {
            while meter.changed().await.is_ok() {
                self.progress(meter.borrow_and_update().clone());
                tokio::time::sleep(REPORT_PAUSE).await;
            }
            std::future::pending::<T>().await
        };
        tokio::select! {
            done = work => done, // the only branch with effects
            never = reporting => never, // cancel-safe
        }
    }

    /// Says something for the daemon's log. Waits for room.
    pub async fn log(&self, level: LogLevel, message: impl Into<String>) {
        drop(self.events.send(JobEvent::Log { level, message: message.into() }).await);
    }

    /// Says something to whoever started the job. Waits for room.
    pub async fn note(&self, note: Value) {
        drop(self.events.send(JobEvent::Note(note)).await);
    }
}
