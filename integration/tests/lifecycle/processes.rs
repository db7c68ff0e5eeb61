//! Processes of one node as the kernel has them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use holdfast_integration::node::Node;
pub(crate) use holdfast_integration::postmaster::{of_engine, of_whole_engine};
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
