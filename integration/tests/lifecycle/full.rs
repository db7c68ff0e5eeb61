//! The volume fills up: clients read only before the engine fails, and write again once there is space.

use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_integration::daemon::Serving;
use holdfast_integration::process::{command, run};
use nix::sys::statvfs::statvfs;

use crate::processes;
use crate::stage::Stage;

/// What stays free: less than the reserve of the configuration, more than the engine needs to live.
const LEFT: u64 = 40 << 20;
/// Of the configuration.
const RESERVE: u64 = 64 << 20;

#[tokio::test]
async fn a_nearly_full_volume_is_read_only_until_space_is_freed_as_root() -> Result<()> {
    let mut stage = Stage::serving(1, "restore").await?;
    let writer = stage.write().await?;
    let engine = processes::of_engine(&stage.node)?;
    let reserve = fs::metadata(stage.node.mount.join(".holdfast/reserve")).context("look at the reserve")?;
    ensure!(reserve.len() == RESERVE, "a reserve of {}", reserve.len());

    let space = statvfs(&stage.node.mount).context("measure the volume")?;
    let filler = stage.node.mount.join("filler");
    let size = (space.blocks_available() * space.fragment_size() - LEFT).to_string();
    run(command("fallocate").args(["--length", &size]).arg(&filler))?;
    stage.becomes(Serving::No).await?;
    stage.explains("the disk is nearly full; free space or use a larger one").await?;
    let refused = stage.node.sql("postgres", "create table refused ()");
    ensure!(
        refused.is_err_and(|err| format!("{err:#}").contains("read-only transaction")),
        "a write went in"
    );
    let rows = stage.node.sql("app", "select count(*) > 0 from acked")?;
    ensure!(rows.trim() == "t", "reads: {rows}");

    fs::remove_file(&filler).context("free space")?;
    stage.becomes(Serving::Yes).await?;
    stage.writes_go_on(&writer).await?;
    ensure!(processes::of_engine(&stage.node)? == engine, "the engine was started again");
    stage.audit_lossless(writer).await?;
    // The engine's own word to each write that came meanwhile.
    stage.judge_logs(&["read-only transaction"])
}
