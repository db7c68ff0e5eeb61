//! Processes end or stand still: rows F1, F2 and F3 of the fault matrix.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_integration::cluster::ClusterSpec;
use holdfast_integration::postmaster::of_engine;
use nix::sys::signal::Signal;

use crate::stage::{acks_stop, play};

/// Said when an engine ends.
const ENGINE_ENDED: &[&str] =
    &["engine ended by itself", "unexpected postmaster exit", "log not shipped", "terminating connection"];

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_resumes_and_every_ack_is_kept_as_root() -> Result<()> {
    play("killed-primary", ClusterSpec::default(), ENGINE_ENDED, async |stage| {
        let writer = stage.writer(stage.others[0]).await?;
        stage.cluster.site(stage.primary)?.kill_engine()?;
        stage.cluster.writes_go_on(&writer).await?;
        stage.same_reign()?;
        let now = stage.cluster.newest_rule()?.id;
        ensure!(now.version > stage.rule.version, "{now:?} is not a fresh marker");
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_wakes_after_a_failover_acks_nothing_as_root() -> Result<()> {
    play("frozen-primary", ClusterSpec::default(), &[], async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        let at_old = stage.cluster.writer_at(stage.primary).await?;
        let old = stage.cluster.site(stage.primary)?;
        old.freeze(Signal::SIGSTOP)?;
        let failed_over = stage.fails_over().await;
        if failed_over.is_err() {
            old.freeze(Signal::SIGCONT)?;
        }
        let new = failed_over?;
        stage.cluster.writes_go_on(&writer).await?;
        let before = at_old.history().acked.len();

        old.freeze(Signal::SIGCONT)?;
        acks_stop(&at_old).await?;
        let after = at_old.history().acked.len();
        ensure!(after == before, "the old primary acked {} after {new:?} began", after - before);
        stage.cluster.writes_go_on(&writer).await?;
        Ok(vec![writer, at_old])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_notice_that_the_agent_of_the_primary_was_killed_as_root() -> Result<()> {
    play("killed-agent", ClusterSpec::default(), &[], async |stage| {
        // Its engine alone: a load balancer goes elsewhere when /primary does not answer.
        let writer = stage.cluster.writer_at(stage.primary).await?;
        let engine = of_engine(&stage.cluster.site(stage.primary)?.node)?;
        stage.cluster.site_mut(stage.primary)?.kill_agent();
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.site_mut(stage.primary)?.start_agent().await?;
        stage.cluster.writes_go_on(&writer).await?;
        let now = of_engine(&stage.cluster.site(stage.primary)?.node)?;
        ensure!(now == engine, "another engine was started");
        let outages = writer.history().outages(Duration::from_secs(1));
        ensure!(outages.is_empty(), "clients noticed: {outages:?}");
        stage.same_reign()?;
        Ok(vec![writer])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_died_with_its_agent_is_replaced_by_command_and_joins_again_as_root() -> Result<()> {
    play("killed-node", ClusterSpec::default(), ENGINE_ENDED, async |stage| {
        let writer = stage.writer(stage.others[1]).await?;
        stage.cluster.site_mut(stage.primary)?.kill_agent();
        stage.cluster.site(stage.primary)?.kill_engine()?;
        let new = stage.fails_over().await?;
        ensure!(new != stage.primary, "{new:?} is dead");
        stage.cluster.writes_go_on(&writer).await?;
        stage.cluster.site_mut(stage.primary)?.start_agent().await?;
        Ok(vec![writer])
    })
    .await
}
