//! The daemon's side of the helper: typed calls, each with a deadline.
//!
//! [`HelperLink::run`] belongs into the daemon's crew: when it ends, the helper is gone and the daemon must end too, to be
//! started again with a new one.
//!
//! Invariants, each a test below:
//! * `replies_find_their_calls_in_any_order`.
//! * `a_call_ends_when_the_helper_does`.
//! * `a_call_ends_at_its_deadline_even_if_the_helper_hangs`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_storage::ops;
use tokio::sync::oneshot;
use tracing::debug;

use super::protocol::{
    Answer, EngineProgram, EngineSignal, Failure, Prepared, ProcessState, Reply, Request, Verb,
};
use super::wire::{AsyncChannel, Received, WireError};
use crate::child::lock::LockView;
use crate::child::process::{ProcessFacts, ProcessId};
use crate::worker::Role;

/// The helper answers at its deadline; this much later it counts as hung.
const GRACE: Duration = Duration::from_secs(2);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The helper refused or failed.
    #[error("helper: {verb}")]
    Failed {
        /// What was asked.
        verb: &'static str,
        /// What it said.
        #[source]
        source: Failure,
    },
    /// The helper process is gone.
    #[error("helper: {verb}: the helper is gone")]
    Gone {
        /// What was asked.
        verb: &'static str,
    },
    /// The helper itself does not answer, which it should even when a disk does not.
    #[error("helper: {verb}: no answer, not even a late one")]
    Hung {
        /// What was asked.
        verb: &'static str,
    },
    /// The channel does not take the request.
    #[error("helper: {verb}: request not sent")]
    Send {
        /// What was asked.
        verb: &'static str,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The answer is one to another question: daemon and helper are of different releases.
    #[error("helper: {verb}: answer not understood")]
    Answer {
        /// What was asked.
        verb: &'static str,
    },
}

impl CallError {
    /// What the helper said, if it said something.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { source, .. } => Some(source),
            Self::Gone { .. } | Self::Hung { .. } | Self::Send { .. } | Self::Answer { .. } => None,
        }
    }
}

type Answered = Result<(Answer, Option<OwnedFd>), Failure>;

#[derive(Debug)]
struct Shared {
    channel: AsyncChannel,
    last_id: AtomicU64,
    /// `None` once the helper is gone.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Answered>>>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Answered>>>> {
        // Nothing panics while it is held; the table is valid at every moment anyway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the helper. Cheap to clone.
///
/// Calls are cancel-safe in that nothing leaks: a worker whose channel nobody takes ends, a stage that nobody releases is
/// given up. What was asked may still be done.
#[derive(Debug, Clone)]
pub struct HelperClient {
    shared: Arc<Shared>,
}

/// Carries replies back to their calls.
#[derive(Debug)]
pub struct HelperLink {
    shared: Arc<Shared>,
}

impl HelperLink {
    /// Takes the daemon's end of the channel from [`super::start`].
    ///
    /// # Errors
    /// When it cannot be registered with the runtime.
    pub fn new(end: OwnedFd) -> io::Result<(HelperClient, Self)> {
        let shared = Arc::new(Shared {
            channel: AsyncChannel::new(end)?,
            last_id: AtomicU64::new(0),
            waiting: Mutex::new(Some(BTreeMap::new())),
        });
        Ok((HelperClient { shared: Arc::clone(&shared) }, Self { shared }))
    }

    /// Runs until the helper is gone; every call then fails. Cancel-safe only in that calls fail the same way.
    pub async fn run(self) -> WireError {
        loop {
            match self.shared.channel.receive::<Reply>().await {
                Ok(received) => self.deliver(received),
                Err(WireError::Malformed(err)) => debug!(error = %err, "reply of the helper not understood"),
                Err(err) => return err,
            }
        }
    }

