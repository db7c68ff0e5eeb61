//! Engine verbs: prepare, release, signal, kill, look.
//!
//! A start is two steps, so that the supervisor can write down which process it is before that process becomes an engine:
//! an engine that nobody wrote down would hold the lock for ever. Processes are touched only after they were found to be
//! the engine by the helper's own settings.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nix::sys::signal::{Signal, kill};
use tokio::time::Instant;
use tracing::{info, warn};

use super::children::{Child, Task, Waiter};
use super::failed;
use super::protocol::{Answer, EngineProgram, EngineSignal, Failure, Prepared, ProcessState};
use super::server::{RELEASE_WITHIN, Server};
use super::wire::{Channel, WireError};
use crate::child::process::{ProcessFacts, ProcessId, all_pids, catches, holders_of};
use crate::child::spec::{Go, StageReport};

impl Server {
    pub(super) fn prepare_engine(
        &mut self,
        program: EngineProgram,
        args: Vec<String>,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        self.give_up_forgotten_stage()?;
        self.refuse_in_a_crowd()?;
        let spec = self.settings.engine_spec(program, args);
        let program = spec.program.clone();
        let started = self.children.start_stage(&spec, |ours| {
            Ok(Task::Stage { waiter, channel: Channel::nonblocking(ours)?, program })
        });
        started.map(drop).map_err(failed("start the engine's stage"))
    }

    /// A stage that nobody released holds the lock. It is let go of now; the next attempt finds the lock free.
    fn give_up_forgotten_stage(&mut self) -> Result<(), Failure> {
        let busy = self.children.iter().find_map(|child| match &child.task {
            Task::Prepared { .. } => {
                Some((child.process.pid, "an engine that was prepared and not released"))
            }
            Task::Stage { .. } | Task::Releasing { .. } => Some((child.process.pid, "a start of the engine")),
            Task::Op { .. } | Task::AbandonedOp { .. } | Task::Engine | Task::Worker | Task::Done => None,
        });
        let Some((pid, what)) = busy else { return Ok(()) };
        if let Some(child) =
            self.children.by_pid(pid).filter(|child| matches!(child.task, Task::Prepared { .. }))
        {
            child.task = Task::Done;
        }
        Err(Failure::Busy { what: what.to_owned() })
    }

    pub(super) fn release_engine(&mut self, process: ProcessId, waiter: Waiter) -> Result<(), Failure> {
        let prepared = |child: &&mut Child| matches!(child.task, Task::Prepared { .. });
        let child = self
            .children
            .find(process)
            .filter(prepared)
            .ok_or_else(|| Failure::NotOurs { process, what: "prepared stage".to_owned() })?;
        let Task::Prepared { channel, .. } = std::mem::replace(&mut child.task, Task::Done) else {
            unreachable!("only a prepared stage comes this far");
        };
        channel.send(&Go, None).map_err(failed("release the engine's stage"))?;
        child.task = Task::Releasing { waiter, channel };
        Ok(())
    }

    /// Takes a stage's word, or its silence: the end of a released stage's channel means that its exec worked.
    pub(super) fn listen_to_stage(&mut self, pid: i32) {
        let Some(child) = self.children.by_pid(pid) else { return };
        let Some(heard) = child.task.channel().map(Channel::try_receive::<StageReport>) else { return };
        let report = match heard {
            Ok(None) => return,
            Ok(Some((report, _))) => Some(report),
            Err(WireError::Closed) => None,
            Err(err) => {
                warn!(pid, error = %err, "engine stage not understood");
                None
            }
        };
        let process = child.process;
        let (id, result, next) = match (std::mem::replace(&mut child.task, Task::Done), report) {
            (Task::Stage { waiter, channel, program }, Some(StageReport::Prepared { lock })) => {
                let cgroup = self.settings.cgroup().map(|cgroup| cgroup.name.clone());
                let prepared = Prepared { process, lock, program, cgroup };
                let deadline = Instant::now() + RELEASE_WITHIN;
                (waiter.id, Ok(Answer::Prepared(prepared)), Task::Prepared { channel, deadline })
            }
            (
                Task::Stage { waiter, .. } | Task::Releasing { waiter, .. },
                Some(StageReport::Refused(refusal)),
            ) => (waiter.id, Err(Failure::Refused(refusal)), Task::Done),
            (Task::Releasing { waiter, .. }, None) => {
                info!(%process, "engine started");
                (waiter.id, Ok(Answer::Released), Task::Engine)
            }
            (Task::Stage { waiter, .. }, None) => {
                let died = Failure::ChildDied {
                    verb: "engine stage".to_owned(),
                    how: "closed its channel".to_owned(),
                };
                (waiter.id, Err(died), Task::Done)
            }
            (Task::Releasing { waiter, .. }, Some(StageReport::Prepared { .. })) => {
                let operation = "release the engine's stage".to_owned();
                let error = "it says twice that it is prepared".to_owned();
                (waiter.id, Err(Failure::Helper { operation, error }), Task::Done)
            }
            // A prepared stage that speaks or ends has given up; nobody waits for it. The others have no stage's channel.
            (
                Task::Prepared { .. }
                | Task::Op { .. }
                | Task::AbandonedOp { .. }
                | Task::Engine
                | Task::Worker
                | Task::Done,
                Some(_) | None,
            ) => return,
        };
        if let Some(child) = self.children.by_pid(pid) {
            child.task = next;
        }
        self.reply(id, result);
    }

