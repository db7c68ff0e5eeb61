//! Keeps the engine's copies of the node's certificates current: once before the first engine is configured, then whenever the
//! daemon's own were swapped, and tells an engine that runs.
//!
//! Level-triggered: what is due stays due until it was done. An engine is told once it is first seen as well, since it may
//! have read its files before the daemon that copied them last was killed.
//!
//! Invariant: `what_could_not_be_installed_stays_due`, a test below.
//!
//! Not here: copying ([`crate::helper`]); what the engine makes of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::chain::Chain;
use crate::child::process::ProcessId;
use crate::engine_actor::{EngineHandle, Process};
use crate::helper::{CallError, HelperClient};
use crate::supervisor::Supervisor;

/// Three small files, read by a process of its own.
pub(super) const INSTALL_DEADLINE: Duration = Duration::from_secs(20);
/// Before something that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    /// The daemon's files are newer than the engine's.
    install: bool,
    /// The engine that is known to have read its files since they were last replaced.
    told: Option<ProcessId>,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Install,
    Tell(ProcessId),
    Nothing,
}

impl Due {
    fn next(self, running: Option<ProcessId>) -> Step {
        match running {
            _ if self.install => Step::Install,
            Some(process) if self.told != Some(process) => Step::Tell(process),
            Some(_) | None => Step::Nothing,
        }
    }

    fn installed(self, changed: bool) -> Self {
        Self { install: false, told: self.told.filter(|_| !changed) }
    }
}

/// Runs until cancelled. `swapped` changes whenever the daemon's own files were swapped.
pub(super) async fn follow<T: Send + Sync>(
    helper: HelperClient,
    supervisor: Supervisor,
    engine: EngineHandle,
    mut swapped: watch::Receiver<T>,
    cancel: CancellationToken,
) {
    let mut engine = engine.changes();
    let mut due = Due { install: false, told: None };
    let mut failing = false;
    loop {
        let running = running(&engine.borrow_and_update());
        let (after, failed) = match due.next(running) {
            Step::Nothing => (due, false),
            Step::Install => install(&helper, due, failing).await,
            Step::Tell(process) => tell(&supervisor, due, process).await,
        };
        failing = failed;
        if !failed && due != after {
            due = after;
            continue;
        }
        tokio::select! {
            () = cancel.cancelled() => return, // cancel-safe
            changed = swapped.changed() => match changed { // cancel-safe
                Ok(()) => due.install = true,
                Err(_) => return cancel.cancelled().await,
            },
            Ok(()) = engine.changed() => {} // cancel-safe
            () = tokio::time::sleep(AGAIN_AFTER), if failing => {} // cancel-safe
        }
    }
}

fn running(engine: &Process) -> Option<ProcessId> {
    match engine {
        Process::Alive { process, .. } => Some(*process),
        Process::Stopped { .. }
        | Process::Stopping { .. }
        | Process::Unkillable { .. }
        | Process::Strangers { .. } => None,
    }
}

async fn install(helper: &HelperClient, due: Due, failing: bool) -> (Due, bool) {
    match helper.install_tls(INSTALL_DEADLINE).await {
        Ok(changed) => {
            if changed {
                info!("the engine's certificates were replaced");
            }
            (due.installed(changed), false)
        }
        Err(err) => {
            if !failing {
                warn!(error = %Chain(&err), "the engine keeps its old certificates, will retry");
            }
            (due, true)
        }
    }
}

async fn tell(supervisor: &Supervisor, due: Due, process: ProcessId) -> (Due, bool) {
    match supervisor.reload(process).await {
        Ok(()) => (Due { told: Some(process), ..due }, false),
        // It has just started, or just ended.
        Err(err) => {
            debug!(%process, error = %Chain(&err), "engine not told of its certificates yet");
            (due, true)
        }
    }
}

/// Before anything is configured: an engine that replicates does not start without its files.
pub(super) async fn first(helper: &HelperClient) -> Result<bool, CallError> {
    helper.install_tls(INSTALL_DEADLINE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_installed_stays_due() {
        let process = ProcessId { pid: 7, start_time: 1 };
        let due = Due { install: true, told: Some(process) };
        assert_eq!(due.next(Some(process)), Step::Install);
        assert_eq!(due.next(None), Step::Install);
        let same = due.installed(false);
        assert_eq!((same.next(Some(process)), same.next(None)), (Step::Nothing, Step::Nothing));
        let changed = due.installed(true);
        assert_eq!(changed.next(Some(process)), Step::Tell(process));
        assert_eq!(changed.next(None), Step::Nothing, "one that starts later reads the new ones");
        let other = ProcessId { pid: 7, start_time: 2 };
        assert_eq!(same.next(Some(other)), Step::Tell(other));
    }
}
