//! The primary ends, or a wait is cancelled, while commits wait for acks: rows F12 and F13 of the fault matrix.

use anyhow::{Result, ensure};
use holdfast_integration::acked::AckedWriter;
use holdfast_integration::cluster::{ClusterSpec, NOTICED_WITHIN, OPENS_WITHIN};
use holdfast_integration::daemon::{Serving, http_get};
use holdfast_integration::zones::Cut;
use holdfast_integration::{eventually, throughout};
use nix::sys::signal::Signal;

use crate::stage::{A_WHILE, Stage, acks_stop, play};

/// Said while an engine ends.
const SAID: &[&str] = &[
    "engine ended by itself",
    "terminating connection",
    "canceling the wait",
    "log not shipped",
    "client sessions not ended",
];

/// A client of the primary that waits, since no ack arrives there.
async fn waits(stage: &mut Stage) -> Result<AckedWriter> {
    let primary = stage.primary;
    let port = stage.cluster.site(primary)?.node.port;
    let writer = stage.cluster.writer_at(primary).await?;
    stage.cluster.cut(&stage.others.map(|from| Cut::Said { from, to: primary, port }))?;
    acks_stop(&writer).await?;
    Ok(writer)
}

/// Nobody is told anything, and nobody new gets in, until acks arrive again.
async fn silent_until_healed(stage: &mut Stage, writer: &AckedWriter, before: usize) -> Result<()> {
    stage.cluster.becomes(stage.primary, Serving::No, NOTICED_WITHIN).await?;
    throughout(A_WHILE, async || {
        let serving = stage.cluster.site(stage.primary)?.agent()?.serving().await?;
        ensure!(serving == Serving::No, "it serves without acks");
        let after = writer.history().acked.len();
        ensure!(after == before, "{} acks that nobody gave", after - before);
        Ok(())
    })
    .await?;
    stage.cluster.heal()?;
    stage.cluster.writes_go_on(writer).await?;
    stage.cluster.becomes(stage.primary, Serving::Yes, OPENS_WITHIN).await?;
    stage.same_reign()
}

async fn no_waiter_is_released_by(name: &str, end: impl AsyncFnOnce(&Stage) -> Result<()>) -> Result<()> {
    play(name, ClusterSpec::default(), SAID, async |stage| {
        let writer = waits(stage).await?;
        let before = writer.history().acked.len();
        end(stage).await?;
        silent_until_healed(stage, &writer, before).await?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_releases_no_waiter_as_root() -> Result<()> {
    // It ends when its followers have confirmed everything, and lets nobody in until then.
    no_waiter_is_released_by("fast-shutdown", async |stage| {
        stage.cluster.site(stage.primary)?.signal_engine(Signal::SIGINT)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immediate_restart_releases_no_waiter_as_root() -> Result<()> {
    no_waiter_is_released_by("immediate-restart", async |stage| {
        stage.cluster.site(stage.primary)?.signal_engine(Signal::SIGQUIT)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_its_agent_stops_releases_no_waiter_as_root() -> Result<()> {
    no_waiter_is_released_by("agent-stops", async |stage| {
        stage.cluster.holdfast(stage.primary, &["engine", "stop"])?;
        stage.cluster.holdfast(stage.primary, &["engine", "start"])?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_is_counted_and_begins_no_reign_as_root() -> Result<()> {
    play("cancelled-wait", ClusterSpec::default(), SAID, async |stage| {
        let writer = waits(stage).await?;
        let primary = stage.primary;
        let node = stage.cluster.site(primary)?.node.clone();
        let cancelled = node.sql(
            "postgres",
            "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'",
        )?;
        ensure!(cancelled.trim() != "0", "nobody waited");
        eventually("a count of breaches", NOTICED_WITHIN, async || {
            let (_status, metrics) = http_get(&node, "/metrics").await?;
            let breaches = metrics.lines().filter(|line| line.contains("breach") && !line.starts_with('#'));
            ensure!(breaches.into_iter().any(|line| !line.ends_with(" 0")), "{metrics}");
            Ok(())
        })
        .await?;
        stage.cluster.heal()?;
        stage.cluster.becomes(primary, Serving::Yes, OPENS_WITHIN).await?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}
