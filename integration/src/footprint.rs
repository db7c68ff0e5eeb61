//! What the agent's processes take of the machine, as the kernel counts it: memory and processor time of each.
//!
//! Tests: `memory_and_time_are_read_from_what_the_kernel_says`, and the ones of the lifecycle that look for processes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::node::Node;

/// `USER_HZ`: 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Between two looks at processes that come and go. Their peak never goes down, so that the last look before the end
/// misses only what was taken after it.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// One of the agent's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProcess {
    /// Its id.
    pub pid: u32,
    /// What it is, by its command line: `run`, `helper`, `worker volume`.
    pub part: String,
}

/// The daemon, its helper and its workers. Zombies, which hold nothing any more, are not among them.
///
/// # Errors
/// There is no `/proc`.
pub fn of_agent(node: &Node) -> Result<Vec<AgentProcess>> {
    let program = node.programs.join("holdfastd");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has just ended has no program any more.
        if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program) {
            let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push(AgentProcess { pid, part: part(&command_line) });
        }
    }
    Ok(found)
}

/// `worker volume` of `holdfastd\0worker\0volume\0`; the first word alone where what follows is no name.
fn part(command_line: &str) -> String {
    let words: Vec<&str> = command_line.split('\0').skip(1).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["worker", role, ..] => format!("worker {role}"),
        [word, ..] => (*word).to_owned(),
        [] => String::new(),
    }
}

/// What one process takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory, in KiB (`VmRSS`).
    pub resident_kib: u64,
    /// The most that was ever resident, in KiB (`VmHWM`).
    pub peak_kib: u64,
    /// Processor time, user and kernel, since it began.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        Self::parse(&read("status")?, &read("stat")?)
    }

    fn parse(status: &str, stat: &str) -> Result<Self> {
        // proc(5): fields 14 and 15 are ticks in user and kernel mode; the name in field 2 may hold spaces.
        let after_name = stat.rsplit_once(") ").context("no name in /proc stat")?.1;
        let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(Self {
            resident_kib: kib(status, "VmRSS:")?,
            peak_kib: kib(status, "VmHWM:")?,
            cpu_seconds: ticks / TICKS_PER_SECOND,
        })
    }
}

/// Memory of the process `pid` in KiB in which what it shares with others counts as its share (`Pss`): these can be added
/// up.
///
/// # Errors
/// It is gone.
pub fn proportional_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    kib(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?, "Pss:")
}

fn kib(text: &str, field: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let value = value.with_context(|| format!("no {field} in /proc"))?;
    value.trim().trim_end_matches(" kB").parse().with_context(|| format!("read {field}"))
}

/// A process that was watched from its first to its last look.
#[derive(Debug, Clone, PartialEq)]
pub struct Lived {
    /// What it was.
    pub part: String,
    /// When it was seen first.
    pub first: Instant,
    /// When it was seen last.
    pub last: Instant,
    /// The most that was ever resident, in KiB.
    pub peak_kib: u64,
}

/// Watches the agent's processes in the background as they come and go.
#[derive(Debug)]
pub struct PeakWatch {
    seen: Arc<Mutex<BTreeMap<u32, Lived>>>,
    tasks: JoinSet<()>,
}

impl PeakWatch {
    /// Begins. Needs a runtime with more than one thread if the caller blocks.
    #[must_use]
    pub fn start(node: &Node) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let mut tasks = JoinSet::new();
        let (node, into) = (node.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            loop {
                look(&node, &mut into.lock().unwrap_or_else(PoisonError::into_inner));
                time::sleep(LOOK_EVERY).await;
            }
        });
        Self { seen, tasks }
    }

    /// Everything that was seen so far, in the order in which it began.
    #[must_use]
    pub fn seen(&self) -> Vec<Lived> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Lived> = seen.values().cloned().collect();
        all.sort_by_key(|lived| lived.first);
        all
    }
}

impl Drop for PeakWatch {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

fn look(node: &Node, seen: &mut BTreeMap<u32, Lived>) {
    // Without /proc there is nothing to see, and the report says so by being empty.
    for AgentProcess { pid, part } in of_agent(node).unwrap_or_default() {
        // It may have ended meanwhile.
        let Ok(usage) = Usage::of(pid) else { continue };
        let now = Instant::now();
        let lived =
            seen.entry(pid).or_insert(Lived { part: part.clone(), first: now, last: now, peak_kib: 0 });
        // A worker is the stage before it first, under the same id.
        lived.part = part;
        lived.last = now;
        lived.peak_kib = lived.peak_kib.max(usage.peak_kib);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_from_what_the_kernel_says() {
        let status = "Name:\tholdfastd\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        let stat = "7 (a name) with) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1 2 3";
        let usage = Usage::parse(status, stat).unwrap();
        assert_eq!(usage, Usage { resident_kib: 10240, peak_kib: 20480, cpu_seconds: 2.0 });
    }

    #[test]
    fn a_process_is_named_by_its_command_line() {
        assert_eq!(part("/tmp/x/holdfastd\0run\0--config\0/tmp/x\0"), "run");
        assert_eq!(part("holdfastd\0worker\0volume\0"), "worker volume");
        assert_eq!(part(""), "");
    }

    #[test]
    fn this_process_takes_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.peak_kib >= usage.resident_kib && usage.resident_kib > 0);
        assert!(proportional_kib(std::process::id()).unwrap() > 0);
    }
}