    fn deliver(&self, (reply, fd): Received<Reply>) {
        let waiter = self.shared.waiting().as_mut().and_then(|waiting| waiting.remove(&reply.id));
        let answered = reply.result.map(|answer| (answer, fd));
        if waiter.is_none_or(|waiter| waiter.send(answered).is_err()) {
            debug!(id = reply.id, "reply of the helper that nobody waits for");
        }
    }
}

impl Drop for HelperLink {
    fn drop(&mut self) {
        // Dropping the senders wakes everyone who waits.
        *self.shared.waiting() = None;
    }
}

impl HelperClient {
    /// Looks, formats, mounts, unmounts or shuts down, in a one-shot process of the helper.
    ///
    /// # Errors
    /// [`CallError`]. After `Failure::Late` the step may still be under way.
    pub async fn volume(&self, verb: ops::Verb, deadline: Duration) -> Result<ops::Response, CallError> {
        let verb = Verb::Volume(verb);
        let word = verb.word();
        let (Answer::Volume(response), _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(response)
    }

    /// Who holds the engine lock.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn look_at_lock(&self, deadline: Duration) -> Result<LockView, CallError> {
        let (Answer::Lock(view), _) = self.call(Verb::LookAtLock, deadline).await? else {
            return Err(CallError::Answer { verb: Verb::LookAtLock.word() });
        };
        Ok(view)
    }

    /// Sets a stage of the engine up, lock held; it must be released within 30 seconds.
    ///
    /// # Errors
    /// [`CallError`]; `Failure::Refused` when the lock is held or the volume is not there.
    pub async fn prepare_engine(
        &self,
        program: EngineProgram,
        args: Vec<String>,
        deadline: Duration,
    ) -> Result<Prepared, CallError> {
        let verb = Verb::PrepareEngine { program, args };
        let word = verb.word();
        let (Answer::Prepared(prepared), _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(prepared)
    }

    /// Lets a prepared stage become the engine.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn release_engine(&self, process: ProcessId, deadline: Duration) -> Result<(), CallError> {
        let verb = Verb::ReleaseEngine { process };
        let word = verb.word();
        let (Answer::Released, _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(())
    }

    /// Whether a process that the helper started still runs, and how it ended.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn engine_state(
        &self,
        process: ProcessId,
        deadline: Duration,
    ) -> Result<ProcessState, CallError> {
        let verb = Verb::EngineState { process };
        let word = verb.word();
        let (Answer::State(state), _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(state)
    }

    /// Sends a signal to the engine's first process.
    ///
    /// # Errors
    /// [`CallError`]; `Failure::NotOurs` when it is not a running engine.
    pub async fn signal_engine(
        &self,
        process: ProcessId,
        signal: EngineSignal,
        deadline: Duration,
    ) -> Result<(), CallError> {
        self.signalled(Verb::SignalEngine { process, signal }, deadline).await
    }

    /// How many walreceivers the engine has: children of its first process, by their command lines.
    ///
    /// # Errors
    /// [`CallError`]; `Failure::NotOurs` when `process` is not a running engine.
    pub async fn receivers(&self, process: ProcessId, deadline: Duration) -> Result<u32, CallError> {
        self.counted(Verb::Receivers { process }, deadline).await
    }

    /// Sends SIGTERM to each of them; returns how many there were.
    ///
    /// # Errors
    /// As [`Self::receivers`].
    pub async fn end_receivers(&self, process: ProcessId, deadline: Duration) -> Result<u32, CallError> {
        self.counted(Verb::EndReceivers { process }, deadline).await
    }

    async fn counted(&self, verb: Verb, deadline: Duration) -> Result<u32, CallError> {
        let word = verb.word();
        let (Answer::Receivers(count), _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(count)
    }

    /// Brings the certificate files of `[tls]` to where the engine reads them; says whether one was replaced.
    ///
    /// # Errors
    /// [`CallError`]; `Failure::Helper` names the file that cannot be used, and nothing was replaced then.
    pub async fn install_tls(&self, deadline: Duration) -> Result<bool, CallError> {
        let (Answer::InstalledTls { changed }, _) = self.call(Verb::InstallTls, deadline).await? else {
            return Err(CallError::Answer { verb: Verb::InstallTls.word() });
        };
        Ok(changed)
    }

    /// Kills everything of the engine at once; [`Self::engine_processes`] tells when it is gone.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn kill_engine(&self, deadline: Duration) -> Result<(), CallError> {
        self.signalled(Verb::KillEngine, deadline).await
    }

    /// What is left of the engine.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn engine_processes(&self, deadline: Duration) -> Result<Vec<ProcessFacts>, CallError> {
        let (Answer::Processes(processes), _) = self.call(Verb::EngineProcesses, deadline).await? else {
            return Err(CallError::Answer { verb: Verb::EngineProcesses.word() });
        };
        Ok(processes)
    }

