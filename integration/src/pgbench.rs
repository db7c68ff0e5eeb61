//! The load: `pgbench`, as the clients' role.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::node::Node;
use crate::process::{Background, run};

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

/// What a load came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ran {
    /// Transactions that were committed.
    pub commits: u32,
    /// Of them, per second.
    pub per_second: f64,
    /// How long one took on average, in milliseconds.
    pub latency_ms: f64,
}

/// As many transactions as `clients` clients get done in `seconds`.
///
/// # Errors
/// It ends badly.
pub fn run_for(node: &Node, clients: u32, seconds: u32) -> Result<Ran> {
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let args = ["--client", &clients, "--jobs", "2", "--time", &seconds, "--no-vacuum"];
    parse(&run(&mut pgbench(node, &args))?)
}

fn parse(told: &str) -> Result<Ran> {
    let figure = |of: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(of));
        let word = line.and_then(|rest| rest.trim_start_matches([' ', ':', '=']).split([' ', '/']).next());
        word.with_context(|| format!("no {of:?} in {told}"))
    };
    Ok(Ran {
        commits: figure("number of transactions actually processed")?.parse().context("read a count")?,
        per_second: figure("tps")?.parse().context("read a rate")?,
        latency_ms: figure("latency average")?.parse().context("read a latency")?,
    })
}

fn pgbench(node: &Node, args: &[&str]) -> Command {
    let mut pgbench = node.placement.command(node.engine.join("pgbench"));
    pgbench.env("PGCONNECT_TIMEOUT", "5").args(args).arg(node.client_url());
    pgbench
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_it_prints() {
        let told = "scaling factor: 10\nnumber of transactions actually processed: 1234\n\
            number of failed transactions: 0 (0.000%)\nlatency average = 6.481 ms\n\
            initial connection time = 20.1 ms\ntps = 617.2 (without initial connection time)\n";
        let expected = Ran { commits: 1234, per_second: 617.2, latency_ms: 6.481 };
        assert_eq!(parse(told).unwrap(), expected);
        assert!(parse("tps = x").is_err());
    }
}
