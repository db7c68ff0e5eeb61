//! Three nodes, from three blank disks and one word of an operator.

use anyhow::Result;
use holdfast_integration::cluster::{Cluster, ClusterSpec};
use holdfast_integration::zones::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_become_voters_and_every_commit_is_held_twice_as_root() -> Result<()> {
    let mut cluster = Cluster::serving(&ClusterSpec::default()).await?;
    let writer = cluster.writer(Zone::B).await?;
    cluster.writes_go_on(&writer).await?;
    cluster.books.close(writer).await?;
    let balance = cluster.audit().await?;
    anyhow::ensure!(balance.acked > 0, "{balance:?}");
    cluster.judge_logs(&[])?;
    cluster.stop().await
}
