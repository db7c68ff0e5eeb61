//! Three nodes, from three blank disks and one word of an operator.

use anyhow::{Result, ensure};
use holdfast_integration::cluster::order::Order;
use holdfast_integration::cluster::{Cluster, ClusterSpec, WHOLE_WITHIN};
use holdfast_integration::zones::Zone;

use crate::stage::NEIGHBOURS_LEFT;

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_become_voters_and_every_commit_is_held_twice_as_root() -> Result<()> {
    let mut cluster = Cluster::serving(&ClusterSpec::default()).await?;
    let writer = cluster.writer(Zone::B).await?;
    cluster.writes_go_on(&writer).await?;
    cluster.books.close(writer).await?;
    let balance = cluster.audit().await?;
    ensure!(balance.acked > 0, "{balance:?}");
    cluster.judge_logs(&[])?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_loses_nothing_and_ends_with_three_voters_as_root() -> Result<()> {
    let mut cluster = Cluster::serving(&ClusterSpec::default()).await?;
    let writer = cluster.writer(Zone::B).await?;
    cluster.writes_go_on(&writer).await?;
    let outcome = cluster.order(Zone::C, Order::Switchover { to: Zone::B });
    println!("{}", cluster.explained(outcome)?);
    cluster.writes_go_on(&writer).await?;
    ensure!(cluster.wait_for_three_voters(WHOLE_WITHIN).await? == Zone::B);
    cluster.books.close(writer).await?;
    let balance = cluster.audit().await?;
    ensure!(balance.acked > 0, "{balance:?}");
    cluster.judge_logs(NEIGHBOURS_LEFT)?;
    cluster.stop().await
}
