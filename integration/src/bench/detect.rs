//! From a fault to a closed gate: by the agent's log, and as a client sees it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use serde::Serialize;
use tokio::time::{self, Instant};

use super::fault::{Fault, Medium, Prepared};
use super::stage::Stage;
use crate::acked::AckedWriter;
use crate::daemon::Serving;
use crate::demo::narrator::Narrator;
use crate::demo::wall_clock;
use crate::logs::Line;
use crate::process::is_root;
use crate::scratch::Scratch;
use crate::{eventually, pgbench};

/// Between two questions of the client: what its figures are exact to.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Five times the longest deadline of a probe; what takes longer was not noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// What a busy engine is asked for per second.
const RATE: u32 = 200;
const WARM: usize = 200;

/// What can be chosen.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often each fault is made, each time on a new node.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these faults.
    #[arg(long, value_enum)]
    only: Vec<Fault>,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    postgres: u32,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// What the engine does when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Engine {
    Busy,
    Idle,
}

/// One fault, once. Milliseconds since the fault.
#[derive(Debug, Clone, Serialize)]
struct Round {
    /// The agent's log: `disk unsafe`, and how.
    unsafe_ms: Option<f64>,
    health: Option<String>,
    /// The agent's log: the gate changed, and to what.
    gate_ms: f64,
    gate: String,
    /// `GET /primary` no longer answers 200.
    primary_ms: f64,
    /// The last commit that a client was told of; negative when it was before the fault.
    last_ack_ms: Option<f64>,
    /// What the kernel said to the plainer way.
    plainer: Option<String>,
}

#[derive(Debug, Serialize)]
struct Case {
    fault: Fault,
    engine: Engine,
    rounds: Vec<Round>,
}

/// Makes each fault under a busy and under an idle engine.
///
/// # Errors
/// No root, or a fault was not noticed at all.
pub async fn run(options: &Options) -> Result<()> {
    ensure!(is_root(), "loop devices need root");
    let mut narrator = Narrator::begin();
    narrator.scene("From a fault to a closed gate");
    let faults = if options.only.is_empty() { Fault::value_variants() } else { options.only.as_slice() };
    let mut cases = Vec::new();
    for &fault in faults {
        for engine in [Engine::Busy, Engine::Idle] {
            let mut rounds = Vec::new();
            for _ in 0..options.rounds {
                let round = measure(fault, engine, options.postgres).await;
                rounds.push(round.with_context(|| format!("{fault:?}, {engine:?} engine"))?);
            }
            let case = Case { fault, engine, rounds };
            narrator.say(&case.told());
            cases.push(case);
        }
    }
    narrator.show(&table(&cases));
    if let Some(file) = &options.report {
        fs::write(file, serde_json::to_string_pretty(&cases)?).context("write the report")?;
    }
    Ok(())
}

async fn measure(fault: Fault, engine: Engine, postgres: u32) -> Result<Round> {
    let scratch = Scratch::new()?;
    let stage = Stage::serving(&scratch, Medium::of(fault, &scratch)?, postgres).await?;
    let mut clients = None;
    match engine {
        Engine::Busy => {
            pgbench::make_tables(&stage.node, 1)?;
            let load = pgbench::load(&stage.node, RATE)?;
            let writer = AckedWriter::start(stage.node.client()).await?;
            eventually("a warm engine", NOTICED_WITHIN, async || {
                ensure!(writer.history().acked.len() >= WARM, "not yet");
                Ok(())
            })
            .await?;
            clients = Some((load, writer));
        }
        Engine::Idle => stage.settles().await?,
    }
    let fault = Prepared::new(fault, &stage.node, &stage.medium)?;
    let plainer = fault.plainer(&stage.node);
    let before = stage.daemon.logs().lines()?.len();

    let (at, wall) = (Instant::now(), wall_clock());
    fault.make(&stage.medium)?;
    let refused = refused(&stage).await?;
    let noticed = noticed(&stage, before).await?;

    let last_ack = clients.as_ref().and_then(|(_, writer)| writer.history().acked.last().copied());
    let round = Round {
        unsafe_ms: noticed.unsafe_line.as_ref().and_then(|line| after(line, wall)),
        health: noticed.unsafe_line.as_ref().and_then(|line| field(line, "health")),
        gate_ms: after(&noticed.gate_line, wall).context("a log line without a time")?,
        gate: field(&noticed.gate_line, "gate").unwrap_or_default(),
        primary_ms: milliseconds(refused - at),
        last_ack_ms: last_ack.map(|ack| {
            milliseconds(ack.at.saturating_duration_since(at))
                - milliseconds(at.saturating_duration_since(ack.at))
        }),
        plainer,
    };
    if let Medium::Stalling(stalling) = &stage.medium {
        stalling.resume()?;
    }
    Ok(round)
}

