//! The agent dies or stops under load: the engine and its gate stay as they are, and the next agent takes over.

use anyhow::{Result, ensure};
use holdfast_integration::daemon::{Daemon, Serving};

use crate::processes;
use crate::stage::Stage;

/// Ends the agent by `end`, lets the clients write without one, and starts the next.
async fn the_next_agent_adopts_the_engine(end: impl AsyncFnOnce(Daemon) -> Result<()>) -> Result<()> {
    let mut stage = Stage::serving(1, "restore").await?;
    let writer = stage.write().await?;
    let engine = processes::of_engine(&stage.node)?;
    let rule = stage.rule()?;
    let of_old_agent = processes::of_agent(&stage.node)?;
    ensure!(of_old_agent.len() >= 4, "daemon, helper, two workers of the volume: {of_old_agent:?}");

    end(stage.take_daemon()?).await?;
    processes::gone(&stage.node, &of_old_agent).await?;
    stage.writes_go_on(&writer).await?;

    stage.start().await?;
    stage.becomes(Serving::Yes).await?;
    ensure!(processes::of_engine(&stage.node)? == engine, "another engine process was started");
    let resumed = stage.rule()?;
    ensure!(resumed.0 == rule.0 && resumed.1 >= rule.1, "{rule:?} became {resumed:?}");
    stage.writes_go_on(&writer).await?;
    stage.everything_is_shipped().await?;
    let outages = writer.history().outages(std::time::Duration::from_secs(1));
    ensure!(outages.is_empty(), "clients noticed: {outages:?}");
    ensure!(writer.history().unknown.is_empty(), "a client's connection was ended");
    stage.audit_lossless(writer).await?;
    stage.judge_logs(&[])
}

#[tokio::test]
async fn the_engine_of_a_killed_agent_is_adopted_by_the_next_as_root() -> Result<()> {
    the_next_agent_adopts_the_engine(async |daemon| {
        // Dropping is SIGKILL.
        drop(daemon);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_engine_of_a_stopped_agent_is_adopted_by_the_next_as_root() -> Result<()> {
    the_next_agent_adopts_the_engine(Daemon::stop).await
}
