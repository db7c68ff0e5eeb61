//! One node in a zone of its own, whose clients are in another: everything that the scenarios of three stand on.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_integration::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, WHOLE_WITHIN};
use holdfast_integration::haproxy::{Role, Seen};
use holdfast_integration::zones::Zone;
use holdfast_integration::{eventually, throughout};

/// Long enough for a client to be acked, here.
const A_WHILE: Duration = Duration::from_secs(2);

async fn served_from_another_zone() -> Result<Cluster> {
    let spec = ClusterSpec { zones: vec![Zone::A], disks: 1, ..ClusterSpec::default() };
    let cluster = Cluster::serving(&spec).await?;
    ensure!(cluster.primary()? == Zone::A, "{:?}", cluster.primary());
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_zone_that_is_cut_off_wait_and_object_storage_does_not_as_root() -> Result<()> {
    let mut cluster = served_from_another_zone().await?;
    let (far, near) = (cluster.writer(Zone::B).await?, cluster.writer(Zone::A).await?);

    cluster.cut_off(Zone::A)?;
    eventually("a load balancer that misses the node", NOTICED_WITHIN, async || {
        let seen = cluster.balancer(Zone::B)?.seen(Role::Primary).await?;
        ensure!(seen.get("n1") == Some(&Seen::Down), "{seen:?}");
        Ok(())
    })
    .await?;
    let acked = far.history().acked.len();
    throughout(A_WHILE, async || {
        let now = far.history().acked.len();
        ensure!(now == acked, "{} acks came through the cut", now - acked);
        Ok(())
    })
    .await?;
    cluster.writes_go_on(&near).await?;
    cluster.site(Zone::A)?.agent()?.has_shipped_everything(NOTICED_WITHIN).await?;

    cluster.heal()?;
    cluster.writes_go_on(&far).await?;
    for writer in [far, near] {
        cluster.books.close(writer).await?;
    }
    let balance = cluster.audit().await?;
    ensure!(balance.acked > 0, "{balance:?}");
    cluster.judge_logs(&[])?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_load_balancer_survives_a_killed_engine_and_loses_nothing_as_root() -> Result<()> {
    let mut cluster = served_from_another_zone().await?;
    let writer = cluster.writer(Zone::B).await?;
    let before = cluster.newest_rule()?.id;
    cluster.site(Zone::A)?.kill_engine()?;
    eventually("the next rule", WHOLE_WITHIN, async || {
        let rule = cluster.newest_rule()?.id;
        ensure!(rule.term == before.term && rule.version > before.version, "{rule:?} after {before:?}");
        Ok(())
    })
    .await?;
    cluster.writes_go_on(&writer).await?;
    let history = cluster.books.close(writer).await?;
    ensure!(history.longest_outage().is_some(), "one ack");
    cluster.audit().await?;
    cluster.judge_logs(&[
        "engine ended by itself",
        "unexpected postmaster exit",
        "log not shipped, trying again",
        "connection to client lost",
    ])
}
