//! The helper's loop: one thread, one poll, nothing in it ever waits for a disk.
//!
//! It waits for the daemon's requests, its children's answers and ends, and the nearest deadline; everything that could
//! block happens in children. When the daemon's end of the channel closes, it kills its one-shot processes and returns;
//! the engine lives on, and stages that were not let go end with their channel.
//!
//! Invariants, each a test in `tests/supervisor/`:
//! * `a_stalled_operation_is_given_up_and_the_helper_still_answers`, and nothing changes the volume beside it.
//! * `an_agent_dies_at_once_during_a_stall_and_the_next_one_serves`.
//! * `an_engine_is_adopted_after_an_agent_restart_and_never_started_twice`: it does not end with the helper.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::time::Instant;
use tracing::{info, warn};

use super::children::{Child, Children, Task, Waiter};
use super::op::{Question, Verdict};
use super::protocol::{Answer, Failure, Reply, Request, Verb};
use super::receivers;
use super::settings::Settings;
use super::wire::{Channel, WireError};

/// Longest deadline of a request.
const DEADLINE_MS_MAX: u64 = 600_000;
/// How long a prepared stage waits to be let go: the daemon only has to store one record in between.
pub(super) const RELEASE_WITHIN: Duration = Duration::from_secs(30);
/// Children that were given up but do not die. With more than these nothing new may touch a disk.
const ABANDONED_MAX: usize = 16;

/// The helper's state.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: Settings,
    pub(super) children: Children,
    /// Root of the mounted file system, opened at mount: opening it during a stall could block.
    pub(super) root: Option<OwnedFd>,
    daemon: Channel,
    ended: SignalFd,
    outbox: VecDeque<(Reply, Option<OwnedFd>)>,
}

