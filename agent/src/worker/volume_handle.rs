//! The daemon's side of a `volume` worker: one call at a time, each with a deadline.
//!
//! A worker that hangs on a stalled disk is kept, not replaced: another one would hang as well, and each that hangs stays
//! until the disk answers. While its answer is overdue further calls fail at once with [`VolumeCallError::Overdue`];
//! when the disk comes back the late answer is taken off the channel and the worker serves again.
//!
//! Invariants, each a test below:
//! * `a_late_answer_is_never_taken_for_that_of_a_later_call`.
//! * `while_an_answer_is_overdue_calls_fail_at_once`.
//! * `a_stage_that_refused_is_told_to_the_caller`.

use std::os::fd::OwnedFd;
use std::time::Duration;

use holdfast_model::volume::{Space, VolumeIdentity};
use holdfast_model::{ClusterId, Promise};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Greeting;
use super::volume::{VolumeAnswer, VolumeFailure, VolumeReply, VolumeRequest, VolumeVerb};
use crate::child::process::ProcessId;
use crate::child::spec::Refusal;
use crate::data::DataRecord;
use crate::helper::wire::{AsyncChannel, WireError};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum VolumeCallError {
    /// The worker did it and failed, or refused.
    #[error("volume worker")]
    Failed(#[source] VolumeFailure),
    /// It missed the deadline. A write may still land: whoever submitted a promise behaves as promised from then on.
    #[error("volume worker gave no answer within {} ms", deadline.as_millis())]
    Late {
        /// The deadline.
        deadline: Duration,
    },
    /// It still owes the answer to an earlier call; nothing was submitted.
    #[error("volume worker owes an answer since {} ms", waited.as_millis())]
    Overdue {
        /// For how long.
        waited: Duration,
    },
    /// The stage before it gave up.
    #[error("volume worker was not started")]
    Refused(#[source] Refusal),
    /// It is gone.
    #[error("volume worker is gone")]
    Gone(#[source] WireError),
    /// It answers something else than was asked.
    #[error("volume worker's answer not understood")]
    Answer,
}

impl VolumeCallError {
    /// Whether the disk, not the worker, is to blame: it failed, or it does not answer.
    #[must_use]
    pub const fn blames_disk(&self) -> bool {
        match self {
            Self::Failed(VolumeFailure::Disk { .. }) | Self::Late { .. } | Self::Overdue { .. } => true,
            Self::Failed(
                VolumeFailure::NotMounted { .. }
                | VolumeFailure::Identity { .. }
                | VolumeFailure::PromiseLost { .. }
                | VolumeFailure::PromiseRefused { .. }
                | VolumeFailure::DataRecord { .. },
            )
            | Self::Refused(_)
            | Self::Gone(_)
            | Self::Answer => false,
        }
    }
}

/// A `volume` worker. Dropping it ends the worker, as soon as the disk lets it.
#[derive(Debug)]
pub struct VolumeWorker {
    process: ProcessId,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    channel: AsyncChannel,
    greeted: bool,
    last_id: u64,
    /// An answer that is still owed: its id and when it was asked for.
    owed: Option<(u64, Instant)>,
}

impl VolumeWorker {
    /// Takes over what [`crate::helper::HelperClient::start_worker`] returned.
    ///
    /// # Errors
    /// When the channel cannot be registered with the runtime.
    pub fn new((process, end): (ProcessId, OwnedFd)) -> std::io::Result<Self> {
        let line = Line { channel: AsyncChannel::new(end)?, greeted: false, last_id: 0, owed: None };
        Ok(Self { process, line: Mutex::new(line) })
    }

    /// The worker's process.
    #[must_use]
    pub const fn process(&self) -> ProcessId {
        self.process
    }

    /// The identity of the volume, which is this node's.
    ///
    /// # Errors
    /// [`VolumeCallError`], as all calls.
    pub async fn identity(&self, deadline: Duration) -> Result<VolumeIdentity, VolumeCallError> {
        let VolumeAnswer::Identity(identity) = self.call(VolumeVerb::Identity, deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(*identity)
    }

    /// Binds the volume to a cluster, for good.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn bind(
        &self,
        cluster: ClusterId,
        deadline: Duration,
    ) -> Result<VolumeIdentity, VolumeCallError> {
        let VolumeAnswer::Identity(identity) = self.call(VolumeVerb::Bind(cluster), deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(*identity)
    }

    /// The newest promise; none only on a volume that belongs to no cluster yet.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn promise(
        &self,
        identity: VolumeIdentity,
        deadline: Duration,
    ) -> Result<Option<Promise>, VolumeCallError> {
        let VolumeAnswer::Promise(promise) = self.call(VolumeVerb::Promise(identity), deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(promise)
    }

    /// Persists a promise.
    ///
    /// # Errors
    /// [`VolumeCallError`]. After `Late`, and after a failing disk, it may be on the volume or not: the caller behaves as
    /// if it were and answers as if it were not.
    pub async fn persist_promise(
        &self,
        identity: VolumeIdentity,
        promise: Promise,
        deadline: Duration,
    ) -> Result<(), VolumeCallError> {
        self.done(VolumeVerb::PersistPromise { identity, promise }, deadline).await
    }

    /// The record about the data directory; none on a volume without data.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn data(&self, deadline: Duration) -> Result<Option<DataRecord>, VolumeCallError> {
        let VolumeAnswer::Data(record) = self.call(VolumeVerb::Data, deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(record)
    }

    /// Writes the record about the data directory.
    ///
    /// # Errors
    /// [`VolumeCallError`]. After `Late` the old or the new one is on the volume, whole.
    pub async fn write_data(&self, record: DataRecord, deadline: Duration) -> Result<(), VolumeCallError> {
        self.done(VolumeVerb::WriteData(record), deadline).await
    }

    /// Overwrites a block of the device: the one proof that it takes writes.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn probe(&self, deadline: Duration) -> Result<(), VolumeCallError> {
        self.done(VolumeVerb::Probe, deadline).await
    }

    /// Free space.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn space(&self, deadline: Duration) -> Result<Space, VolumeCallError> {
        let VolumeAnswer::Space(space) = self.call(VolumeVerb::Space, deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(space)
    }

    /// Allocates the reserve.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn reserve(&self, deadline: Duration) -> Result<(), VolumeCallError> {
        self.done(VolumeVerb::Reserve, deadline).await
    }

    /// Gives the reserve back.
    ///
    /// # Errors
    /// [`VolumeCallError`].
    pub async fn release_reserve(&self, deadline: Duration) -> Result<(), VolumeCallError> {
        self.done(VolumeVerb::ReleaseReserve, deadline).await
    }

    /// Waits until the answer that is owed has come: an abandoned write has then returned.
    ///
    /// # Errors
    /// [`VolumeCallError`]; `Overdue` when it still has not come.
    pub async fn settle(&self, deadline: Duration) -> Result<(), VolumeCallError> {
        let mut line = self.line.lock().await;
        line.settle(Instant::now() + deadline).await
    }

    async fn done(&self, verb: VolumeVerb, deadline: Duration) -> Result<(), VolumeCallError> {
        let VolumeAnswer::Done = self.call(verb, deadline).await? else {
            return Err(VolumeCallError::Answer);
        };
        Ok(())
    }

    /// Cancel-safe: an answer that nobody waits for any more is owed, and dropped when it comes.
    async fn call(&self, verb: VolumeVerb, deadline: Duration) -> Result<VolumeAnswer, VolumeCallError> {
        let mut line = self.line.lock().await;
        let until = Instant::now() + deadline;
        // Only what is there already: waiting for it would take this call's time.
        line.settle(Instant::now()).await?;
        let (id, reply) = line.submit(verb, until, deadline).await?;
        if reply.id == id {
            reply.result.map_err(VolumeCallError::Failed)
        } else {
            Err(VolumeCallError::Answer)
        }
    }
}

impl Line {
    async fn submit(
        &mut self,
        verb: VolumeVerb,
        until: Instant,
        deadline: Duration,
    ) -> Result<(u64, VolumeReply), VolumeCallError> {
        self.last_id += 1;
        let id = self.last_id;
        self.owed = Some((id, Instant::now()));
        let request = VolumeRequest { id, verb };
        let exchange = async {
            self.channel.send(&request).await.map_err(VolumeCallError::Gone)?;
            next_reply(&self.channel, &mut self.greeted).await
        };
        let reply = tokio::time::timeout_at(until, exchange)
            .await
            .map_err(|_| VolumeCallError::Late { deadline })??;
        self.owed = None;
        Ok((id, reply))
    }

    async fn settle(&mut self, until: Instant) -> Result<(), VolumeCallError> {
        let Some((_, since)) = self.owed else { return Ok(()) };
        let reply = next_reply(&self.channel, &mut self.greeted);
        match tokio::time::timeout_at(until, reply).await {
            Ok(Ok(_late)) => self.owed = None,
            Ok(Err(err)) => return Err(err),
            Err(_) => return Err(VolumeCallError::Overdue { waited: since.elapsed() }),
        }
        Ok(())
    }
}

/// The next reply, after the greeting.
async fn next_reply(channel: &AsyncChannel, greeted: &mut bool) -> Result<VolumeReply, VolumeCallError> {
    if !*greeted {
        match channel.receive::<Greeting>().await.map_err(VolumeCallError::Gone)?.0 {
            Greeting::Ready => *greeted = true,
            Greeting::Refused(refusal) => return Err(VolumeCallError::Refused(refusal)),
        }
    }
    Ok(channel.receive::<VolumeReply>().await.map_err(VolumeCallError::Gone)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::wire;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    async fn greeted() -> (VolumeWorker, AsyncChannel) {
        let (ours, theirs) = wire::pair().unwrap();
        let worker = VolumeWorker::new((ProcessId::own().unwrap(), ours)).unwrap();
        let far = AsyncChannel::new(theirs).unwrap();
        far.send(&Greeting::Ready).await.unwrap();
        (worker, far)
    }

    async fn answer(far: &AsyncChannel, result: Result<VolumeAnswer, VolumeFailure>) {
        let (request, _) = far.receive::<VolumeRequest>().await.unwrap();
        far.send(&VolumeReply { id: request.id, result }).await.unwrap();
    }

    #[tokio::test]
    async fn while_an_answer_is_overdue_calls_fail_at_once() {
        let (worker, _far) = greeted().await;
        assert!(matches!(worker.probe(SHORT).await, Err(VolumeCallError::Late { .. })));
        let begun = Instant::now();
        assert!(matches!(worker.data(LONG).await, Err(VolumeCallError::Overdue { .. })));
        assert!(begun.elapsed() < LONG);
    }

    #[tokio::test]
    async fn a_late_answer_is_never_taken_for_that_of_a_later_call() {
        let (worker, far) = greeted().await;
        assert!(matches!(worker.probe(SHORT).await, Err(VolumeCallError::Late { .. })));
        answer(&far, Ok(VolumeAnswer::Done)).await;
        worker.settle(LONG).await.unwrap();
        let (data, ()) = tokio::join!(worker.data(LONG), answer(&far, Ok(VolumeAnswer::Data(None))));
        assert_eq!(data.unwrap(), None);
    }

    #[tokio::test]
    async fn a_call_that_was_dropped_is_owed_like_a_late_one() {
        let (worker, far) = greeted().await;
        assert!(tokio::time::timeout(SHORT, worker.probe(LONG)).await.is_err());
        assert!(matches!(worker.probe(LONG).await, Err(VolumeCallError::Overdue { .. })));
        answer(&far, Ok(VolumeAnswer::Done)).await;
        worker.settle(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_stage_that_refused_is_told_to_the_caller() {
        let (ours, theirs) = wire::pair().unwrap();
        let worker = VolumeWorker::new((ProcessId::own().unwrap(), ours)).unwrap();
        let far = AsyncChannel::new(theirs).unwrap();
        let refusal = Refusal::NotMounted { mount: "/srv".into() };
        far.send(&crate::child::spec::StageReport::Refused(refusal.clone())).await.unwrap();
        let err = worker.probe(LONG).await.unwrap_err();
        assert!(matches!(err, VolumeCallError::Refused(told) if told == refusal));
    }
}
