//! An object store that goes away under a node that serves, and backups that are cut off.

use anyhow::{Context, Result, ensure};
use holdfast_integration::eventually;
use holdfast_integration::logs::Level;
use holdfast_integration::process::{command, run};

use crate::stage::{SOON, Stage, acks, nothing_lost};

#[tokio::test]
async fn a_node_writes_on_without_its_object_store_and_ships_later_as_root() -> Result<()> {
    let mut stage = Stage::with_disks(1).await?;
    let played = serve_without_store(&mut stage).await;
    stage.explained(played)
}

async fn serve_without_store(stage: &mut Stage) -> Result<()> {
    let (agent, writer) = stage.serving().await?;
    stage.says("shipping log", 0, SOON).await?;
    let before = stage.logs().lines()?.len();
    stage.store.go_away();
    acks(&writer, 200).await?;
    stage.says("log not shipped", before, SOON).await?;

    let refused = agent.holdfast(&["backup", "create"]).expect_err("there is nowhere to put it");
    ensure!(format!("{refused:#}").contains("repository"), "an unclear refusal: {refused:#}");
    acks(&writer, 200).await?;

    stage.store.come_back().await?;
    let shipped = stage.store.keys("/log/")?;
    eventually("log that is shipped again", SOON, async || {
        ensure!(stage.store.keys("/log/")? != shipped, "nothing new");
        Ok(())
    })
    .await?;
    agent.holdfast(&["backup", "create"]).context("a backup once the store is back")?;
    let lines = stage.said_after(before)?;
    let told = |level: Level, part: &str| {
        lines.iter().filter(|line| line.level == level && line.shown().contains(part)).count()
    };
    ensure!(told(Level::Warn, "log not shipped") == 1, "one failure is told once");
    nothing_lost(writer).await?;
    agent.stop().await
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Agent,
    Worker,
}

#[tokio::test]
async fn a_backup_whose_agent_is_killed_publishes_nothing_and_serves_the_next_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.explained(backup_cut_off(&stage, Victim::Agent).await)
}

#[tokio::test]
async fn a_backup_whose_worker_is_killed_publishes_nothing_and_serves_the_next_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.explained(backup_cut_off(&stage, Victim::Worker).await)
}

async fn backup_cut_off(stage: &Stage, victim: Victim) -> Result<()> {
    let (mut agent, writer) = stage.serving().await?;
    // Several packs, so that there is a first one long before there is a last one.
    stage.node.sql("app", "create table bulk as select md5(n::text) from generate_series(1, 1500000) n")?;
    stage.says("shipping log", 0, SOON).await?;
    let mut create = agent.holdfast_in_background(&["backup", "create"])?;
    eventually("a first pack", SOON, async || {
        create.still_runs().context("the backup was faster than this test")?;
        ensure!(!stage.store.keys("/packs/")?.is_empty(), "none yet");
        Ok(())
    })
    .await?;
    // Nothing is published while its end is prepared.
    stage.store.hang()?;
    match victim {
        Victim::Agent => {
            drop(agent);
            stage.store.go_on()?;
            agent = stage.agent().await?;
        }
        Victim::Worker => {
            let workers = stage.workers(&agent, "backup")?;
            run(command("kill").args(["-KILL"]).args(&workers))?;
            stage.store.go_on()?;
        }
    }
    create.ended_well(SOON).await.expect_err("its backup was cut off");
    let published = stage.store.keys("/manifest/")?;
    ensure!(published.is_empty(), "a backup that was cut off was published: {published:?}");

    agent.becomes(holdfast_integration::daemon::Serving::Yes, SOON).await?;
    agent.holdfast(&["backup", "create"])?;
    let packs = stage.store.keys("/packs/")?.len();
    agent.holdfast(&["backup", "create"])?;
    ensure!(stage.store.keys("/manifest/")?.len() == 2, "two backups were taken");
    let more = stage.store.keys("/packs/")?.len() - packs;
    ensure!(more <= packs, "a backup of the same data added {more} packs to {packs}");
    nothing_lost(writer).await?;
    agent.stop().await
}
