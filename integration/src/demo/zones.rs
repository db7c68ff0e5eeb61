//! Three nodes in three zones: what happens to them, what clients notice, and that nothing acked is ever lost.
//!
//! Each scene has its own client in a zone that is left alone, and ends when every node is a voter again; then all that any
//! client was ever told is looked up at whoever is primary. One missing id ends the demo.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::acked::AckedWriter;
use crate::cluster::books::Balance;
use crate::cluster::order::Order;
use crate::cluster::{Cluster, ClusterSpec, NOTICED_WITHIN, WHOLE_WITHIN, site};
use crate::daemon::Serving;
use crate::demo::narrator::Narrator;
use crate::demo::{outcome, wall_clock};
use crate::logs::Line;
use crate::timeline::{Timeline, seconds};
use crate::zones::Zone;

/// In each round two disks vanish, and it may be the same node's each time.
const DISKS_LOST_A_ROUND: usize = 2;
/// What agents say in a scene is told up to this many lines.
const LINES_TOLD_MAX: usize = 60;

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    pub postgres: u32,
    /// How often all the scenes are played, on one cluster.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// The figures of one scene, in seconds where nothing else is said.
#[derive(Debug, serde::Serialize)]
struct SceneFigures {
    scene: String,
    outage: f64,
    fault_to_whole: f64,
    ids_acked_in_all: usize,
    ids_lost: usize,
    /// When an agent first said what, in milliseconds since the fault.
    first_said_ms: BTreeMap<String, u64>,
}

/// Everything on stage.
#[derive(Debug)]
struct Stage {
    cluster: Cluster,
    figures: Vec<SceneFigures>,
}

/// What happens in a scene, on both clocks, and its moments.
#[derive(Debug)]
struct Scene {
    /// Where the client is: never in the zone of the fault.
    clients: Zone,
    /// Where the primary was when it began.
    primary: Zone,
    writer: AckedWriter,
    zero: Instant,
    wall_clock: SystemTime,
    timeline: Timeline,
}

impl Scene {
    fn mark(&mut self, what: impl Into<String>) {
        self.timeline.mark_at(what, Instant::now());
    }
}

/// Plays it. After a failure the logs are in `target/demo`.
///
/// # Errors
/// Something did not go as told; everything is cleaned up all the same.
pub async fn play(options: &Options) -> Result<()> {
    let mut narrator = Narrator::begin();
    let mut stage = set_stage(&mut narrator, options).await?;
    let played = perform(&mut narrator, &mut stage, options.rounds).await;
    if played.is_err() {
        return match stage.cluster.keep_logs("demo") {
            Ok(()) => stage.cluster.explained(played),
            Err(not_kept) => played.with_context(|| format!("logs are lost: {not_kept:#}")),
        };
    }
    if let Some(file) = &options.report {
        fs::write(file, serde_json::to_string_pretty(&stage.figures)?).context("write the report")?;
    }
    narrator.scene("The daemons stop");
    narrator.show(&summary(&stage.figures));
    stage.cluster.stop().await?;
    narrator.say("done: everything that was made is taken down again");
    Ok(())
}

async fn set_stage(narrator: &mut Narrator, options: &Options) -> Result<Stage> {
    narrator.scene(
        "Three zones: a node with blank disks and a load balancer in each, and an S3 server that all reach",
    );
    let disks = 1 + DISKS_LOST_A_ROUND * options.rounds;
    let spec = ClusterSpec { disks, postgres: options.postgres, ..ClusterSpec::default() };
    let cluster = Cluster::start(&spec).await?;
    for site in cluster.sites() {
        let node = &site.node;
        narrator.say(&format!("{} in {} at {}", node.name, node.placement.zone(), node.placement.address()));
    }
    narrator.say(&format!("object storage at {}", cluster.store.endpoint()));
    Ok(Stage { cluster, figures: Vec::new() })
}

async fn perform(narrator: &mut Narrator, stage: &mut Stage, rounds: usize) -> Result<()> {
    become_three(narrator, stage).await?;
    for _ in 0..rounds {
        play_all(narrator, stage).await?;
    }
    Ok(())
}

async fn play_all(narrator: &mut Narrator, stage: &mut Stage) -> Result<()> {
    let title = "kill -9 of the primary's postgres: it resumes in place";
    scene(narrator, stage, title, engine_killed).await?;
    let title = "The primary's zone is cut off: another primary, by command";
    scene(narrator, stage, title, zone_cut_off).await?;
    let title = "The primary's disk vanishes: another primary, by command, and the node comes back by itself";
    scene(narrator, stage, title, primary_loses_disk).await?;
    let title = "A planned switchover";
    scene(narrator, stage, title, switched_over).await?;
    let title = "One more disk vanishes, of a node that is not the primary";
    scene(narrator, stage, title, follower_loses_disk).await
}