    pub(super) fn state_of(&mut self, process: ProcessId) -> Result<ProcessState, Failure> {
        if let Some(ending) = self.children.ending_of(process) {
            return Ok(ending);
        }
        let running = process.is_running().map_err(failed("look at a process"))?;
        // A child that has ended and is not reaped yet: how it ended is told at the next look.
        let unreaped = self.children.find(process).is_some();
        Ok(if running || unreaped { ProcessState::Running } else { ProcessState::Unknown })
    }

    pub(super) fn signal_engine(&self, process: ProcessId, signal: EngineSignal) -> Result<Answer, Failure> {
        let facts = ProcessFacts::of(process.pid).map_err(failed("look at a process"))?;
        if !facts.is_some_and(|facts| facts.process == process && self.settings.is_engine(&facts)) {
            return Err(Failure::NotOurs { process, what: "engine".to_owned() });
        }
        // Before a server has installed its handlers, SIGHUP ends it (signal(7)).
        if signal == EngineSignal::Reload
            && !catches(process, Signal::SIGHUP).map_err(failed("look at a process"))?
        {
            return Err(Failure::Busy { what: "the start of the engine".to_owned() });
        }
        let signal = match signal {
            EngineSignal::Reload => Signal::SIGHUP,
            EngineSignal::Fast => Signal::SIGINT,
            EngineSignal::Immediate => Signal::SIGQUIT,
        };
        // Between the look and the signal the pid could only be reused by a whole turn of the pid space.
        kill(process.as_nix(), signal).map_err(failed("signal the engine"))?;
        Ok(Answer::Signalled)
    }

    /// Kills everything of the engine at once. Sent is not dead: whoever waits for a disk dies when it answers.
    pub(super) fn kill_engine(&mut self) -> Result<Answer, Failure> {
        if let Some(cgroup) = self.settings.cgroup() {
            match fs::write(cgroup.dir.join("cgroup.kill"), "1") {
                Ok(()) => {}
                // Somebody tidied up an empty one.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(failed("kill the engine's cgroup")(err)),
            }
        }
        let engine = self.engine_processes()?;
        // Stopped first, so that none forks or reacts to the death of another (each backend has its own process group).
        for facts in &engine {
            send(facts, Signal::SIGSTOP);
        }
        for facts in self.engine_processes()? {
            send(&facts, Signal::SIGKILL);
        }
        Ok(Answer::Signalled)
    }

    /// Whoever holds the engine lock or is in the engine's cgroup, and what those forked, if it runs as the engine's user.
    pub(super) fn engine_processes(&self) -> Result<Vec<ProcessFacts>, Failure> {
        self.find_engine_processes().map_err(failed("look for engine processes"))
    }

    fn find_engine_processes(&self) -> io::Result<Vec<ProcessFacts>> {
        let mut all = BTreeMap::new();
        for pid in all_pids()? {
            all.extend(ProcessFacts::of(pid)?.map(|facts| (pid, facts)));
        }
        let cgroup = self.settings.cgroup().map(|cgroup| cgroup.name.as_str());
        let mut engine: BTreeMap<i32, ProcessFacts> = BTreeMap::new();
        let holders = holders_of(&self.settings.lock_as_held())?;
        for (pid, facts) in &all {
            let held = holders.contains(pid) && self.settings.is_engine(facts);
            if held || (cgroup.is_some() && facts.cgroup.as_deref() == cgroup) {
                engine.insert(*pid, facts.clone());
            }
        }
        // Children of children appear after at most as many rounds as there are generations.
        loop {
            let found: Vec<_> = all
                .values()
                .filter(|facts| {
                    !engine.contains_key(&facts.process.pid) && engine.contains_key(&facts.parent)
                })
                .filter(|facts| self.settings.runs_as_engine(facts))
                .cloned()
                .collect();
            if found.is_empty() {
                return Ok(engine.into_values().collect());
            }
            engine.extend(found.into_iter().map(|facts| (facts.process.pid, facts)));
        }
    }
}

fn send(facts: &ProcessFacts, signal: Signal) {
    match kill(facts.process.as_nix(), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => {}
        Err(errno) => warn!(process = %facts.process, %errno, "engine process not signalled"),
    }
}
