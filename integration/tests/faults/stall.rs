//! A disk that does not answer any more, while it is used.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::daemon::{Daemon, Serving, http_get};
use holdfast_integration::demo::outcome;
use holdfast_integration::loop_disk::{LoopDisk, StallingDisk};
use holdfast_integration::process::{command, run};
use holdfast_integration::{Scratch, eventually, throughout};
use tokio::time::Instant;

use crate::stage::{DISK_BYTES, SOON, Stage, acks, audited};

/// The deadline of a probe write (2 s), the probe's own pace, and a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// SIGQUIT and SIGKILL have five seconds each.
const UNKILLABLE_WITHIN: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_stalled_disk_is_fenced_explained_and_outlived_by_the_agent_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let stalling = StallingDisk::blank(&scratch, "stalling", DISK_BYTES)?;
    let second = LoopDisk::blank(&scratch, "disk-2", DISK_BYTES)?;
    let stage = Stage::over(&scratch, vec![second], &[stalling.disk()]).await?;
    let played = stall(&stage, &stalling).await;
    drop(stalling.resume());
    stage.explained(played)
}

async fn stall(stage: &Stage, stalling: &StallingDisk) -> Result<()> {
    let (mut agent, writer) = stage.backed_up().await?;
    let before = stage.logs().lines()?.len();
    let stalled = Instant::now();
    stalling.stall()?;
    agent.becomes(Serving::No, NOTICED_WITHIN).await?;
    stage.says("stalled", before, NOTICED_WITHIN).await?;
    answers_throughout(&agent, A_WHILE).await?;
    stage.says("file system shut down", before, UNKILLABLE_WITHIN).await?;
    answers_throughout(&agent, A_WHILE).await?;

    let plans = stage.said_after(before)?.iter().filter(|line| line.message == "plan").count();
    ensure!(plans < 10, "a stall is told {plans} times");

    // The next agent comes up in the middle of it.
    drop(agent);
    let mut agent = stage.agent().await?;
    ensure!(agent.serving().await? == Serving::No, "it serves from a stalled disk");
    answers_throughout(&agent, A_WHILE).await?;
    eventually("an explanation", SOON, async || {
        let explained = agent.holdfast(&["explain"])?;
        ensure!(explained.contains("does not answer") || explained.contains("disk"), "{explained}");
        Ok(())
    })
    .await?;

    stalling.resume()?;
    agent.becomes(Serving::Yes, SOON + SOON).await?;
    acks(&writer, 50).await?;
    outcome::judge(&audited(writer).await?, stalled)?;
    let engines = run(command("pgrep").args(["--full", &stage.node.mount.display().to_string()]))?;
    ensure!(engines.lines().count() == 1, "an engine of before the stall still runs: {engines}");
    agent.stop().await
}

/// Both doors answer all the time.
async fn answers_throughout(agent: &Daemon, time: Duration) -> Result<()> {
    throughout(time, async || {
        let asked = Instant::now();
        let (status, _body) = http_get(agent.node(), "/livez").await?;
        ensure!(status == 200, "/livez answers {status}");
        agent.holdfast(&["status"]).context("ask over gRPC")?;
        ensure!(asked.elapsed() < Duration::from_secs(2), "answers took {:?}", asked.elapsed());
        Ok(())
    })
    .await
}
