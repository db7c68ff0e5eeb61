//! Processes of one node as the kernel has them.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_integration::node::Node;
use holdfast_integration::{eventually, footprint};

use crate::stage::NOTICED_WITHIN;

/// The daemon, its helper and its workers.
pub(crate) fn of_agent(node: &Node) -> Result<BTreeSet<u32>> {
    Ok(footprint::of_agent(node)?.into_iter().map(|process| process.pid).collect())
}

/// Waits until none of `pids` is one of this node's any more.
pub(crate) async fn gone(node: &Node, pids: &BTreeSet<u32>) -> Result<()> {
    eventually("the end of the agent's processes", NOTICED_WITHIN, async || {
        let left: Vec<u32> = of_agent(node)?.intersection(pids).copied().collect();
        ensure!(left.is_empty(), "{left:?} of {pids:?} are left");
        Ok(())
    })
    .await
}

/// The engine's first process, by its own pid file on the volume.
pub(crate) fn of_engine(node: &Node) -> Result<i32> {
    let file = node.mount.join("pgdata/postmaster.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    text.lines().next().and_then(|line| line.parse().ok()).context("no pid in the engine's pid file")
}

/// All of the engine: its first process and that one's children.
pub(crate) fn of_whole_engine(node: &Node) -> Result<BTreeSet<i32>> {
    let first = of_engine(node)?;
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))
        .context("list the engine's processes")?;
    let children = children.split_whitespace().map(str::parse).collect::<Result<BTreeSet<i32>, _>>()?;
    Ok(children.into_iter().chain([first]).collect())
}
