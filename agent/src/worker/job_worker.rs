//! The worker's side of a job: carries orders to the body and events back, and ends with the daemon.
//!
//! Invariants, each a test in `job_handle`:
//! * `dropping_the_handle_cancels_the_job`, and so does the daemon's death.
//! * `a_body_that_ignores_its_cancelling_is_cut_off`.
//! * `a_body_that_panics_is_a_failed_job`.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Greeting;
use super::job::{JobBody, JobContext, JobEvent, JobFailure, JobRetry, Order};
use crate::helper::wire::{AsyncChannel, WireError};

/// Room for events and notes under way.
const QUEUE: usize = 64;
/// How long a cancelled body may go on.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Why a worker ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum JobWorkerError {
    /// The channel failed or closed.
    #[error("talk to the daemon")]
    Channel(#[from] WireError),
    /// The runtime or the channel could not be set up.
    #[error("set up the worker")]
    Setup(#[from] io::Error),
    /// The body did not end in time after it was cancelled.
    #[error("job did not end within {CANCEL_GRACE:?} of being cancelled")]
    CutOff,
}

/// Serves one job.
pub(super) async fn serve(channel: AsyncChannel, body: Box<dyn JobBody>) -> Result<(), JobWorkerError> {
    channel.send(&Greeting::Ready).await?;
    let job = loop {
        match channel.receive::<Order>().await?.0 {
            Order::Start(job) => break job,
            Order::Note(_) => warn!("note before the job, dropped"),
            Order::Cancel => return Ok(()),
        }
    };
    let (events, from_body) = mpsc::channel(QUEUE);
    let (to_body, notes) = mpsc::channel(QUEUE);
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let context = JobContext { events, notes, cancel: cancel.clone() };
    tasks.spawn(async move { body.run(job, context).await });
    let result =
        Serving { channel: &channel, from_body, to_body: Some(to_body), cancel }.run(&mut tasks).await;
    tasks.abort_all();
    result
}

struct Serving<'a> {
    channel: &'a AsyncChannel,
    from_body: mpsc::Receiver<JobEvent>,
    to_body: Option<mpsc::Sender<Value>>,
    cancel: CancellationToken,
}

enum Happened {
    Ordered(Order),
    DaemonGone(WireError),
    Reported(JobEvent),
    Ended(Result<Result<Value, JobFailure>, JoinError>),
    CutOff,
}

impl Serving<'_> {
    async fn run(mut self, tasks: &mut JoinSet<Result<Value, JobFailure>>) -> Result<(), JobWorkerError> {
        let mut daemon_gone = None;
        loop {
            match self.next(tasks, daemon_gone.is_some()).await {
                Happened::Ordered(Order::Note(note)) => self.pass_on(note),
                Happened::Ordered(Order::Cancel) => self.cancel.cancel(),
                Happened::Ordered(Order::Start(_)) => warn!("second job, dropped: one worker does one job"),
                Happened::DaemonGone(err) => {
                    self.cancel.cancel();
                    daemon_gone = Some(err);
                }
                Happened::Reported(_) if daemon_gone.is_some() => {}
                Happened::Reported(event) => self.channel.send(&event).await?,
                Happened::CutOff => return Err(JobWorkerError::CutOff),
                Happened::Ended(result) => {
                    return match daemon_gone {
                        Some(err) => Err(err.into()),
                        None => self.finish(result).await,
                    };
                }
            }
        }
    }

    async fn next(&mut self, tasks: &mut JoinSet<Result<Value, JobFailure>>, daemon_gone: bool) -> Happened {
        let cancelled_long_ago = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(CANCEL_GRACE).await;
        };
        tokio::select! {
            biased;
            // Cancel-safe: an event is taken only to be handled.
            Some(event) = self.from_body.recv() => Happened::Reported(event),
            // Cancel-safe: as documented by JoinSet.
            Some(ended) = tasks.join_next() => Happened::Ended(ended),
            // Cancel-safe: a message is taken off the channel only to be returned.
            order = self.channel.receive::<Order>(), if !daemon_gone => match order {
                Ok((order, _)) => Happened::Ordered(order),
                Err(err) => Happened::DaemonGone(err),
            },
            // Starts over after each event of the body: one that still talks is still ending.
            () = cancelled_long_ago => Happened::CutOff,
        }
    }

    /// Never waits: a body that does not take its notes loses the newest, and is told so in the log.
    fn pass_on(&mut self, note: Value) {
        if let Some(Err(err)) = self.to_body.as_ref().map(|to_body| to_body.try_send(note)) {
            warn!(error = %err, "note not taken by the job, dropped");
        }
    }

    async fn finish(
        &mut self,
        result: Result<Result<Value, JobFailure>, JoinError>,
    ) -> Result<(), JobWorkerError> {
        // What it said before it ended comes before its end.
        while let Ok(event) = self.from_body.try_recv() {
            self.channel.send(&event).await?;
        }
        let last = match result {
            Ok(Ok(value)) => JobEvent::Done(value),
            Ok(Err(failure)) => JobEvent::Failed(failure),
            Err(err) => {
                let why = format!("job panicked: {err}");
                JobEvent::Failed(JobFailure { retry: JobRetry::Never, why })
            }
        };
        Ok(self.channel.send(&last).await?)
    }
}
