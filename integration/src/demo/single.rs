//! One node loses its only disk under load, and comes back from object storage by itself.
//!
//! With root the disks are loop devices that vanish; without, they are directories that are moved away.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::acked::{AckedWriter, History};
use crate::daemon::{Daemon, Serving};
use crate::demo::narrator::Narrator;
use crate::demo::{outcome, wall_clock};
use crate::footprint::{Lived, PeakWatch, Usage};
use crate::loop_disk::LoopDisk;
use crate::node::{CLUSTER, Disks, Node, NodeSpec};
use crate::process::{Background, is_root};
use crate::scratch::Scratch;
use crate::timeline::{Timeline, seconds};
use crate::weed::Weed;
use crate::{eventually, installation, pgbench};

/// Enough for the default scale many times over; the files are sparse.
const DISK_BYTES: u64 = 8 << 30;
/// Debug builds on two busy cores.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// A probe each 200 ms; a failing engine shows sooner.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Generous, since the report shows what it really took; and a second more for each step of the scale.
const RESTORED_WITHIN: Duration = Duration::from_secs(120);
/// Acks to wait for where "writes go on" is meant.
const GO_ON: usize = 500;

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Size of the data: pgbench's scale, about 15 MiB each.
    #[arg(long, default_value_t = 10)]
    pub scale: u32,
    /// Transactions that pgbench asks for per second.
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    pub postgres: u32,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// The figures, in seconds where nothing else is said.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    data_mib: u64,
    bootstrap: f64,
    backup: f64,
    vanish_to_gate_closed: f64,
    vanish_to_gate_open: f64,
    vanish_to_first_ack: f64,
    /// Size of the databases by the life time of the worker.
    backup_mib_per_second: f64,
    restore_mib_per_second: f64,
    /// Memory in MiB that was resident at most.
    backup_worker_peak_mib: u64,
    restore_worker_peak_mib: u64,
    /// Everything else that the agent ran, in the order in which it began.
    processes: Vec<ProcessFigures>,
    ids_acked: usize,
    ids_lost: usize,
    oldest_lost_before_vanish: f64,
    agent_resident_mib: u64,
    agent_cpu_share: f64,
}

/// One process of the agent.
#[derive(Debug, serde::Serialize)]
struct ProcessFigures {
    part: String,
    lived_seconds: f64,
    peak_mib: u64,
}

/// Everything on stage. Fields are dropped in this order: the scratch directory, which the others live in, last.
#[derive(Debug)]
struct Stage {
    daemon: Daemon,
    _store: Weed,
    disks: Vec<LoopDisk>,
    node: Node,
    report: Report,
}

/// Plays it. After a failure the logs are in `target/demo`.
///
/// # Errors
/// Something did not go as told; everything is cleaned up all the same.
pub async fn play(options: &Options) -> Result<()> {
    let mut narrator = Narrator::begin();
    let mut stage = set_stage(&mut narrator, options).await?;
    let watch = PeakWatch::start(&stage.node);
    let played = perform(&mut narrator, &mut stage, options).await;
    if played.is_err() {
        return match keep_logs(&stage.node) {
            Ok(()) => played,
            Err(not_kept) => played.with_context(|| format!("logs are lost: {not_kept:#}")),
        };
    }
    narrator.scene("What the agent's processes took");
    narrator.show(&stage.report.take_processes(&watch.seen()));
    if let Some(file) = &options.report {
        fs::write(file, serde_json::to_string_pretty(&stage.report)?).context("write the report")?;
    }
    narrator.scene("The daemon stops");
    stage.daemon.stop().await?;
    narrator.say("done: everything that was made is taken down again");
    Ok(())
}

async fn perform(narrator: &mut Narrator, stage: &mut Stage, options: &Options) -> Result<()> {
    bootstrap(narrator, stage).await?;
    let (load, writer) = put_under_load(narrator, stage, options).await?;
    back_up(narrator, stage, &writer).await?;
    let vanished = vanish(narrator, stage).await?;
    drop(load);
    let within = RESTORED_WITHIN + Duration::from_secs(options.scale.into());
    come_back(narrator, stage, &writer, &vanished, within).await?;
    audit(narrator, stage, writer, &vanished).await
}

fn keep_logs(node: &Node) -> Result<()> {
    let kept = installation::workspace().join("target/demo");
    fs::create_dir_all(&kept).context("make a folder for logs")?;
    for log in ["daemon.log", "pgbench.log", "state/log/engine.log"] {
        let from = node.folder.join(log);
        if from.exists() {
            let to = kept.join(log.rsplit('/').next().unwrap_or(log));
            fs::copy(&from, &to).with_context(|| format!("keep {log}"))?;
        }
    }
    Ok(())
}

