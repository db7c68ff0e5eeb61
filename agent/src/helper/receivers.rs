//! Walreceivers of the engine: found among the children of its first process, and ended.
//!
//! Runs in a one-shot process, since a command line is read out of the memory of whom it is of, and waits when that process
//! waits for a disk. What is found is judged twice: it must be a child of the engine, with the engine's user and program or
//! cgroup, before its command line is looked at, and still the same process before it is signalled.
//!
//! Not here: what a walreceiver's command line looks like. See `holdfast_engine::postgres::standby`.

use std::fs;
use std::io;

use holdfast_engine::postgres::standby::is_receiver;
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};

use super::failed;
use super::op::Question;
use super::protocol::Failure;
use super::server::Server;
use super::settings::EngineMark;
use crate::child::process::{ProcessFacts, ProcessId, all_pids};

/// Whose, and what to do with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Receivers {
    engine: ProcessId,
    mark: EngineMark,
    wish: Wish,
}

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wish {
    /// Count them.
    Count,
    /// Send SIGTERM to each.
    End,
}

impl Server {
    pub(super) fn about_receivers(&self, engine: ProcessId, wish: Wish) -> Question {
        Question::Receivers(Receivers { engine, mark: self.settings.engine_mark(), wish })
    }
}

impl Receivers {
    /// How many there were.
    pub(super) fn answer(&self) -> Result<u32, Failure> {
        let engine = ProcessFacts::of(self.engine.pid).map_err(failed("look at a process"))?;
        if !engine.is_some_and(|facts| facts.process == self.engine && self.mark.is_on(&facts)) {
            return Err(Failure::NotOurs { process: self.engine, what: "engine".to_owned() });
        }
        let found = self.find().map_err(failed("look for walreceivers"))?;
        for receiver in &found {
            match self.wish {
                Wish::Count => {}
                Wish::End => end(*receiver).map_err(failed("end a walreceiver"))?,
            }
        }
        Ok(u32::try_from(found.len()).unwrap_or(u32::MAX))
    }

    fn find(&self) -> io::Result<Vec<ProcessId>> {
        let mut found = Vec::new();
        for pid in all_pids()? {
            let Some(facts) = ProcessFacts::of(pid)? else { continue };
            if facts.parent == self.engine.pid && self.mark.is_on(&facts) && is_receiver(&cmdline(pid)?) {
                found.push(facts.process);
            }
        }
        Ok(found)
    }
}

/// Empty when the process has ended.
fn cmdline(pid: i32) -> io::Result<Vec<u8>> {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => Ok(bytes),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) if err.raw_os_error() == Some(nix::libc::ESRCH) => Ok(Vec::new()),
        Err(err) => Err(err),
    }
}

/// Reading a command line may have taken long, so it is looked again whether this is still the same process.
fn end(receiver: ProcessId) -> io::Result<()> {
    if !receiver.is_running()? {
        return Ok(());
    }
    match kill(receiver.as_nix(), Signal::SIGTERM) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