async fn become_three(narrator: &mut Narrator, stage: &mut Stage) -> Result<()> {
    narrator.scene("A cluster is bootstrapped on the first node; the others join it by themselves");
    let asked = Instant::now();
    stage.cluster.bootstrap().await?;
    narrator.say(&format!("{} serves {} later", site::name(Zone::A), seconds(asked.elapsed())));
    let primary = stage.cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
    narrator.say(&format!("three members, k = 1, {} after bootstrap", seconds(asked.elapsed())));
    narrator.show(&stage.cluster.holdfast(primary, &["status"])?);
    Ok(())
}

/// Plays one scene: a client writes, `happens` happens, and everything is as it was before.
async fn scene(
    narrator: &mut Narrator,
    stage: &mut Stage,
    title: &str,
    happens: impl AsyncFnOnce(&Narrator, &mut Cluster, &mut Scene) -> Result<()>,
) -> Result<()> {
    narrator.scene(title);
    let cluster = &mut stage.cluster;
    let primary = cluster.primary()?;
    let clients = *cluster.others(primary).first().context("one zone has no others")?;
    let writer = cluster.writer(clients).await?;
    let (from, at) = (clients.name(), site::name(primary));
    narrator.say(&format!("a client in {from} writes through its load balancer; {at} is primary"));
    let (zero, wall_clock) = (Instant::now(), wall_clock());
    let mut scene = Scene { clients, primary, writer, zero, wall_clock, timeline: Timeline::since(zero) };

    happens(narrator, cluster, &mut scene).await?;

    cluster.writes_go_on(&scene.writer).await?;
    let primary = cluster.wait_for_three_voters(WHOLE_WITHIN).await?;
    scene.mark("three members again");
    cluster.writes_go_on(&scene.writer).await?;
    let figures = close(narrator, cluster, scene, title).await?;
    stage.figures.push(figures);
    narrator.show(&stage.cluster.holdfast(primary, &["status"])?);
    Ok(())
}

/// The end of a scene: what the client noticed, what the agents said, and the books.
async fn close(
    narrator: &Narrator,
    cluster: &mut Cluster,
    scene: Scene,
    title: &str,
) -> Result<SceneFigures> {
    let Scene { writer, zero, wall_clock, mut timeline, .. } = scene;
    let whole = zero.elapsed();
    let history = cluster.books.close(writer).await?;
    let outage = history.longest_outage().context("a client without acks")?;
    timeline.mark_at("last ack before the longest time without", outage.from);
    timeline.mark_at("first ack after it", outage.until);
    timeline.sort();
    let balance = cluster.audit().await?;
    let Balance { acked, unknown, unknown_found, lost, .. } = &balance;
    narrator.say(&format!("outage seen by the client: {}", seconds(outage.until - outage.from)));
    narrator.show(&timeline.table());
    narrator.say("what the agents said, in seconds since it happened:");
    let agents = cluster.sites().map(|site| Ok((site.node.name.clone(), site.logs().lines()?)));
    let agents = agents.collect::<Result<Vec<_>>>()?;
    narrator.show(&told(&agents, wall_clock));
    narrator
        .say(&format!("{acked} ids acked in all, {unknown} without an answer ({unknown_found} committed)"));
    narrator.say(&format!("acked lost: {}", lost.len()));
    Ok(SceneFigures {
        scene: title.to_owned(),
        outage: (outage.until - outage.from).as_secs_f64(),
        fault_to_whole: whole.as_secs_f64(),
        ids_acked_in_all: *acked,
        ids_lost: lost.len(),
        first_said_ms: outcome::first_said_ms(&agents, wall_clock),
    })
}

fn told(agents: &[(String, Vec<Line>)], since: SystemTime) -> String {
    let told = outcome::told_by_all_since(agents, since);
    let lines = told.lines().count();
    let mut shown: Vec<&str> = told.lines().take(LINES_TOLD_MAX).collect();
    let more = format!("and {} lines more", lines.saturating_sub(LINES_TOLD_MAX));
    if lines > LINES_TOLD_MAX {
        shown.push(&more);
    }
    shown.join("\n")
}