impl Server {
    pub(super) fn new(settings: Settings, daemon: OwnedFd) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        Ok(Self {
            settings,
            children: Children::default(),
            root: None,
            daemon: Channel::nonblocking(daemon)?,
            ended: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            outbox: VecDeque::new(),
        })
    }

    /// Serves until the daemon goes away.
    pub(super) fn run(mut self) -> Result<(), WireError> {
        loop {
            let turn = self.wait().and_then(|talking| self.turn(&talking));
            match turn {
                Ok(()) => {}
                Err(err) => {
                    self.kill_operations();
                    return match err {
                        WireError::Closed => Ok(()),
                        WireError::Socket { .. }
                        | WireError::Descriptor { .. }
                        | WireError::TooLong { .. }
                        | WireError::Malformed(_) => Err(err),
                    };
                }
            }
        }
    }

    /// Waits for something to do; returns the pids of children that have something to say.
    fn wait(&self) -> Result<Vec<i32>, WireError> {
        let poll_failed = |errno: nix::Error| WireError::Socket { operation: "poll", source: errno.into() };
        // With replies unsent nothing more is taken on: a daemon that does not read gets no more work done.
        let wanted = if self.outbox.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        let mut fds = vec![
            PollFd::new(self.daemon.as_fd(), wanted),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
        ];
        let mut pids = Vec::new();
        for child in self.children.iter() {
            if let Some(channel) = child.task.channel() {
                pids.push(child.process.pid);
                fds.push(PollFd::new(channel.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(poll_failed(errno)),
        }
        let talking = fds.iter().skip(2).map(|fd| fd.any().unwrap_or(false));
        Ok(pids.into_iter().zip(talking).filter_map(|(pid, talks)| talks.then_some(pid)).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let Some(nearest) = self.children.iter().filter_map(|child| child.task.deadline()).min() else {
            return PollTimeout::NONE;
        };
        // A millisecond later rather than a busy loop until the deadline.
        let wait = nearest.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn turn(&mut self, talking: &[i32]) -> Result<(), WireError> {
        for pid in talking {
            self.listen_to(*pid);
        }
        self.reap();
        self.give_up_late();
        self.flush()?;
        while self.outbox.is_empty() {
            let request = match self.daemon.try_receive::<Request>() {
                Ok(None) => break,
                Ok(Some((request, _fd))) => request,
                Err(WireError::Malformed(err)) => {
                    warn!(error = %err, "request not understood, dropped");
                    continue;
                }
                Err(err) => return Err(err),
            };
            self.take_on(request);
            self.flush()?;
        }
        Ok(())
    }

    fn take_on(&mut self, request: Request) {
        let deadline_ms = request.deadline_ms.min(DEADLINE_MS_MAX);
        let deadline = Instant::now() + Duration::from_millis(deadline_ms);
        let waiter = Waiter { id: request.id, deadline, deadline_ms };
        // `None`: a child owes the answer.
        if let Some(result) = self.perform(request.verb, waiter).transpose() {
            let (answer, fd) = match result {
                Ok((answer, fd)) => (Ok(answer), fd),
                Err(failure) => (Err(failure), None),
            };
            self.outbox.push_back((Reply { id: request.id, result: answer }, fd));
        }
    }

    fn perform(&mut self, verb: Verb, waiter: Waiter) -> Result<Option<(Answer, Option<OwnedFd>)>, Failure> {
        let word = verb.word();
        let answer = match verb {
            Verb::Volume(verb) => return self.start_volume_op(verb, word, waiter).map(|()| None),
            Verb::LookAtLock => {
                let question = Question::LookAtLock { path: self.settings.lock() };
                return self.start_op(&question, None, word, waiter).map(|()| None);
            }
            Verb::Receivers { process } => {
                let question = self.about_receivers(process, receivers::Wish::Count);
                return self.start_op(&question, None, word, waiter).map(|()| None);
            }
            Verb::EndReceivers { process } => {
                let question = self.about_receivers(process, receivers::Wish::End);
                return self.start_op(&question, None, word, waiter).map(|()| None);
            }
            Verb::InstallTls => {
                let question = Question::InstallTls(Box::new(self.settings.install_tls()));
                return self.start_op(&question, None, word, waiter).map(|()| None);
            }
            Verb::PrepareEngine { program, args } => {
                return self.prepare_engine(program, args, waiter).map(|()| None);
            }
            Verb::ReleaseEngine { process } => return self.release_engine(process, waiter).map(|()| None),
            Verb::StartWorker { role } => return self.start_worker(role).map(Some),
            Verb::EngineState { process } => Answer::State(self.state_of(process)?),
            Verb::SignalEngine { process, signal } => self.signal_engine(process, signal)?,
            Verb::KillEngine => self.kill_engine()?,
            Verb::EngineProcesses => Answer::Processes(self.engine_processes()?),
            Verb::KillWorker { process } => self.kill_worker(process)?,
        };
        Ok(Some((answer, None)))
    }

    /// Starts a one-shot process for a question.
    pub(super) fn start_op(
        &mut self,
        question: &Question,
        fd: Option<OwnedFd>,
        word: &'static str,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        self.refuse_in_a_crowd()?;
        let exclusive = question.changes_volume();
        let started = self.children.start_op(|ours| {
            let channel = Channel::nonblocking(ours)?;
            // An empty socket has room for any message.
            channel.send(question, fd.as_ref().map(AsFd::as_fd)).map_err(io::Error::other)?;
            Ok(Task::Op { waiter, channel: Some(channel), word, exclusive })
        });
        started.map(drop).map_err(super::failed("start a one-shot process"))
    }

    /// Children that were given up wait for a disk: more of them would wait as well.
    pub(super) fn refuse_in_a_crowd(&self) -> Result<(), Failure> {
        let given_up = |child: &&Child| matches!(child.task, Task::AbandonedOp { .. } | Task::Done);
        let count = self.children.iter().filter(given_up).count();
        if count < ABANDONED_MAX {
            return Ok(());
        }
        Err(Failure::Busy { what: format!("the end of {count} processes that were given up") })
    }

    fn listen_to(&mut self, pid: i32) {
        let Some(child) = self.children.by_pid(pid) else { return };
        match &mut child.task {
            Task::Op { waiter, channel, .. } => {
                let id = waiter.id;
                match channel.as_ref().map(Channel::try_receive::<Verdict>) {
                    Some(Ok(Some((verdict, fd)))) => {
                        child.task = Task::Done;
                        if fd.is_some() {
                            self.root = fd;
                        }
                        self.reply(id, verdict);
                    }
                    // Not looked at again: how it ended is told when it is reaped.
                    Some(Err(_)) => *channel = None,
                    Some(Ok(None)) | None => {}
                }
            }
            Task::Stage { .. } | Task::Prepared { .. } | Task::Releasing { .. } => self.listen_to_stage(pid),
            Task::AbandonedOp { .. } | Task::Engine | Task::Worker | Task::Done => {}
        }
    }

    pub(super) fn reply(&mut self, id: u64, result: Verdict) {
        self.outbox.push_back((Reply { id, result }, None));
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.ended.read_signal() {}
        for (pid, status) in self.children.ended() {
            // Its last words may have come after the poll.
            self.listen_to(pid);
            if let Some(child) = self.children.remove(pid, status) {
                self.bury(&child, status);
            }
        }
    }

    /// A child has ended: whoever still waits for it is told.
    fn bury(&mut self, child: &Child, status: ExitStatus) {
        let died = |verb: &str| Failure::ChildDied { verb: verb.to_owned(), how: status.to_string() };
        match &child.task {
            Task::Op { waiter, word, .. } => self.reply(waiter.id, Err(died(word))),
            Task::Stage { waiter, .. } => self.reply(waiter.id, Err(died("engine stage"))),
            Task::Releasing { waiter, .. } => self.reply(waiter.id, Err(died("released engine stage"))),
            Task::Engine => info!(process = %child.process, %status, "engine process ended"),
            Task::AbandonedOp { word, since, .. } => {
                info!(process = %child.process, verb = word, after = ?since.elapsed(), "abandoned operation ended");
            }
            Task::Prepared { .. } | Task::Worker | Task::Done => {}
        }
    }

    fn give_up_late(&mut self) {
        let now = Instant::now();
        let late: Vec<i32> = self
            .children
            .iter()
            .filter(|child| child.task.deadline().is_some_and(|deadline| deadline <= now))
            .map(|child| child.process.pid)
            .collect();
        for pid in late {
            let Some(child) = self.children.by_pid(pid) else { continue };
            let process = child.process;
            // Dropping a stage's channel ends it: it will find no one who lets it go.
            match std::mem::replace(&mut child.task, Task::Done) {
                Task::Op { waiter, word, exclusive, .. } => {
                    child.task = Task::AbandonedOp { word, exclusive, since: now };
                    Children::kill_group(process);
                    warn!(%process, verb = word, "operation late, abandoned");
                    self.reply(waiter.id, Err(Failure::Late { after_ms: waiter.deadline_ms }));
                }
                Task::Stage { waiter, .. } | Task::Releasing { waiter, .. } => {
                    self.reply(waiter.id, Err(Failure::Late { after_ms: waiter.deadline_ms }));
                }
                Task::Prepared { .. } => warn!(%process, "engine stage was not released, given up"),
                task @ (Task::AbandonedOp { .. } | Task::Engine | Task::Worker | Task::Done) => {
                    child.task = task
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), WireError> {
        while let Some((reply, fd)) = self.outbox.front() {
            match self.daemon.try_send(reply, fd.as_ref().map(AsFd::as_fd)) {
                Ok(Some(())) => {}
                Ok(None) => return Ok(()),
                Err(WireError::TooLong { bytes }) => {
                    let id = reply.id;
                    self.outbox.pop_front();
                    let error = format!("{bytes} bytes are too long for one message");
                    self.reply(id, Err(Failure::Helper { operation: "send the answer".to_owned(), error }));
                    continue;
                }
                Err(err) => return Err(err),
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// One-shot processes serve a daemon that is gone; what they did half is recognised at the next look.
    fn kill_operations(&self) {
        for child in self.children.iter() {
            match child.task {
                Task::Op { .. } | Task::AbandonedOp { .. } => Children::kill_group(child.process),
                Task::Stage { .. }
                | Task::Prepared { .. }
                | Task::Releasing { .. }
                | Task::Engine
                | Task::Worker
                | Task::Done => {}
            }
        }
    }
}
