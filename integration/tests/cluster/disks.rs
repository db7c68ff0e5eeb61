//! Disks vanish, fill up, fail and hang: rows F7, F8 and F16 of the fault matrix.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_integration::cluster::disk::Disk;
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::{ClusterSpec, Fate, NOTICED_WITHIN, WHOLE_WITHIN};
use holdfast_integration::daemon::Serving;
use holdfast_integration::postmaster::of_engine;
use holdfast_integration::process::{command, run};
use holdfast_integration::{eventually, throughout};
use nix::sys::statvfs::statvfs;

use crate::stage::{A_WHILE, Stage, play};

/// Said while a disk is lost.
pub(crate) const DISK_LOST: &[&str] = &[
    "disk unsafe",
    "engine ended by itself",
    "log not shipped",
    "log shipping ended",
    "gate not closed in time",
    "client sessions not ended",
    "Input/output error",
    "the database system is",
    "terminating connection",
    "was terminated by signal",
    // Of an engine that waits for a disk which does not answer.
    "engine not stopped in time",
    "file system shut down below an engine",
    // By the next agent of a node whose disk vanished while none ran.
    "taking off a volume that was left mounted",
];
/// Said while a volume is full.
const SAID_WHEN_FULL: &[&str] = &["read-only transaction", "volume full", "log not shipped"];
/// Segments of log, together more than `wal_keep_size`.
const SEGMENTS_MISSED: usize = 20;
/// Where a volume keeps its member's promise.
const PROMISE_SLOTS: [&str; 2] = [".holdfast/promise.0", ".holdfast/promise.1"];
/// What stays free of a volume that fills up: less than the reserve, more than the engine needs to live.
const LEFT: u64 = 40 << 20;
/// Shorter than the deadline of a probe write.
const A_HICCUP: Duration = Duration::from_millis(700);
const HICCUPS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_vanishes_comes_back_as_another_member_and_no_client_notices_as_root()
-> Result<()> {
    play("follower-disk", ClusterSpec::default(), DISK_LOST, async |stage| {
        let loser = stage.others[1];
        let writer = stage.writer(stage.others[0]).await?;
        let lost = stage.cluster.site(loser)?.lose_disk()?;
        stage.cluster.writes_go_on(&writer).await?;
        let new = stage.cluster.has_another_member(loser, &lost).await?;
        ensure!(new != lost, "{new}");
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_disk_vanishes_is_replaced_by_command_and_comes_back_as_another_member_as_root()
-> Result<()> {
    play("primary-disk", ClusterSpec::default(), DISK_LOST, async |stage| {
        let primary = stage.primary;
        let writer = stage.writer(stage.others[1]).await?;
        let lost = stage.cluster.site(primary)?.lose_disk()?;
        stage.cluster.becomes(primary, Serving::No, NOTICED_WITHIN).await?;
        stage.fails_over().await?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.has_another_member(primary, &lost).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_the_store_missed_is_shipped_by_whoever_is_promoted_as_root() -> Result<()> {
    let said = [DISK_LOST, &["repository"]].concat();
    play("store-missed", ClusterSpec::default(), &said, async |stage| {
        let (primary, others) = (stage.primary, stage.others);
        let writer = stage.writer(others[1]).await?;
        stage.cluster.store.go_away();
        stage.cluster.writes_go_on(&writer).await?;
        for _ in 0..SEGMENTS_MISSED {
            let switch = "select pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()";
            stage.cluster.site(primary)?.node.sql("postgres", switch)?;
        }
        stage.cluster.writes_go_on(&writer).await?;
        // Without what holds it back all of that would go now.
        for zone in [primary, others[0], others[1]] {
            stage.cluster.site(zone)?.node.sql("postgres", "checkpoint")?;
        }
        let lost = stage.cluster.site(primary)?.lose_disk()?;
        stage.cluster.becomes(primary, Serving::No, NOTICED_WITHIN).await?;
        stage.cluster.store.come_back().await?;
        stage.fails_over().await?;
        stage.cluster.writes_go_on(&writer).await?;
        // Its base is older than what the store missed.
        stage.cluster.has_another_member(primary, &lost).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_was_rolled_back_is_refused_until_it_has_another_as_root() -> Result<()> {
    let said = [DISK_LOST, &["promise went back"]].concat();
    play("rolled-back", ClusterSpec::default(), &said, async |stage| {
        let (primary, [to, third]) = (stage.primary, stage.others);
        let writer = stage.writer(to).await?;
        let slots = |stage: &Stage, zone| {
            let mount = &stage.cluster.site(zone)?.node.mount;
            anyhow::Ok(PROMISE_SLOTS.map(|slot| mount.join(slot)))
        };
        let before = slots(stage, third)?.map(fs::read);
        stage.cluster.order(primary, Order::Switchover { to })?;
        stage.cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
        let member = stage.cluster.site(third)?.seen()?.member().context("it has a volume")?;
        let term = stage.cluster.newest_rule()?.id.term;
        eventually("a peer that has seen it follow", NOTICED_WITHIN, async || {
            let status: serde_json::Value =
                serde_json::from_str(&stage.cluster.holdfast(to, &["--json", "status"])?)?;
            let peers = status["peers"].as_array().context("no peers")?;
            let told = peers.iter().find(|peer| peer["said"]["member"] == *member).context("not heard")?;
            ensure!(told["said"]["rule"]["id"]["term"] == term, "{told}");
            Ok(())
        })
        .await?;
        // Held, it promises nothing new when it is back.
        stage.cluster.holdfast(third, &["engine", "stop"])?;
        eventually("an engine that is stopped", NOTICED_WITHIN, async || {
            let runs = of_engine(&stage.cluster.site(third)?.node);
            ensure!(runs.is_err(), "{runs:?}");
            Ok(())
        })
        .await?;
        stage.cluster.site_mut(third)?.kill_agent();
        for (slot, old) in slots(stage, third)?.iter().zip(before) {
            fs::write(slot, old?).with_context(|| format!("roll {} back", slot.display()))?;
        }
        stage.cluster.site_mut(third)?.start_agent().await?;
        eventually("a member that is refused", NOTICED_WITHIN, async || {
            let status = stage.cluster.holdfast(to, &["--json", "status"])?;
            ensure!(status.contains("its disk was rolled back"), "{status}");
            Ok(())
        })
        .await?;
        stage.cluster.holdfast(third, &["engine", "start"])?;
        stage.cluster.writes_go_on(&writer).await?;
        let lost = stage.cluster.site(third)?.lose_disk()?;
        ensure!(lost == member, "{lost}");
        stage.cluster.has_another_member(third, &lost).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_node_under_an_old_name_counts_for_nothing_in_a_failover_as_root() -> Result<()> {
    play("same-name", ClusterSpec::default(), DISK_LOST, async |stage| {
        let (primary, [blank, third]) = (stage.primary, stage.others);
        let writer = stage.writer(third).await?;
        // Nobody can tell the primary before it dies.
        let engine = stage.cluster.site(blank)?;
        let lost = engine.lose_disk()?;
        engine.kill_engine()?;
        stage.cluster.site_mut(blank)?.kill_agent();
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.site_mut(primary)?.kill_agent();
        stage.cluster.site(primary)?.kill_engine()?;
        stage.cluster.site_mut(blank)?.start_agent().await?;
        eventually("a node that sees the third", NOTICED_WITHIN, async || {
            stage.cluster.site(blank)?.seen().map(drop)
        })
        .await?;

        throughout(A_WHILE, async || {
            let refused = stage.cluster.order(third, Order::Failover);
            let Err(refused) = refused else { bail!("one member of three became primary") };
            ensure!(format!("{refused:#}").contains(&lost), "the lost member is not named: {refused:#}");
            Ok(())
        })
        .await?;

        stage.cluster.site_mut(primary)?.start_agent().await?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.has_another_member(blank, &lost).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_nearly_full_hands_over_and_follows_as_root() -> Result<()> {
    play("full", ClusterSpec::default(), SAID_WHEN_FULL, async |stage| {
        let (primary, to) = (stage.primary, stage.others[0]);
        let writer = stage.writer(stage.others[1]).await?;
        let mount = stage.cluster.site(primary)?.node.mount.clone();
        let filler = mount.join("filler");
        let space = statvfs(&mount).context("measure the volume")?;
        let size = (space.blocks_available() * space.fragment_size() - LEFT).to_string();
        run(command("fallocate").args(["--length", &size]).arg(&filler))?;
        stage.cluster.becomes(primary, Serving::No, NOTICED_WITHIN).await?;
        stage.cluster.order(primary, Order::Switchover { to })?;
        stage.cluster.writes_go_on(&writer).await?;
        ensure!(stage.cluster.primary()? == to, "{:?}", stage.cluster.primary());
        fs::remove_file(&filler).context("free space")?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_disk_fails_writes_is_replaced_and_follows_when_it_works_again_as_root() -> Result<()>
{
    let spec = ClusterSpec { fate: Fate::Failing, ..ClusterSpec::default() };
    play("failing-disk", spec, DISK_LOST, async |stage| {
        let primary = stage.primary;
        let writer = stage.writer(stage.others[1]).await?;
        let Disk::Failing(disk) = stage.cluster.site(primary)?.disk_in_use()? else {
            bail!("the primary is not on the disk that fails");
        };
        disk.fail()?;
        stage.fails_over().await?;
        stage.cluster.writes_go_on(&writer).await?;
        disk.work_again()?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_for_moments_only_costs_time_and_one_that_stalls_costs_the_reign_as_root()
-> Result<()> {
    let spec = ClusterSpec { fate: Fate::Stalling, ..ClusterSpec::default() };
    play("stalling-disk", spec, DISK_LOST, async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let Disk::Stalling(disk) = stage.cluster.site(stage.primary)?.disk_in_use()? else {
            bail!("the primary is not on the disk that stalls");
        };
        for _ in 0..HICCUPS {
            disk.stall()?;
            throughout(A_HICCUP, async || Ok(())).await?;
            disk.resume()?;
            stage.cluster.writes_go_on(&writer).await?;
        }
        stage.same_reign()?;

        disk.stall()?;
        let failed_over = stage.fails_over().await;
        let written = match failed_over {
            Ok(_) => stage.cluster.writes_go_on(&writer).await,
            Err(err) => Err(err),
        };
        disk.resume()?;
        written?;
        Ok(vec![writer])
    })
    .await
}
