//! Starts, finds again, watches and stops the engine, through the helper.
//!
//! The engine outlives the agent. What makes that safe is the lock on the volume ([`crate::child::lock`]) together with a
//! record of which process it is, stored before that process becomes the engine ([`record`]). After a restart [`adopt`]
//! judges whose engine holds the lock. Whether an engine still runs is seen in `/proc`, without touching its disk.
//!
//! Invariants, each a test in `tests/supervisor/`:
//! * `an_engine_is_adopted_after_an_agent_restart_and_never_started_twice`.
//! * `a_stage_that_was_not_let_go_starts_nothing`, so an agent that dies between record and release starts nothing.
//! * `a_lock_held_by_a_stranger_refuses_the_start_and_names_him`.
//!
//! Not here: when to start or stop (`holdfast-agent-decide`), readiness (a query, by `engine`'s session).

pub mod adopt;
pub mod breaches;
pub mod crashes;
pub mod log_tail;
pub mod record;
pub mod severity;
pub mod stop;

use std::io;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::child::lock::describe;
use crate::child::process::{self, ProcessFacts, ProcessId};
use crate::helper::protocol::{EngineProgram, EngineSignal, ProcessState};
use crate::helper::{CallError, HelperClient};
use crate::ledger::{Ledger, LedgerError};
use adopt::Found;
use record::EngineRecord;
use stop::{Patience, StopBy, Stopped};

/// Looking at the lock touches the disk.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// A stage opens lock and log and no more.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// The exec itself.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
const HELPER_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at a running engine.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Why the supervisor could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The helper refused or failed.
    #[error("supervise the engine")]
    Helper(#[from] CallError),
    /// The record of the engine's process could not be stored or read; nothing was started.
    #[error("keep the record of the engine's process")]
    Ledger(#[from] LedgerError),
    /// `/proc` cannot be read.
    #[error("look at processes")]
    Proc(#[source] io::Error),
    /// Something already runs on the volume.
    #[error("engine lock is held by {}", describe(holders))]
    AlreadyRunning {
        /// Who can be seen.
        holders: Vec<ProcessFacts>,
    },
    /// A program that was to end well did not.
    #[error("{program} ended badly: {state:?}; its output is in the engine's log")]
    EndedBadly {
        /// The program's name.
        program: &'static str,
        /// How it ended.
        state: ProcessState,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {} s", deadline.as_secs())]
    NotEnded {
        /// The program's name.
        program: &'static str,
        /// The deadline.
        deadline: Duration,
    },
}

/// Supervises the one engine of this node. Cheap to clone; one task starts and stops at a time.
#[derive(Debug, Clone)]
pub struct Supervisor {
    helper: HelperClient,
    ledger: Ledger,
    boot_id: String,
}

impl Supervisor {
    /// With the helper to act through and the ledger to remember in.
    ///
    /// # Errors
    /// [`SupervisorError::Proc`].
    pub fn new(helper: HelperClient, ledger: Ledger) -> Result<Self, SupervisorError> {
        let boot_id = process::boot_id().map_err(SupervisorError::Proc)?;
        Ok(Self { helper, ledger, boot_id })
    }

    /// What lives on the volume. The lock is looked at through the mount, so not before it is mounted.
    ///
    /// # Errors
    /// [`SupervisorError`]; with a stalled disk `Failure::Late`.
    pub async fn find(&self) -> Result<Found, SupervisorError> {
        let lock = self.helper.look_at_lock(LOOK_WITHIN).await?;
        let record = self.ledger.load::<EngineRecord>()?;
        Ok(adopt::judge(&lock, record.as_ref(), &self.boot_id))
    }

    /// The engine that the ledger names, if its process still runs: known without touching the disk, so also while the
    /// disk is stalled. Before anything is started, [`Self::find`] has the last word.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub fn remembered(&self) -> Result<Option<EngineRecord>, SupervisorError> {
        let Some(record) = self.ledger.load::<EngineRecord>()? else { return Ok(None) };
        let running =
            record.boot_id == self.boot_id && record.process.is_running().map_err(SupervisorError::Proc)?;
        Ok(running.then_some(record))
    }

    /// Starts a program of the engine; when this returns, it has been executed, which is not yet "ready".
    ///
    /// The record is stored before the exec: whatever dies in between, either nothing runs or the next agent knows it.
    /// Not cancel-safe as a whole, but safe: dropped before the release, the stage ends by itself.
    ///
    /// # Errors
    /// [`SupervisorError`]; `Failure::Refused` when the lock is held or the volume is not there.
    pub async fn start(
        &self,
        kind: EngineProgram,
        args: Vec<String>,
    ) -> Result<EngineRecord, SupervisorError> {
        let prepared = self.helper.prepare_engine(kind, args, PREPARE_WITHIN).await?;
        let record = EngineRecord::new(kind, prepared, self.boot_id.clone());
        self.ledger.store(&record)?;
        self.helper.release_engine(record.process, RELEASE_WITHIN).await?;
        info!(process = %record.process, program = %record.program.display(), "engine started");
        Ok(record)
    }

    /// Runs a program of the engine that ends by itself, such as the initialisation, and requires exit code 0.
    ///
    /// # Errors
    /// [`SupervisorError`]; after `NotEnded` it was killed.
    pub async fn run_to_end(
        &self,
        kind: EngineProgram,
        args: Vec<String>,
        deadline: Duration,
    ) -> Result<(), SupervisorError> {
        let record = self.start(kind, args).await?;
        let program = kind.file_name();
        match tokio::time::timeout(deadline, self.ended(record.process)).await {
            Ok(Ok(ProcessState::Exited { code: 0 })) => Ok(()),
            Ok(Ok(state)) => Err(SupervisorError::EndedBadly { program, state }),
            Ok(Err(err)) => Err(err),
            Err(_) => {
                warn!(process = %record.process, program, "program late, killed");
                stop::kill_all(&self.helper, Patience::default().kill).await?;
                Err(SupervisorError::NotEnded { program, deadline })
            }
        }
    }

    /// Waits until a process has ended, and says how; `Unknown` for an adopted one, which counts as a crash. Cancel-safe.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn ended(&self, process: ProcessId) -> Result<ProcessState, SupervisorError> {
        loop {
            while process.is_running().map_err(SupervisorError::Proc)? {
                sleep(WATCH_EVERY).await;
            }
            // The helper may not have reaped it yet.
            match self.helper.engine_state(process, HELPER_DEADLINE).await? {
                ProcessState::Running => sleep(WATCH_EVERY).await,
                state @ (ProcessState::Exited { .. }
                | ProcessState::Killed { .. }
                | ProcessState::Unknown) => {
                    return Ok(state);
                }
            }
        }
    }

    /// Makes the engine read its configuration again.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn reload(&self, process: ProcessId) -> Result<(), SupervisorError> {
        Ok(self.helper.signal_engine(process, EngineSignal::Reload, HELPER_DEADLINE).await?)
    }

    /// Stops the engine, harder and harder. Takes up to the sum of `patience`.
    ///
    /// # Errors
    /// [`SupervisorError`]; a disk that does not answer is not one, see [`Stopped::Unkillable`].
    pub async fn stop(
        &self,
        process: ProcessId,
        by: StopBy,
        patience: Patience,
    ) -> Result<Stopped, SupervisorError> {
        stop::stop(&self.helper, process, by, patience).await
    }

    /// Kills what an engine left behind, see [`Found::Orphans`].
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn kill_orphans(&self, patience: Patience) -> Result<Stopped, SupervisorError> {
        stop::kill_all(&self.helper, patience.kill).await
    }
}
