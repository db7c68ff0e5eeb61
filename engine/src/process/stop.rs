//! Stopping an engine: which signal when, and all of it at once.
//!
//! A postmaster is never killed alone: its backends would live on, a commit that waits for an ack would give up
//! waiting, and others would see its row (T7). Each Postgres child has a process group of its own, so a group kill
//! reaches only the postmaster. Either the whole cgroup goes at once, or the postmaster is frozen first, so that it
//! can start nobody and reap nobody, then its descendants are killed, then it.
//!
//! Invariants, each a test in `tests/process.rs`:
//! * `a_whole_engine_is_killed_at_once_children_in_groups_of_their_own_included`.
//! * `no_descendant_outlives_a_postmaster_that_was_killed`.
//!
//! Not here: waiting. A process that hangs on a disk survives SIGKILL; the caller looks again with a deadline.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ProcessId, ProcessTable, TableError};

/// One step of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// SIGINT: sessions end, a shutdown checkpoint is written.
    Fast,
    /// SIGQUIT: every process leaves at once, crash recovery at the next start.
    Immediate,
    /// [`kill_all`].
    KillAll,
}

/// A step, and how long it has before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedStep {
    /// What to do.
    pub step: Step,
    /// How long to wait for the end.
    pub patience: Duration,
}

/// What is known when an engine is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWhy {
    /// Nobody waits for an ack: k = 0, or a standby, or it was just asked and nobody waits.
    NobodyWaits,
    /// Commits may be waiting for acks. A fast stop would end their waits.
    CommitsMayWait,
    /// The disk is gone or stalled: no checkpoint can be written.
    DiskUnsafe,
}

/// The ladder: each step only after the one before it missed its time.
#[must_use]
pub fn ladder(why: StopWhy) -> Vec<TimedStep> {
    let step = |step, seconds| TimedStep { step, patience: Duration::from_secs(seconds) };
    match why {
        StopWhy::NobodyWaits => {
            vec![step(Step::Fast, 60), step(Step::Immediate, 5), step(Step::KillAll, 5)]
        }
        StopWhy::CommitsMayWait => vec![step(Step::Immediate, 5), step(Step::KillAll, 5)],
        StopWhy::DiskUnsafe => vec![step(Step::Immediate, 1), step(Step::KillAll, 2)],
    }
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Processes could not be listed.
    #[error("look for the engine's processes")]
    Table(#[source] TableError),
    /// The kernel refused.
    #[error("send {signal} to process {pid}")]
    Signal {
        /// Which.
        signal: Signal,
        /// To whom.
        pid: i32,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The cgroup could not be killed.
    #[error("write {}", path.display())]
    Cgroup {
        /// The control file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// New descendants kept appearing.
    #[error("process {pid} has new descendants after {rounds} rounds of killing")]
    Forks {
        /// The postmaster.
        pid: i32,
        /// How often it was looked.
        rounds: u32,
    },
}

/// Rounds of looking and killing; a frozen postmaster forks nobody, so only what a descendant forks is left for a
/// second round.
const ROUNDS_MAX: u32 = 50;

/// Sends SIGINT or SIGQUIT to the postmaster alone, as Postgres wants it; does nothing when it is gone.
///
/// # Errors
/// [`StopError`].
pub fn signal_postmaster(postmaster: ProcessId, step: Step, cgroup: Option<&Path>) -> Result<(), StopError> {
    match step {
        Step::Fast => send(postmaster, Signal::SIGINT),
        Step::Immediate => send(postmaster, Signal::SIGQUIT),
        Step::KillAll => kill_all(postmaster, cgroup),
    }
}

/// Kills the whole engine at once: by `cgroup.kill` when `cgroup` (a v2 folder that holds the engine and nothing
/// else) has one, else by freezing the postmaster and killing its descendants before it. Returns when the signals are
/// sent, not when all are gone.
///
/// # Errors
/// [`StopError`]; after one in the middle the postmaster is frozen, and calling again goes on.
pub fn kill_all(postmaster: ProcessId, cgroup: Option<&Path>) -> Result<(), StopError> {
    if let Some(path) = cgroup.map(|folder| folder.join("cgroup.kill"))
        && path.exists()
    {
        return fs::write(&path, "1").map_err(|source| StopError::Cgroup { path, source });
    }
    send(postmaster, Signal::SIGSTOP)?;
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let mut found = ProcessTable::read().map_err(StopError::Table)?.descendants(postmaster);
        // One that was sent SIGKILL runs no further instruction of its own, even while it is still listed.
        found.retain(|id| killed.insert(*id));
        if found.is_empty() {
            return send(postmaster, Signal::SIGKILL);
        }
        for id in found.iter().rev() {
            send(*id, Signal::SIGKILL)?;
        }
    }
    Err(StopError::Forks { pid: postmaster.pid, rounds: ROUNDS_MAX })
}

/// Signals exactly this process: the start time is compared right before, since a pid may be used again.
fn send(to: ProcessId, signal: Signal) -> Result<(), StopError> {
    if !ProcessTable::read().map_err(StopError::Table)?.is_alive(to) {
        return Ok(());
    }
    match kill(Pid::from_raw(to.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(StopError::Signal { signal, pid: to.pid, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_stop_is_only_for_engines_without_waiters() {
        let first = |why| ladder(why)[0].step;
        assert_eq!(first(StopWhy::NobodyWaits), Step::Fast);
        assert_eq!(first(StopWhy::CommitsMayWait), Step::Immediate);
        assert_eq!(first(StopWhy::DiskUnsafe), Step::Immediate);
    }

    #[test]
    fn every_ladder_ends_in_killing_all() {
        for why in [StopWhy::NobodyWaits, StopWhy::CommitsMayWait, StopWhy::DiskUnsafe] {
            assert_eq!(ladder(why).last().map(|last| last.step), Some(Step::KillAll));
        }
    }
}
