//! An agent that dies while it makes a cluster.

use anyhow::{Result, ensure};

use crate::stage::{SOON, Stage, acks, nothing_lost};
use holdfast_integration::acked::AckedWriter;

#[tokio::test]
async fn a_bootstrap_whose_agent_is_killed_at_each_step_is_finished_by_the_next_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.explained(bootstrap_with_deaths(&stage).await)
}

async fn bootstrap_with_deaths(stage: &Stage) -> Result<()> {
    let agent = stage.agent().await?;
    agent.logs().wait_for("run 'holdfastd bootstrap'", SOON).await?;
    agent.bootstrap()?;
    drop(agent);

    let (agent, deaths) = stage.kill_at_each_new_word().await?;

    ensure!(deaths >= 3, "only {deaths} agents were killed on the way");
    let clusters = stage.clusters()?;
    ensure!(clusters.len() == 1, "not exactly one cluster in the repository: {clusters:?}");
    ensure!(stage.terms()? == 1, "a bootstrap that is resumed takes no new term");
    stage.node.make_client_database()?;
    let writer = AckedWriter::start(stage.node.client()).await?;
    acks(&writer, 50).await?;
    nothing_lost(writer).await?;
    agent.stop().await
}
