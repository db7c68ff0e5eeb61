//! Owns the engine's process: one task that starts, adopts, watches and stops it, one thing at a time.
//!
//! The reconcile loop gives commands and observes the state; it never waits for a stop that takes minutes. Commands that
//! do not fit the state are dropped, since whoever gave them looks again.
//!
//! Not here: how ([`Supervisor`]), and when (`decide`).

use std::time::Duration;

use holdfast_model::Tick;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chain::Chain;
use crate::child::lock::describe;
use crate::child::process::ProcessId;
use crate::clock::Clock;
use crate::helper::protocol::{EngineProgram, ProcessState};
use crate::supervisor::adopt::Found;
use crate::supervisor::crashes::{Crashes, End};
use crate::supervisor::stop::{Patience, StopBy, Stopped};
use crate::supervisor::{Supervisor, SupervisorError};

const COMMANDS: usize = 4;
/// The longest start: a stage, an fsync of the ledger, an exec.
const ORDER_SHOWS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the engine's process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// None of this node's runs.
    Stopped {
        /// Times in a row that it ended by itself.
        crashes: u32,
        /// When it last ended under this agent.
        since: Option<Tick>,
    },
    /// It runs.
    Alive {
        /// Which.
        process: ProcessId,
        /// Since when this agent knows it.
        since: Tick,
    },
    /// It is being stopped.
    Stopping {
        /// Which.
        process: ProcessId,
        /// Since when.
        since: Tick,
    },
    /// It survives SIGKILL.
    Unkillable {
        /// What is left of it.
        process: ProcessId,
    },
    /// Somebody that this node does not know holds the volume's engine lock.
    Strangers {
        /// Who.
        who: String,
    },
}

#[derive(Debug)]
enum Command {
    Find,
    Start(Vec<String>),
    Stop(StopBy),
}

/// Gives commands to the actor and observes it.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Process>,
}

impl EngineHandle {
    /// What the process does now.
    #[must_use]
    pub fn state(&self) -> Process {
        self.state.borrow().clone()
    }

    /// For who wants to know of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Process> {
        self.state.clone()
    }

    /// Look at the lock of a volume that was just mounted, and adopt the engine that holds it.
    pub fn find(&self) {
        self.give(Command::Find);
    }

    /// Start the server with these arguments; waits until it runs or could not be started.
    pub async fn start(&self, args: Vec<String>) {
        let mut state = self.state.clone();
        state.mark_unchanged();
        if matches!(self.state(), Process::Stopped { .. } | Process::Strangers { .. }) {
            self.give(Command::Start(args));
            drop(tokio::time::timeout(ORDER_SHOWS_WITHIN, state.changed()).await);
        }
    }

    /// Begin to stop it, harder and harder; waits until that has begun. An engine that ends by itself meanwhile has
    /// stopped as well.
    pub async fn stop(&self, by: StopBy) {
        let mut state = self.state.clone();
        self.give(Command::Stop(by));
        let begun = state.wait_for(|state| !matches!(state, Process::Alive { .. }));
        drop(tokio::time::timeout(ORDER_SHOWS_WITHIN, begun).await);
    }

    /// Full means that it is busy with what it was told before; whoever asks looks again.
    fn give(&self, command: Command) {
        drop(self.commands.try_send(command));
    }
}

/// The task.
#[derive(Debug)]
pub struct EngineActor {
    supervisor: Supervisor,
    clock: Clock,
    patience: Patience,
    crashes: Crashes,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<Process>,
}

impl EngineActor {
    /// An actor that knows what the ledger remembers: an engine that still runs is known before any disk is looked at.
    ///
    /// # Errors
    /// When the ledger or `/proc` cannot be read.
    pub fn new(supervisor: Supervisor, clock: Clock) -> Result<(EngineHandle, Self), SupervisorError> {
        let remembered = supervisor.remembered()?.filter(|record| record.kind == EngineProgram::Postgres);
        let first = match remembered {
            Some(record) => {
                info!(process = %record.process, "engine adopted");
                Process::Alive { process: record.process, since: clock.now() }
            }
            None => Process::Stopped { crashes: 0, since: None },
        };
        let (give, commands) = mpsc::channel(COMMANDS);
        let (state, observe) = watch::channel(first);
        let crashes = Crashes::default();
        let actor = Self { supervisor, clock, patience: Patience::default(), crashes, commands, state };
        Ok((EngineHandle { commands: give, state: observe }, actor))
    }

