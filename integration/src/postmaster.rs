//! The engine's processes of one node, by its own pid file on the volume: to look at, and to send signals to.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;

/// The engine's first process.
///
/// # Errors
/// There is no pid file: no engine runs, or its volume is gone.
pub fn of_engine(node: &Node) -> Result<i32> {
    let file = node.mount.join("pgdata/postmaster.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    text.lines().next().and_then(|line| line.parse().ok()).context("no pid in the engine's pid file")
}

/// All of the engine: its first process and that one's children.
///
/// # Errors
/// As of [`of_engine`], or it ends meanwhile.
pub fn of_whole_engine(node: &Node) -> Result<BTreeSet<i32>> {
    let first = of_engine(node)?;
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))
        .context("list the engine's processes")?;
    let children = children.split_whitespace().map(str::parse).collect::<Result<BTreeSet<i32>, _>>()?;
    Ok(children.into_iter().chain([first]).collect())
}

/// Sends `signal` to all of `pids`; those that have ended meanwhile do not matter.
///
/// # Errors
/// The kernel's.
pub fn signal_all(pids: &BTreeSet<i32>, signal: Signal) -> Result<()> {
    for pid in pids {
        match kill(Pid::from_raw(*pid), signal) {
            // Children of an engine end by themselves when they see the first of them gone.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(err) => return Err(err).with_context(|| format!("send {signal} to {pid}")),
        }
    }
    Ok(())
}