    /// Starts a worker; returns it with the daemon's end of its channel.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn start_worker(
        &self,
        role: Role,
        deadline: Duration,
    ) -> Result<(ProcessId, OwnedFd), CallError> {
        let verb = Verb::StartWorker { role };
        let word = verb.word();
        let (Answer::Worker(process), Some(end)) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok((process, end))
    }

    /// Kills a worker that does not end with its channel.
    ///
    /// # Errors
    /// [`CallError`]; `Failure::NotOurs` when it has ended.
    pub async fn kill_worker(&self, process: ProcessId, deadline: Duration) -> Result<(), CallError> {
        self.signalled(Verb::KillWorker { process }, deadline).await
    }

    async fn signalled(&self, verb: Verb, deadline: Duration) -> Result<(), CallError> {
        let word = verb.word();
        let (Answer::Signalled, _) = self.call(verb, deadline).await? else {
            return Err(CallError::Answer { verb: word });
        };
        Ok(())
    }

    async fn call(&self, verb: Verb, deadline: Duration) -> Result<(Answer, Option<OwnedFd>), CallError> {
        let word = verb.word();
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answered) = oneshot::channel();
        match self.shared.waiting().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(CallError::Gone { verb: word }),
        };
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let exchange = async {
            let request = Request { id, deadline_ms, verb };
            self.shared
                .channel
                .send(&request)
                .await
                .map_err(|source| CallError::Send { verb: word, source })?;
            answered.await.map_err(|_| CallError::Gone { verb: word })
        };
        match tokio::time::timeout(deadline.saturating_add(GRACE), exchange).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(source))) => Err(CallError::Failed { verb: word, source }),
            Ok(Err(err)) => Err(err),
            Err(_) => Err(CallError::Hung { verb: word }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::wire::{self, Channel};

    fn link() -> (HelperClient, HelperLink, AsyncChannel) {
        let (ours, theirs) = wire::pair().unwrap();
        let (client, link) = HelperLink::new(ours).unwrap();
        (client, link, AsyncChannel::new(theirs).unwrap())
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn replies_find_their_calls_in_any_order() {
        let (client, link, helper) = link();
        let answer_in_reverse = async {
            let (first, _) = helper.receive::<Request>().await.unwrap();
            let (second, _) = helper.receive::<Request>().await.unwrap();
            for request in [second, first] {
                let answer = if request.verb == Verb::LookAtLock {
                    Answer::Lock(LockView::Free)
                } else {
                    Answer::Processes(vec![])
                };
                let result = Ok(answer);
                helper.send(&Reply { id: request.id, result }).await.unwrap();
            }
        };
        let calls = async { tokio::join!(client.look_at_lock(SOON), client.engine_processes(SOON)) };
        tokio::select! {
            (_, (lock, processes)) = async { tokio::join!(answer_in_reverse, calls) } => {
                assert_eq!(lock.unwrap(), LockView::Free);
                assert_eq!(processes.unwrap(), vec![]);
            }
            err = link.run() => panic!("link ended: {err}"),
        }
    }

    #[tokio::test]
    async fn a_call_ends_when_the_helper_does() {
        let (client, link, helper) = link();
        let die = async {
            helper.receive::<Request>().await.unwrap();
            drop(helper);
        };
        let (answer, _, ended) = tokio::join!(client.look_at_lock(SOON), die, link.run());
        assert!(matches!(answer, Err(CallError::Gone { .. })), "{answer:?}");
        assert!(matches!(ended, WireError::Closed));
        assert!(matches!(client.kill_engine(SOON).await, Err(CallError::Gone { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline_even_if_the_helper_hangs() {
        let (ours, theirs) = wire::pair().unwrap();
        let _hung = Channel::blocking(theirs).unwrap();
        let (client, _link) = HelperLink::new(ours).unwrap();
        let answer = client.look_at_lock(SOON).await;
        assert!(matches!(answer, Err(CallError::Hung { .. })), "{answer:?}");
    }
}
