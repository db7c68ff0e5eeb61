//! The load: `pgbench`, as the clients' role.

use std::process::Command;

use anyhow::Result;

use crate::node::Node;
use crate::process::{Background, command, run};

/// Makes pgbench's tables; about 15 MiB for each step of `scale`.
///
/// # Errors
/// The engine refuses.
pub fn make_tables(node: &Node, scale: u32) -> Result<()> {
    run(&mut pgbench(node, &["--initialize", "--quiet", "--scale", &scale.to_string()]))?;
    Ok(())
}

/// Four clients that ask for `rate` transactions per second between them, until dropped. Their log is in the node's
/// folder.
///
/// # Errors
/// It cannot be started.
pub fn load(node: &Node, rate: u32) -> Result<Background> {
    let rate = rate.to_string();
    let args = ["--client", "4", "--jobs", "2", "--time", "3600", "--no-vacuum", "--rate", &rate];
    Background::start(&mut pgbench(node, &args), &node.folder.join("pgbench.log"))
}

fn pgbench(node: &Node, args: &[&str]) -> Command {
    let mut pgbench = command(node.engine.join("pgbench"));
    pgbench.env("PGCONNECT_TIMEOUT", "5").args(args).arg(node.client_url());
    pgbench
}
