//! Stops the engine, harder and harder, each step with a deadline.
//!
//! Fast (only when the caller says that nobody waits for an acknowledgement), immediate, then everything at once. A process
//! that waits for a stalled disk survives even that: the end is then [`Stopped::Unkillable`], and the caller fences it by
//! shutting the file system down below it. The engine counts as stopped only when nothing of it is left, backends included:
//! one orphan still writes.
//!
//! Invariants: `the_ladder_never_gets_softer` below; in `tests/supervisor/`:
//! * `a_child_that_ignores_signals_is_killed_with_all_that_it_forked`.
//! * `an_engine_on_a_stalled_disk_is_unkillable_and_said_to_be`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::SupervisorError;
use crate::child::process::{ProcessFacts, ProcessId};
use crate::helper::protocol::{EngineSignal, Failure};
use crate::helper::{CallError, HelperClient};

/// Time between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The helper never waits for a disk.
const HELPER_DEADLINE: Duration = Duration::from_secs(5);

/// How stopping begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopBy {
    /// SIGINT: sessions end, a checkpoint is written. It would acknowledge commits that still wait for other members, so
    /// only with k = 0, or as a standby, or with no waiter.
    Fast,
    /// SIGQUIT: at once, nothing is acknowledged, recovery at the next start.
    Immediate,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a fast stop: its checkpoint may write much.
    pub fast: Duration,
    /// For an immediate stop.
    pub immediate: Duration,
    /// For SIGKILL to everything.
    pub kill: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { fast: seconds(60), immediate: seconds(5), kill: seconds(5) }
    }
}

/// One step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// SIGINT to the first process.
    Fast,
    /// SIGQUIT to the first process.
    Immediate,
    /// SIGKILL to everything at once.
    Kill,
}

/// How stopping ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing is left; the last step that was needed.
    Gone(Step),
    /// SIGKILL was sent and these still live: they wait in the kernel, for a disk.
    Unkillable(Vec<ProcessFacts>),
}

/// The steps with their deadlines.
#[must_use]
pub fn ladder(by: StopBy, patience: Patience) -> Vec<(Step, Duration)> {
    let hard = [(Step::Immediate, patience.immediate), (Step::Kill, patience.kill)];
    match by {
        StopBy::Fast => std::iter::once((Step::Fast, patience.fast)).chain(hard).collect(),
        StopBy::Immediate => hard.to_vec(),
    }
}

/// Walks the ladder. Not cancel-safe in the sense that a dropped stop stays where it is: signals that were sent act.
pub(super) async fn stop(
    helper: &HelperClient,
    process: ProcessId,
    by: StopBy,
    patience: Patience,
) -> Result<Stopped, SupervisorError> {
    for (step, within) in ladder(by, patience) {
        let left = send(helper, process, step, within).await?;
        if left.is_empty() {
            info!(%process, ?step, "engine stopped");
            return Ok(Stopped::Gone(step));
        }
        warn!(%process, ?step, left = left.len(), "engine not stopped in time");
        if step == Step::Kill {
            return Ok(Stopped::Unkillable(left));
        }
    }
    unreachable!("every ladder ends with Kill")
}

/// Kills what is left of an engine whose first process is gone.
pub(super) async fn kill_all(helper: &HelperClient, within: Duration) -> Result<Stopped, SupervisorError> {
    helper.kill_engine(HELPER_DEADLINE).await?;
    let left = wait_until_gone(helper, None, within).await?;
    Ok(if left.is_empty() { Stopped::Gone(Step::Kill) } else { Stopped::Unkillable(left) })
}

async fn send(
    helper: &HelperClient,
    process: ProcessId,
    step: Step,
    within: Duration,
) -> Result<Vec<ProcessFacts>, SupervisorError> {
    let signal = match step {
        Step::Fast => EngineSignal::Fast,
        Step::Immediate => EngineSignal::Immediate,
        Step::Kill => {
            helper.kill_engine(HELPER_DEADLINE).await?;
            return wait_until_gone(helper, None, within).await;
        }
    };
    match helper.signal_engine(process, signal, HELPER_DEADLINE).await {
        Ok(()) => {}
        // It ended meanwhile; what it left behind is seen below.
        Err(CallError::Failed { source: Failure::NotOurs { .. }, .. }) => {}
        Err(err) => return Err(err.into()),
    }
    wait_until_gone(helper, Some(process), within).await
}

/// Waits until nothing of the engine is left, and returns what is.
///
async fn wait_until_gone(
    helper: &HelperClient,
    first: Option<ProcessId>,
    within: Duration,
) -> Result<Vec<ProcessFacts>, SupervisorError> {
    let until = Instant::now() + within;
    loop {
        let waiting_for_first = match first {
            Some(process) => process.is_running().map_err(SupervisorError::Proc)?,
            None => false,
        };
        let late = Instant::now() >= until;
        if !waiting_for_first || late {
            let left = helper.engine_processes(HELPER_DEADLINE).await?;
            if left.is_empty() || late {
                return Ok(left);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_never_gets_softer() {
        for by in [StopBy::Fast, StopBy::Immediate] {
            let steps: Vec<Step> =
                ladder(by, Patience::default()).into_iter().map(|(step, _)| step).collect();
            assert!(steps.is_sorted());
            assert_eq!(steps.last(), Some(&Step::Kill));
            assert_eq!(steps.contains(&Step::Fast), by == StopBy::Fast, "a fast stop is only ever asked for");
        }
    }
}
