//! Disks and file systems that stop taking writes below an engine, with all of its data on them.
//!
//! Not here: a remount as read-only, which the kernel refuses with `EBUSY` while the agent has the file of its probe open
//! for writing, engine or not (`a_remount_as_read_only_is_refused_while_the_probe_file_is_open`). What a kernel does by
//! itself after an error is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::daemon::Serving;
use holdfast_integration::demo::outcome;
use holdfast_integration::loop_disk::FailingDisk;
use holdfast_integration::process::{command, run};
use holdfast_integration::{Scratch, eventually, footprint};
use tokio::time::Instant;

use crate::stage::{DISK_BYTES, SOON, Stage, acks, audited};

/// Five probe writes, one of which looks at the mount table, and a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_file_system_that_shuts_down_is_noticed_and_mounted_afresh_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.explained(shut_down(&stage).await)
}

async fn shut_down(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.serving().await?;
    // An idle engine: nobody but the probe can notice.
    let audit = audited(writer).await?;
    let before = stage.logs().lines()?.len();
    run(command("xfs_io").args(["-x", "-c", "shutdown"]).arg(&stage.node.mount))?;
    stage.says("disk unsafe", before, NOTICED_WITHIN).await?;
    stage.says("gate changed gate=closed", before, NOTICED_WITHIN).await?;
    stage.says("volume mounted", before, SOON).await?;
    agent.becomes(Serving::Yes, SOON).await?;
    let found = stage.node.sql("app", "select count(distinct id) from acked")?;
    let found: usize = found.trim().parse()?;
    ensure!(found >= audit.acked, "{} ids were acked, and {found} are there", audit.acked);
    let writer = AckedWriter::start(stage.node.client()).await?;
    acks(&writer, 50).await?;
    agent.stop().await
}

#[tokio::test]
async fn an_ext4_that_made_itself_read_only_is_noticed_and_mounted_afresh_as_root() -> Result<()> {
    let stage = Stage::with_disks(1).await?;
    stage.node.configure("volume", "filesystem = \"ext4\"")?;
    stage.explained(read_only(&stage).await)
}

async fn read_only(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.serving().await?;
    let before = stage.logs().lines()?.len();
    let device = stage.disks[0].path().file_name().context("a device has a name")?.to_string_lossy();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1")?;
    stage.says("disk unsafe", before, NOTICED_WITHIN).await?;
    stage.says("gate changed gate=closed", before, NOTICED_WITHIN).await?;
    stage.says("volume mounted", before, SOON).await?;
    agent.becomes(Serving::Yes, SOON).await?;
    acks(&writer, 50).await?;
    let audit = audited(writer).await?;
    ensure!(audit.lost.is_empty(), "acked ids lost: {:?}", audit.lost);
    agent.stop().await
}

#[tokio::test]
async fn a_disk_that_fails_every_write_is_fenced_and_mounted_afresh_when_it_works_as_root() -> Result<()> {
    let scratch = Scratch::new()?;
    let failing = FailingDisk::blank(&scratch, "failing", DISK_BYTES)?;
    let stage = Stage::over(&scratch, vec![], &[failing.disk()]).await?;
    stage.explained(fail(&stage, &failing).await)
}

async fn fail(stage: &Stage, failing: &FailingDisk) -> Result<()> {
    let (mut agent, writer) = stage.serving().await?;
    let before = stage.logs().lines()?.len();
    failing.fail()?;
    let told = stage.says("disk unsafe", before, NOTICED_WITHIN).await?;
    ensure!(told.shown().contains("sick"), "{}", told.shown());
    agent.becomes(Serving::No, NOTICED_WITHIN).await?;
    let explained = agent.holdfast(&["explain"])?;
    ensure!(explained.contains("disk"), "{explained}");
    eventually("an end of everything that touched the disk", SOON, async || {
        let parts: Vec<String> = footprint::of_agent(&stage.node)?.into_iter().map(|one| one.part).collect();
        ensure!(!parts.iter().any(|part| part == "op"), "{parts:?}");
        Ok(())
    })
    .await?;

    failing.work_again()?;
    agent.becomes(Serving::Yes, SOON).await?;
    acks(&writer, 50).await?;
    let audit = audited(writer).await?;
    ensure!(audit.lost.is_empty(), "acked ids lost: {:?}", audit.lost);
    agent.stop().await
}

#[tokio::test]
async fn a_node_whose_disk_was_truncated_comes_back_on_another_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(truncated(&stage).await)
}

async fn truncated(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.backed_up().await?;
    let before = stage.logs().lines()?.len();
    let vanished = Instant::now();
    stage.disks[0].truncate()?;
    stage.says("disk unsafe", before, NOTICED_WITHIN).await?;
    stage.says("gate changed gate=closed", before, NOTICED_WITHIN).await?;
    stage.says("volume mounted", before, SOON).await?;
    agent.becomes(Serving::Yes, SOON + SOON).await?;
    acks(&writer, 50).await?;
    outcome::judge(&audited(writer).await?, vanished)?;
    agent.stop().await
}