async fn engine_killed(narrator: &Narrator, cluster: &mut Cluster, scene: &mut Scene) -> Result<()> {
    cluster.site(scene.primary)?.kill_engine()?;
    scene.mark("kill -9");
    narrator.say("every process of its engine is gone");
    cluster.writes_go_on(&scene.writer).await
}

async fn zone_cut_off(narrator: &Narrator, cluster: &mut Cluster, scene: &mut Scene) -> Result<()> {
    cluster.cut_off(scene.primary)?;
    scene.mark("the zone is cut off");
    narrator.say(&format!("{} reaches no other zone", scene.primary.name()));
    fail_over(narrator, cluster, scene).await?;
    cluster.heal()?;
    scene.mark("the cut has healed");
    Ok(())
}

async fn primary_loses_disk(narrator: &Narrator, cluster: &mut Cluster, scene: &mut Scene) -> Result<()> {
    let lost = cluster.site(scene.primary)?.lose_disk()?;
    scene.mark("the disk vanishes");
    narrator.say(&format!("{lost} is lost, and was the primary"));
    cluster.becomes(scene.primary, Serving::No, NOTICED_WITHIN).await?;
    scene.mark("its agent has closed the gate");
    fail_over(narrator, cluster, scene).await
}

/// Tells an agent near the client to fail over.
async fn fail_over(narrator: &Narrator, cluster: &Cluster, scene: &mut Scene) -> Result<()> {
    narrator.say(&format!("{}$ holdfast {}", site::name(scene.clients), Order::Failover.args().join(" ")));
    let asked = Instant::now();
    let to = cluster.fail_over(scene.clients, &cluster.others(scene.primary)).await?;
    scene.timeline.mark_at("failover asked for", asked);
    scene.mark(format!("{} is primary", site::name(to)));
    cluster.writes_go_on(&scene.writer).await
}

async fn switched_over(narrator: &Narrator, cluster: &mut Cluster, scene: &mut Scene) -> Result<()> {
    let order = Order::Switchover { to: scene.clients };
    narrator.say(&format!("{}$ holdfast {}", site::name(scene.primary), order.args().join(" ")));
    scene.mark("switchover asked for");
    narrator.show(&cluster.order(scene.primary, order)?);
    scene.mark("switchover answered");
    Ok(())
}

async fn follower_loses_disk(narrator: &Narrator, cluster: &mut Cluster, scene: &mut Scene) -> Result<()> {
    let others = cluster.others(scene.primary);
    let loser = *others.last().context("one zone has no others")?;
    let lost = cluster.site(loser)?.lose_disk()?;
    scene.mark(format!("the disk of {} vanishes", site::name(loser)));
    narrator.say(&format!("{lost} is lost; it was not the primary"));
    cluster.writes_go_on(&scene.writer).await?;
    let new = cluster.has_another_member(loser, &lost).await?;
    scene.mark(format!("{} has another volume", site::name(loser)));
    narrator.say(&format!("{new} takes its place"));
    Ok(())
}

/// A line for each scene; of several rounds the median and the worst.
fn summary(figures: &[SceneFigures]) -> String {
    let mut lines = vec!["   outage  (worst)      whole  (worst)  acked lost  scene".to_owned()];
    let mut scenes: Vec<&str> = Vec::new();
    for of in figures {
        if !scenes.contains(&of.scene.as_str()) {
            scenes.push(&of.scene);
        }
    }
    for scene in scenes {
        let of_scene = || figures.iter().filter(|of| of.scene == scene);
        let (outage, worst_outage) = median_and_worst(of_scene().map(|of| of.outage));
        let (whole, worst_whole) = median_and_worst(of_scene().map(|of| of.fault_to_whole));
        let lost: usize = of_scene().map(|of| of.ids_lost).sum();
        lines.push(format!(
            "{outage:>7.2} s {worst_outage:>7.2} s  {whole:>7.2} s {worst_whole:>7.2} s  {lost:>10}  {scene}"
        ));
    }
    lines.join("\n")
}

/// The median is the upper one of an even number of figures; 0 of none.
fn median_and_worst(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let median = figures.get(figures.len() / 2).copied().unwrap_or_default();
    (median, figures.last().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_not_hidden_by_the_median() {
        assert_eq!(median_and_worst([3.0, 1.0, 9.0].into_iter()), (3.0, 9.0));
        assert_eq!(median_and_worst([1.0, 2.0].into_iter()), (2.0, 2.0));
        assert_eq!(median_and_worst([].into_iter()), (0.0, 0.0));
    }
}