impl Report {
    /// Takes over what was seen of the agent's processes, and shows it. The first restore worker lands the base; later ones
    /// serve log.
    fn take_processes(&mut self, seen: &[Lived]) -> String {
        let of = |part: &str| seen.iter().find(|lived| lived.part == part);
        let rate = |lived: &Lived| {
            f64::from(u32::try_from(self.data_mib).unwrap_or(u32::MAX)) / lived_seconds(lived).max(0.001)
        };
        if let Some(backup) = of("worker backup") {
            (self.backup_mib_per_second, self.backup_worker_peak_mib) =
                (rate(backup), backup.peak_kib / 1024);
        }
        if let Some(restore) = of("worker restore") {
            (self.restore_mib_per_second, self.restore_worker_peak_mib) =
                (rate(restore), restore.peak_kib / 1024);
        }
        let mut table = String::from("peak MiB     lived  process\n");
        for lived in seen {
            let (part, peak_mib, lived_seconds) =
                (lived.part.clone(), lived.peak_kib / 1024, lived_seconds(lived));
            table += &format!("{peak_mib:>8}{:>10}  {part}\n", format!("{lived_seconds:.2} s"));
            self.processes.push(ProcessFigures { part, lived_seconds, peak_mib });
        }
        let (backup, restore) = (self.backup_mib_per_second, self.restore_mib_per_second);
        table += &format!("{} MiB: backup {backup:.0} MiB/s, restore {restore:.0} MiB/s", self.data_mib);
        table
    }
}

fn lived_seconds(lived: &Lived) -> f64 {
    (lived.last - lived.first).as_secs_f64()
}

async fn set_stage(narrator: &mut Narrator, options: &Options) -> Result<Stage> {
    narrator.scene("Two blank disks, an S3 server, and an agent");
    let scratch = Scratch::new()?;
    let store = Weed::start(&scratch).await?;
    narrator.say(&format!("an S3 server listens on {}", store.endpoint()));
    let mut disks = Vec::new();
    if is_root() {
        for name in ["disk-1", "disk-2"] {
            disks.push(LoopDisk::blank(&scratch, name, DISK_BYTES)?);
        }
    }
    let paths: Vec<_> = disks.iter().map(|disk| disk.path().to_owned()).collect();
    narrator.say(&if paths.is_empty() {
        "no root: directories serve as disks".to_owned()
    } else {
        format!("disks: {paths:?}")
    });
    let used = if paths.is_empty() { Disks::Directory } else { Disks::Block(paths) };
    let spec = NodeSpec::alone("n1", used, "restore", installation::postgres(options.postgres)?);
    let node = Node::lay_out(&scratch, &spec, &store)?;
    let daemon = Daemon::start(&node).await?;
    daemon.logs().wait_for("run 'holdfastd bootstrap'", OPENS_WITHIN).await?;
    narrator.say("holdfastd runs; asked why nothing happens (`holdfast explain`), it says:");
    narrator.show(&daemon.holdfast(&["explain"])?);
    Ok(Stage { daemon, _store: store, disks, node, report: Report::default() })
}

async fn bootstrap(narrator: &mut Narrator, stage: &mut Stage) -> Result<()> {
    narrator.scene("A cluster is bootstrapped, once, on an operator's word");
    let asked = Instant::now();
    stage.daemon.bootstrap()?;
    narrator.say(&format!("holdfastd bootstrap --token {CLUSTER}"));
    stage.daemon.becomes(Serving::Yes, OPENS_WITHIN).await?;
    stage.report.bootstrap = asked.elapsed().as_secs_f64();
    narrator.say(&format!("the gate is open {} later:", seconds(asked.elapsed())));
    narrator.show(&stage.daemon.holdfast(&["status"])?);
    stage.node.make_client_database()
}

async fn put_under_load(
    narrator: &mut Narrator,
    stage: &Stage,
    options: &Options,
) -> Result<(Background, AckedWriter)> {
    narrator.scene("Clients write");
    pgbench::make_tables(&stage.node, options.scale)?;
    narrator.say(&format!("pgbench made its tables at scale {}", options.scale));
    let load = pgbench::load(&stage.node, options.rate)?;
    let writer = AckedWriter::start(stage.node.client()).await?;
    writes_go_on(&writer).await?;
    narrator.say("pgbench runs; beside it a client notes every id that it was told is committed");
    Ok((load, writer))
}

async fn writes_go_on(writer: &AckedWriter) -> Result<History> {
    let already = writer.history().acked.len();
    eventually("more acks", OPENS_WITHIN, async || {
        let history = writer.history();
        let more = history.acked.len() - already;
        ensure!(more >= GO_ON, "{more} of {GO_ON}");
        Ok(history)
    })
    .await
}

