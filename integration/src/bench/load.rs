//! What the agent of a loaded primary costs: its processor time per commit, and how many commits there are with and without
//! it. The peer is the same cluster of engines while no agent runs: they go on without, with the same settings and acks.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cluster::{Cluster, ClusterSpec, OPENS_WITHIN};
use crate::daemon::Serving;
use crate::demo::narrator::Narrator;
use crate::footprint::{self, Usage};
use crate::node::Node;
use crate::pgbench::{self, Ran};
use crate::process::is_root;
use crate::zones::Zone;

const SCALE: u32 = 10;

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long to load the primary each time.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// How often, with and without agents by turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    postgres: u32,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Round {
    with_agents: Ran,
    without_agents: Ran,
    /// Of all processes of the primary's agent.
    agent_cpu_seconds_per_1000_commits: f64,
    /// Commits per second with agents, as a share of those without.
    ratio: f64,
}

/// Loads a primary in three zones.
///
/// # Errors
/// No root, or a part does not do what it should.
pub async fn run(options: &Options) -> Result<()> {
    ensure!(is_root(), "zones need root");
    let mut narrator = Narrator::begin();
    narrator.scene("A primary under load, in three zones with k = 1");
    let spec = ClusterSpec { postgres: options.postgres, ..ClusterSpec::default() };
    let mut cluster = Cluster::serving(&spec).await?;
    let primary = cluster.primary()?;
    pgbench::make_tables(&cluster.site(primary)?.node, SCALE)?;
    let mut rounds = Vec::new();
    narrator.show("  commits/s  without agents   ratio  agent's CPU s per 1000 commits");
    for _ in 0..options.rounds {
        let round = one(&mut cluster, primary, options).await?;
        narrator.show(&format!(
            "{:>11.0} {:>15.0} {:>7.3} {:>31.4}",
            round.with_agents.per_second,
            round.without_agents.per_second,
            round.ratio,
            round.agent_cpu_seconds_per_1000_commits
        ));
        rounds.push(round);
    }
    if let Some(file) = &options.report {
        fs::write(file, serde_json::to_string_pretty(&rounds)?).context("write the report")?;
    }
    cluster.stop().await
}

async fn one(cluster: &mut Cluster, primary: Zone, options: &Options) -> Result<Round> {
    cluster.site(primary)?.agent()?.has_shipped_everything(OPENS_WITHIN).await?;
    let node = cluster.site(primary)?.node.clone();
    let before = cpu_of_agent(&node)?;
    let with_agents = pgbench::run_for(&node, options.clients, options.seconds)?;
    let cpu = cpu_of_agent(&node)? - before;

    let all = [&[primary][..], &cluster.others(primary)].concat();
    for zone in &all {
        cluster.site_mut(*zone)?.stop_agent().await?;
    }
    let without_agents = pgbench::run_for(&node, options.clients, options.seconds)?;
    for zone in &all {
        cluster.site_mut(*zone)?.start_agent().await?;
    }
    cluster.becomes(primary, Serving::Yes, OPENS_WITHIN).await?;
    Ok(Round {
        agent_cpu_seconds_per_1000_commits: 1000.0 * cpu / f64::from(with_agents.commits),
        ratio: with_agents.per_second / without_agents.per_second,
        with_agents,
        without_agents,
    })
}

/// Of what runs now: no worker of a serving agent ends while it is measured.
fn cpu_of_agent(node: &Node) -> Result<f64> {
    footprint::of_agent(node)?.iter().map(|process| Ok(Usage::of(process.pid)?.cpu_seconds)).sum()
}