/// Asks like a load balancer that never rests.
async fn refused(stage: &Stage) -> Result<Instant> {
    let asking = async {
        loop {
            if stage.daemon.serving().await? == Serving::No {
                return Ok(Instant::now());
            }
            time::sleep(ASK_EVERY).await;
        }
    };
    let asked = time::timeout(NOTICED_WITHIN, asking).await;
    asked.with_context(|| format!("not noticed; {}", stage.daemon.last_words()))?
}

struct Noticed {
    unsafe_line: Option<Line>,
    gate_line: Line,
}

/// The first lines after `before` that tell of it. A nearly full disk is not unsafe, and is told by the gate alone.
async fn noticed(stage: &Stage, before: usize) -> Result<Noticed> {
    let logs = stage.daemon.logs();
    eventually("what the agent says", NOTICED_WITHIN, async || {
        let lines = logs.lines()?;
        let said = |message: &str| lines.iter().skip(before).find(|line| line.message == message).cloned();
        let gate_line = said("gate changed").context("no word of the gate")?;
        let unsafe_line = said("disk unsafe");
        let read_only = field(&gate_line, "gate").is_some_and(|gate| gate.starts_with("read-only"));
        ensure!(read_only || unsafe_line.is_some(), "no word of the disk; {}", stage.daemon.last_words());
        Ok(Noticed { unsafe_line, gate_line })
    })
    .await
}

fn field(line: &Line, name: &str) -> Option<String> {
    line.fields.get(name).and_then(|value| value.as_str()).map(str::to_owned)
}

fn after(line: &Line, wall: SystemTime) -> Option<f64> {
    line.at().and_then(|at| at.duration_since(wall).ok()).map(milliseconds)
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Case {
    fn told(&self) -> String {
        let Some(first) = self.rounds.first() else { return String::new() };
        let health = first.health.as_deref().unwrap_or("not unsafe");
        let plainer = first.plainer.as_ref().map_or_else(String::new, |said| format!("; {said}"));
        format!("{:?}, {:?} engine: {health}; gate {}{plainer}", self.fault, self.engine, first.gate)
    }

    /// Least, middle and most of what `of` picks.
    fn spread(&self, of: impl Fn(&Round) -> Option<f64>) -> String {
        let mut all: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        match (all.first(), all.get(all.len() / 2), all.last()) {
            (Some(least), Some(middle), Some(most)) => format!("{middle:.0} ({least:.0}-{most:.0})"),
            _ => "-".to_owned(),
        }
    }
}

fn table(cases: &[Case]) -> String {
    let mut rows = vec![
        "milliseconds after the fault: middle (least-most)".to_owned(),
        row(["fault", "engine", "disk unsafe", "gate (log)", "/primary", "last ack"]),
    ];
    rows.extend(cases.iter().map(|case| {
        row([
            &format!("{:?}", case.fault),
            &format!("{:?}", case.engine),
            &case.spread(|round| round.unsafe_ms),
            &case.spread(|round| Some(round.gate_ms)),
            &case.spread(|round| Some(round.primary_ms)),
            &case.spread(|round| round.last_ack_ms),
        ])
    }));
    rows.join("\n")
}

fn row(cells: [&str; 6]) -> String {
    let [fault, engine, disk, gate, primary, ack] = cells;
    format!("{fault:<11} {engine:<7} {disk:>18} {gate:>18} {primary:>18} {ack:>18}")
}