async fn back_up(narrator: &mut Narrator, stage: &mut Stage, writer: &AckedWriter) -> Result<()> {
    narrator.scene("A backup goes to S3 while they write, and they go on");
    stage.report.data_mib = data_mib(&stage.node)?;
    let began = Instant::now();
    let told = stage.daemon.holdfast(&["backup", "create"])?;
    stage.report.backup = began.elapsed().as_secs_f64();
    narrator.say(&format!("holdfast backup create: {}", seconds(began.elapsed())));
    narrator.show(&told);
    narrator.show(&stage.daemon.holdfast(&["backup", "list"])?);
    let (since, before) = (Instant::now(), Usage::of(stage.daemon.pid())?);
    let history = writes_go_on(writer).await?;
    let usage = Usage::of(stage.daemon.pid())?;
    stage.report.agent_resident_mib = usage.resident_kib / 1024;
    stage.report.agent_cpu_share =
        (usage.cpu_seconds - before.cpu_seconds) / since.elapsed().as_secs_f64().max(0.001);
    let (resident, share) = (stage.report.agent_resident_mib, 100.0 * stage.report.agent_cpu_share);
    narrator.say(&format!("{} ids acked so far", history.acked.len()));
    narrator.say(&format!("the agent holds {resident} MiB and takes {share:.1} % of a core"));
    Ok(())
}

fn data_mib(node: &Node) -> Result<u64> {
    let size =
        node.sql("postgres", "select sum(pg_database_size(oid))::bigint / 1048576 from pg_database")?;
    size.trim().parse().context("read the size of the data")
}

/// The moment of the loss, on the clock of this process and on that of the logs.
#[derive(Debug, Clone, Copy)]
struct Vanished {
    at: Instant,
    wall_clock: SystemTime,
}

async fn vanish(narrator: &mut Narrator, stage: &mut Stage) -> Result<Vanished> {
    narrator.scene("The disk vanishes");
    let vanished = Vanished { at: Instant::now(), wall_clock: wall_clock() };
    if let Some(disk) = stage.disks.first() {
        disk.vanish()?;
    } else {
        move_directories_away(&stage.node)?;
    }
    narrator.say("gone, with the only copy of the data");
    stage.daemon.becomes(Serving::No, NOTICED_WITHIN).await?;
    stage.report.vanish_to_gate_closed = vanished.at.elapsed().as_secs_f64();
    narrator.say(&format!("the agent has closed the gate: {}", seconds(vanished.at.elapsed())));
    Ok(vanished)
}

fn move_directories_away(node: &Node) -> Result<()> {
    let lost = node.folder.join("lost");
    fs::rename(&node.directories, &lost).context("move the volume directories away")?;
    fs::create_dir(&node.directories).context("make room for new volume directories")
}

async fn come_back(
    narrator: &mut Narrator,
    stage: &mut Stage,
    writer: &AckedWriter,
    vanished: &Vanished,
    within: Duration,
) -> Result<()> {
    narrator.scene("Nobody does anything, and it comes back");
    let before = writer.history().acked.len();
    stage.daemon.becomes(Serving::Yes, within).await?;
    let open = vanished.at.elapsed();
    let first = eventually("an ack after the restore", OPENS_WITHIN, async || {
        writer.history().acked.get(before).copied().context("none yet")
    })
    .await?;
    stage.report.vanish_to_gate_open = open.as_secs_f64();
    stage.report.vanish_to_first_ack = (first.at - vanished.at).as_secs_f64();
    narrator.say(&format!("the gate is open again {} after the disk vanished", seconds(open)));
    narrator.say(&format!("the first client was acked after {}", seconds(first.at - vanished.at)));
    narrator.say("what the agent said, in seconds since the disk vanished:");
    narrator.show(&outcome::told_since(&stage.daemon.logs().lines()?, vanished.wall_clock));
    narrator.show(&stage.daemon.holdfast(&["status"])?);
    Ok(())
}

async fn audit(
    narrator: &mut Narrator,
    stage: &mut Stage,
    writer: AckedWriter,
    vanished: &Vanished,
) -> Result<()> {
    narrator.scene("The books are checked");
    writes_go_on(&writer).await.map_err(|err| err.context(stage.daemon.last_words()))?;
    let (history, found) = writer.stop().await?;
    let audit = history.audit(&found);
    let oldest = audit.lost.first().map(|ack| vanished.at.saturating_duration_since(ack.at));
    stage.report.ids_acked = audit.acked;
    stage.report.ids_lost = audit.lost.len();
    stage.report.oldest_lost_before_vanish = oldest.unwrap_or_default().as_secs_f64();
    narrator.say(&outcome::loss(&audit, vanished.at));
    narrator.say(&format!(
        "{} ids without an answer, {} of them committed",
        history.unknown.len(),
        audit.unknown_found
    ));
    let mut timeline = Timeline::since(vanished.at);
    for outage in history.outages(Duration::from_secs(1)) {
        timeline.mark_at("last ack before the outage", outage.from);
        timeline.mark_at("first ack after it", outage.until);
    }
    narrator.show(&timeline.table());
    outcome::judge(&audit, vanished.at)?;
    narrator.say("every id acked before that window is there exactly once");
    Ok(())
}
