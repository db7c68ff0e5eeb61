//! The helper's child processes: what each is for, until it is reaped.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::protocol::ProcessState;
use super::wire::{self, Channel};
use crate::child::process::ProcessId;
use crate::child::spec::ChildSpec;

/// How many endings are remembered for [`super::protocol::Verb::EngineState`].
const ENDED_MAX: usize = 32;

/// Who waits for a child, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) deadline: Instant,
    pub(super) deadline_ms: u64,
}

/// What a child is for.
#[derive(Debug)]
pub(super) enum Task {
    /// A one-shot process that owes an answer; without a channel it ended without one.
    Op { waiter: Waiter, channel: Option<Channel>, word: &'static str, exclusive: bool },
    /// A one-shot process that missed its deadline.
    AbandonedOp { word: &'static str, exclusive: bool, since: Instant },
    /// An engine's stage that is setting itself up.
    Stage { waiter: Waiter, channel: Channel, program: PathBuf },
    /// A stage that waits to be let go; given up at the deadline.
    Prepared { channel: Channel, deadline: Instant },
    /// A stage that was let go and execs now.
    Releasing { waiter: Waiter, channel: Channel },
    /// A running engine.
    Engine,
    /// A worker.
    Worker,
    /// It did its part and only has to be reaped.
    Done,
}

impl Task {
    pub(super) fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Op { channel, .. } => channel.as_ref(),
            Self::Stage { channel, .. }
            | Self::Prepared { channel, .. }
            | Self::Releasing { channel, .. } => Some(channel),
            Self::AbandonedOp { .. } | Self::Engine | Self::Worker | Self::Done => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Op { waiter, .. } | Self::Stage { waiter, .. } | Self::Releasing { waiter, .. } => {
                Some(waiter.deadline)
            }
            Self::Prepared { deadline, .. } => Some(*deadline),
            Self::AbandonedOp { .. } | Self::Engine | Self::Worker | Self::Done => None,
        }
    }
}

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) process: ProcessId,
    pub(super) task: Task,
    handle: std::process::Child,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Children {
    living: BTreeMap<i32, Child>,
    ended: VecDeque<(ProcessId, ProcessState)>,
}

impl Children {
    /// Starts `holdfastd <args>` with one end of a channel as its standard input; the other end is returned.
    ///
    /// The child comes into its own process group, here or by its own `setsid`, so that a signal to the agent's group does not
    /// reach it and it can be killed together with what it started.
    fn start(
        &mut self,
        args: &[&str],
        group: Option<i32>,
        task: impl FnOnce(OwnedFd) -> io::Result<Task>,
    ) -> io::Result<ProcessId> {
        let (ours, theirs) = wire::pair()?;
        let task = task(ours)?;
        #[expect(clippy::disallowed_methods, reason = "the helper starts every process of the agent")]
        let mut command = Command::new("/proc/self/exe");
        command.arg0("holdfastd").args(args).stdin(Stdio::from(theirs)).stdout(Stdio::null());
        if let Some(group) = group {
            command.process_group(group);
        }
        let handle = command.current_dir("/").spawn()?;
        let pid = handle.id().cast_signed();
        // Not reaped yet, so it is in /proc even if it has ended; then the start time does not matter.
        let process = ProcessId::of(pid)?.unwrap_or(ProcessId { pid, start_time: 0 });
        self.living.insert(pid, Child { process, task, handle });
        Ok(process)
    }

    /// A one-shot process.
    pub(super) fn start_op(
        &mut self,
        task: impl FnOnce(OwnedFd) -> io::Result<Task>,
    ) -> io::Result<ProcessId> {
        self.start(&["op"], Some(0), task)
    }

    /// The stage before an engine or a worker; it starts a session, which the leader of a process group cannot.
    pub(super) fn start_stage(
        &mut self,
        spec: &ChildSpec,
        task: impl FnOnce(OwnedFd) -> io::Result<Task>,
    ) -> io::Result<ProcessId> {
        self.start(&["exec-child", &serde_json::to_string(spec).map_err(io::Error::other)?], None, task)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.living.values()
    }

    /// A living child by pid and start time.
    pub(super) fn find(&mut self, process: ProcessId) -> Option<&mut Child> {
        self.living.get_mut(&process.pid).filter(|child| child.process == process)
    }

    pub(super) fn by_pid(&mut self, pid: i32) -> Option<&mut Child> {
        self.living.get_mut(&pid)
    }

    /// How a child ended, if it was one of the last.
    pub(super) fn ending_of(&self, process: ProcessId) -> Option<ProcessState> {
        self.ended.iter().rev().find(|(ended, _)| *ended == process).map(|(_, state)| *state)
    }

    /// Kills a one-shot process with all that it started; it may take as long as the disk does to die.
    pub(super) fn kill_group(process: ProcessId) {
        if let Err(errno) = killpg(Pid::from_raw(process.pid), Signal::SIGKILL) {
            debug!(%process, %errno, "process group not killed");
        }
    }

    /// Those that have ended and are still in the table.
    pub(super) fn ended(&mut self) -> Vec<(i32, ExitStatus)> {
        let mut ended = Vec::new();
        for (pid, child) in &mut self.living {
            match child.handle.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => ended.push((*pid, status)),
                Err(err) => warn!(pid, error = %err, "child cannot be waited for"),
            }
        }
        ended
    }

    /// Takes one that has ended out of the table, and remembers how it ended.
    pub(super) fn remove(&mut self, pid: i32, status: ExitStatus) -> Option<Child> {
        let child = self.living.remove(&pid)?;
        self.remember(child.process, status);
        Some(child)
    }

    fn remember(&mut self, process: ProcessId, status: ExitStatus) {
        let state = match (status.code(), status.signal()) {
            (Some(code), _) => ProcessState::Exited { code },
            (None, Some(signal)) => ProcessState::Killed { signal },
            (None, None) => ProcessState::Unknown,
        };
        self.ended.push_back((process, state));
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

/// Starts the helper itself; see [`super::start`].
pub(super) fn start_helper(config: &Path) -> io::Result<(OwnedFd, std::process::Child)> {
    let (ours, theirs) = wire::pair()?;
    #[expect(clippy::disallowed_methods, reason = "the daemon starts its helper, and nothing else")]
    let mut command = Command::new("/proc/self/exe");
    command.arg0("holdfastd").arg("helper").arg("--config").arg(config);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0).current_dir("/");
    let child = command.spawn()?;
    Ok((ours, child))
}
