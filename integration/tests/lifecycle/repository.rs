//! What is in object storage does not fit this node: it says so, and neither writes there nor restores from it.

use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_integration::daemon::{Daemon, Serving};
use holdfast_integration::installation;
use holdfast_integration::node::Node;
use holdfast_integration::process::run;

use crate::bucket;
use crate::stage::{OPENS_WITHIN, Stage, lay_out};

/// Where a second cluster of the same name is kept, for it to be possible at all.
const ELSEWHERE: &str = "elsewhere";

/// Changes a node's configuration; takes effect when its daemon starts.
fn reconfigure(node: &Node, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(&node.config).context("read the configuration")?;
    ensure!(text.contains(from), "no {from:?} in {text}");
    fs::write(&node.config, text.replace(from, to)).context("write the configuration")
}

/// A second node that serves a cluster of the same name, elsewhere. Uses the last of the stage's disks.
async fn namesake(stage: &Stage) -> Result<Daemon> {
    let disks = stage.disks.len();
    let other = lay_out(&stage.scratch, &stage.store, "n2", &stage.disks[disks - 1..], "refuse")?;
    reconfigure(&other, "/clusters\"", &format!("/{ELSEWHERE}\""))?;
    let mut daemon = Daemon::start(&other).await?;
    daemon.bootstrap()?;
    daemon.becomes(Serving::Yes, OPENS_WITHIN).await?;
    // A worker that ships goes on to the end of its turn when its agent is killed.
    daemon.has_shipped_everything(OPENS_WITHIN).await?;
    Ok(daemon)
}

#[tokio::test]
async fn a_bootstrap_is_refused_when_the_repository_holds_the_cluster_as_root() -> Result<()> {
    let mut stage = Stage::serving(2, "refuse").await?;
    drop(stage.take_daemon()?);
    let newcomer = lay_out(&stage.scratch, &stage.store, "n2", &stage.disks[1..], "refuse")?;
    let daemon = Daemon::start(&newcomer).await?;
    daemon.logs().wait_for("run 'holdfast restore'", OPENS_WITHIN).await?;

    let refused = daemon.holdfast(&["bootstrap", "--token", "demo"]);
    let told = format!("{:#}", refused.err().context("it was not refused")?);
    ensure!(told.contains("the repository already holds demo-"), "{told}");
    // The request on the machine itself is taken down, and refused when it is looked at.
    daemon.bootstrap()?;
    daemon.logs().wait_for("bootstrap refused: the repository already holds demo-", OPENS_WITHIN).await?;
    ensure!(daemon.serving().await? == Serving::No, "it serves");
    let plan = daemon.holdfast(&["volume", "plan"])?;
    ensure!(plan.contains("blank"), "the blank disk was formatted: {plan}");
    Ok(())
}

#[tokio::test]
async fn a_node_ships_nothing_into_the_repository_of_another_cluster_as_root() -> Result<()> {
    let mut stage = Stage::serving(2, "refuse").await?;
    let writer = stage.write().await?;
    drop(namesake(&stage).await?);
    stage.take_daemon()?.stop().await?;
    let before = bucket::keys(&stage.store, ELSEWHERE)?;

    reconfigure(&stage.node, "/clusters\"", &format!("/{ELSEWHERE}\""))?;
    stage.start().await?;
    stage.becomes(Serving::Yes).await?;
    stage.writes_go_on(&writer).await?;
    let refused = stage.daemon()?.holdfast(&["backup", "create"]);
    ensure!(refused.is_err(), "a backup went into the repository of another cluster");
    let status = stage.status()?.to_string();
    ensure!(status.contains("it holds another cluster"), "{status}");
    // The namesake's engine still runs, without its agent: nobody ships for it.
    let after = bucket::keys(&stage.store, ELSEWHERE)?;
    ensure!(after == before, "objects were added to {before:?}: {after:?}");
    stage.audit_lossless(writer).await
}

#[tokio::test]
async fn two_clusters_of_one_name_are_told_and_none_is_restored_as_root() -> Result<()> {
    let mut stage = Stage::serving(3, "restore").await?;
    stage.daemon()?.holdfast(&["backup", "create"])?;
    drop(namesake(&stage).await?);
    bucket::copy(&stage.store, ELSEWHERE, "clusters", &["repo.json", "cluster.json"])?;

    stage.disks[0].vanish()?;
    stage.becomes(Serving::No).await?;
    drop(stage.take_daemon()?);
    stage.start().await?;
    stage.explains("the repository holds several clusters of that name").await?;
    ensure!(stage.daemon()?.serving().await? == Serving::No, "one of them was restored");
    Ok(())
}

#[tokio::test]
async fn a_backup_of_another_major_version_is_refused_by_name_as_root() -> Result<()> {
    let mut stage = Stage::serving(2, "restore").await?;
    stage.daemon()?.holdfast(&["backup", "create"])?;
    stage.everything_is_shipped().await?;
    let newer = installation::postgres(17)?;
    stage.take_daemon()?.stop().await?;
    stop_engine(&stage.node)?;
    stage.disks[0].vanish()?;
    reconfigure(&stage.node, &format!("{:?}", stage.node.engine), &format!("{newer:?}"))?;

    stage.start().await?;
    stage.logs_say("is of PostgreSQL 15, and [engine] bin_dir is of 17: install 15").await?;
    ensure!(stage.daemon()?.serving().await? == Serving::No, "it serves");
    Ok(())
}

/// As a machine that goes down would.
fn stop_engine(node: &Node) -> Result<()> {
    let mut stop = holdfast_integration::process::command_as("postgres", node.engine.join("pg_ctl"));
    run(stop
        .args(["stop", "--wait", "--mode=fast", "--pgdata"])
        .arg(node.mount.join("pgdata"))
        .current_dir("/"))?;
    Ok(())
}
