//! Agents, workers and object stores that go away while a node restores.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::daemon::{Daemon, Serving};
use holdfast_integration::demo::outcome;
use holdfast_integration::process::{command, run};
use holdfast_integration::{eventually, throughout};
use tokio::time::Instant;

use crate::stage::{SOON, Stage, acks, audited};

/// Longer than a probe, a turn of each loop and a try of the engine to fetch log.
const A_WHILE: Duration = Duration::from_secs(8);
/// How often a restore worker is killed.
const WORKERS_KILLED: usize = 3;

pub(crate) async fn loss_is_within_the_window(writer: AckedWriter, vanished: Instant) -> Result<()> {
    acks(&writer, 50).await?;
    let audit = audited(writer).await?;
    ensure!(audit.acked > 100, "too few acks to say anything: {}", audit.acked);
    outcome::judge(&audit, vanished)
}

#[tokio::test]
async fn a_restore_whose_agent_is_killed_at_each_step_is_finished_in_the_same_term_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(restore_with_dead_agents(&stage).await)
}

async fn restore_with_dead_agents(stage: &Stage) -> Result<()> {
    let (agent, writer) = stage.backed_up().await?;
    let vanished = Instant::now();
    stage.disks[0].vanish()?;
    stage.says("disk unsafe", 0, SOON).await?;
    drop(agent);

    let (agent, deaths) = stage.kill_at_each_new_word().await?;

    ensure!(deaths >= 5, "only {deaths} agents were killed on the way");
    ensure!(stage.terms()? == 2, "each try took a term of its own: {:?}", stage.store.keys("/rules/")?);
    loss_is_within_the_window(writer, vanished).await?;
    agent.stop().await
}

#[tokio::test]
async fn a_restore_whose_workers_are_killed_is_finished_in_the_same_term_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(restore_with_dead_workers(&stage).await)
}

async fn restore_with_dead_workers(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.backed_up().await?;
    let vanished = Instant::now();
    stage.disks[0].vanish()?;
    agent.becomes(Serving::No, SOON).await?;
    for _ in 0..WORKERS_KILLED {
        kill_next_restore_worker(stage, &agent).await?;
    }
    agent.becomes(Serving::Yes, SOON).await?;
    ensure!(stage.terms()? == 2, "each try took a term of its own: {:?}", stage.store.keys("/rules/")?);
    loss_is_within_the_window(writer, vanished).await?;
    agent.stop().await
}

async fn kill_next_restore_worker(stage: &Stage, agent: &Daemon) -> Result<()> {
    eventually("a restore worker", SOON, async || {
        ensure!(agent.serving().await? == Serving::No, "restored already");
        let workers = stage.workers(agent, "restore")?;
        let worker = workers.into_iter().next().ok_or_else(|| anyhow::anyhow!("none runs"))?;
        // Some do little: the next one, if this has ended by now.
        run(command("kill").args(["-KILL", &worker])).map(drop)
    })
    .await
}

#[tokio::test]
async fn an_engine_whose_log_is_out_of_reach_waits_and_does_not_open_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(replay_without_store(&stage).await)
}

async fn replay_without_store(stage: &Stage) -> Result<()> {
    let (mut agent, writer) = stage.backed_up().await?;
    ship_a_long_log(stage).await?;
    let vanished = Instant::now();
    stage.disks[0].vanish()?;
    first_segment_replayed(stage).await?;
    stage.store.hang()?;
    throughout(A_WHILE, async || {
        ensure!(agent.serving().await? == Serving::No, "it opened before its log was replayed");
        Ok(())
    })
    .await?;
    stage.store.go_on()?;
    agent.becomes(Serving::Yes, SOON).await?;
    the_long_log_is_there(stage)?;
    loss_is_within_the_window(writer, vanished).await?;
    agent.stop().await
}

/// Several segments, so that a test can step in between two of them.
pub(crate) async fn ship_a_long_log(stage: &Stage) -> Result<()> {
    stage.node.sql("app", "create table bulk as select md5(n::text) from generate_series(1, 400000) n")?;
    let made = position(&stage.node.sql("app", "select pg_current_wal_lsn()")?)?;
    eventually("all of it shipped", SOON, async || {
        // Each object of log is named after where it begins, those of whole segments too.
        let starts = stage.store.keys("/log/")?;
        let starts = starts.iter().filter_map(|key| u64::from_str_radix(key.rsplit('/').next()?, 16).ok());
        let begins = starts.max().unwrap_or(0);
        ensure!(begins >= made, "shipped up to {begins:x} of {made:x}");
        Ok(())
    })
    .await
}

pub(crate) async fn first_segment_replayed(stage: &Stage) -> Result<()> {
    let engine_log = stage.node.folder.join("state/log/engine.log");
    eventually("the first segment of replay", SOON, async || {
        let log = fs::read_to_string(&engine_log)?;
        ensure!(log.contains("restored log file"), "none yet");
        Ok(())
    })
    .await
}

pub(crate) fn the_long_log_is_there(stage: &Stage) -> Result<()> {
    let rows = stage.node.sql("app", "select count(*) from bulk")?;
    ensure!(rows.trim() == "400000", "{rows} rows were restored");
    Ok(())
}

/// A position in the words of the engine, as a number.
fn position(shown: &str) -> Result<u64> {
    let (high, low) = shown.trim().split_once('/').context("a position without a slash")?;
    Ok((u64::from_str_radix(high, 16)? << 32) + u64::from_str_radix(low, 16)?)
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flipped,
    Missing,
}

#[tokio::test]
async fn a_restore_from_a_pack_with_a_flipped_bit_is_refused_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(restore_from_damaged(&stage, Damage::Flipped).await)
}

#[tokio::test]
async fn a_restore_with_a_missing_pack_is_refused_as_root() -> Result<()> {
    let stage = Stage::with_disks(2).await?;
    stage.explained(restore_from_damaged(&stage, Damage::Missing).await)
}

async fn restore_from_damaged(stage: &Stage, damage: Damage) -> Result<()> {
    let (mut agent, _writer) = stage.backed_up().await?;
    for pack in stage.store.keys("/packs/")? {
        match damage {
            Damage::Flipped => stage.store.flip_a_bit(&pack)?,
            Damage::Missing => stage.store.lose(&pack)?,
        }
    }
    stage.disks[0].vanish()?;
    agent.becomes(Serving::No, SOON).await?;
    let before = stage.logs().lines()?.len();
    let said = stage.says("founding failed", before, SOON).await?;
    ensure!(said.shown().contains("pack"), "the message does not name the pack: {}", said.shown());
    throughout(A_WHILE, async || {
        ensure!(agent.serving().await? == Serving::No, "it serves from a damaged repository");
        Ok(())
    })
    .await?;
    let started = stage.said_after(before)?.iter().any(|line| line.shown().contains("engine started"));
    ensure!(!started, "an engine was started on data that is not whole");
    let explained = agent.holdfast(&["explain"])?;
    ensure!(explained.contains("restor"), "{explained}");
    Ok(())
}