    /// Runs until cancelled; the engine lives on.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let now = self.state.borrow().clone();
            let next = tokio::select! {
                () = cancel.cancelled() => return, // a stop under way goes on by its signals
                next = self.step(now) => next,
            };
            self.state.send_if_modified(|state| {
                let changed = *state != next;
                *state = next;
                changed
            });
        }
    }

    /// Waits for what can happen in a state, and returns the next one.
    async fn step(&mut self, now: Process) -> Process {
        match now {
            Process::Stopped { .. } | Process::Strangers { .. } => match self.commands.recv().await {
                Some(Command::Find) => self.find(now).await,
                Some(Command::Start(args)) => self.start(args).await,
                Some(Command::Stop(_)) => now,
                None => std::future::pending().await,
            },
            Process::Alive { process, since } => tokio::select! {
                ended = self.supervisor.ended(process) => self.ended(process, ended), // cancel-safe
                command = self.commands.recv() => match command { // cancel-safe
                    Some(Command::Stop(by)) => {
                        let stopping = Process::Stopping { process, since: self.clock.now() };
                        self.state.send_replace(stopping);
                        self.stop(process, by).await
                    }
                    Some(Command::Find | Command::Start(_)) => Process::Alive { process, since },
                    None => std::future::pending().await,
                },
            },
            // Only while a stop that failed is tried again.
            Process::Stopping { process, .. } => self.stop(process, StopBy::Immediate).await,
            Process::Unkillable { process } => {
                tokio::time::sleep(LOOK_EVERY).await;
                match self.supervisor.kill_orphans(Patience::default()).await {
                    Ok(Stopped::Gone(_)) => self.stopped(End::ByItself),
                    Ok(Stopped::Unkillable(_)) | Err(_) => Process::Unkillable { process },
                }
            }
        }
    }

    async fn find(&mut self, now: Process) -> Process {
        match self.supervisor.find().await {
            Ok(Found::Nothing) => match now {
                Process::Strangers { .. } => Process::Stopped { crashes: 0, since: None },
                other @ (Process::Stopped { .. }
                | Process::Alive { .. }
                | Process::Stopping { .. }
                | Process::Unkillable { .. }) => other,
            },
            Ok(Found::Ours(record)) => {
                info!(process = %record.process, "engine adopted");
                self.crashes.started(self.clock.now());
                Process::Alive { process: record.process, since: self.clock.now() }
            }
            Ok(Found::Orphans(left)) => {
                warn!(left = left.len(), "killing what an engine left behind");
                match self.supervisor.kill_orphans(self.patience).await {
                    Ok(Stopped::Gone(_)) => Process::Stopped { crashes: 0, since: None },
                    Ok(Stopped::Unkillable(left)) => {
                        left.first().map_or(now, |facts| Process::Unkillable { process: facts.process })
                    }
                    Err(err) => {
                        warn!(error = %Chain(&err), "left-over engine processes not killed");
                        now
                    }
                }
            }
            Ok(Found::Strangers(who)) => {
                let who = describe(&who);
                warn!(who, "engine lock is held by somebody else");
                Process::Strangers { who }
            }
            Err(err) => {
                warn!(error = %Chain(&err), "engine lock not looked at");
                now
            }
        }
    }

    async fn start(&mut self, args: Vec<String>) -> Process {
        match self.supervisor.start(EngineProgram::Postgres, args).await {
            Ok(record) => {
                self.crashes.started(self.clock.now());
                Process::Alive { process: record.process, since: self.clock.now() }
            }
            Err(err) => {
                warn!(error = %Chain(&err), "engine not started");
                self.stopped(End::ByItself)
            }
        }
    }

    async fn stop(&mut self, process: ProcessId, by: StopBy) -> Process {
        match self.supervisor.stop(process, by, self.patience).await {
            Ok(Stopped::Gone(_)) => self.stopped(End::AsAsked),
            Ok(Stopped::Unkillable(_)) => Process::Unkillable { process },
            Err(err) => {
                warn!(error = %Chain(&err), "engine not stopped, trying again");
                tokio::time::sleep(LOOK_EVERY).await;
                Process::Stopping { process, since: self.clock.now() }
            }
        }
    }

    fn ended(&mut self, process: ProcessId, how: Result<ProcessState, SupervisorError>) -> Process {
        match how {
            Ok(how) => {
                warn!(%process, ?how, "engine ended by itself");
                self.stopped(End::ByItself)
            }
            Err(err) => {
                warn!(error = %Chain(&err), "engine not watched");
                Process::Alive { process, since: self.clock.now() }
            }
        }
    }

    fn stopped(&mut self, end: End) -> Process {
        self.crashes.ended(self.clock.now(), end);
        Process::Stopped { crashes: self.crashes.count(), since: self.crashes.last_end() }
    }
}
